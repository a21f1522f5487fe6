"""The states of the runs of a plan: as a table, in one line, and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from dstrl_cli.report.words import counted
from dstrl_cli.sweep.status import Status
from dstrl_cli.terminal.columns import Layout, fitting_table
from dstrl_cli.terminal.plan import identity
from dstrl_cli.terminal.wording import number, progress

AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def status_table(found: Sequence[Status], width: int) -> Table:
    """Return a row for each run; `width` is the terminal's."""
    rows = [_cells(each) for each in found]
    folded = [row | {"run": row["run"].replace("/", "/\n", 1)} for row in rows]
    held = ["held by"] if any(each.holder for each in found) else []
    layouts = [
        _layout(rows, ["run"], ["state"], ["step"], ["return"], ["age"], *([held] if held else [])),
        _layout(rows, ["run", *held], ["state"], ["step"], ["return"], ["age"]),
        _layout(rows, ["run", *held], ["state"], ["done"], ["return"], ["age"]),
        _layout(folded, ["run", "state", *held], ["done"], ["return"], ["age"]),
    ]
    return fitting_table(layouts, width, right=("step", "done", "return", "age"))


def _cells(status: Status) -> dict[str, str]:
    """Return what is shown of a run, by heading; `done` is the share of its steps."""
    step, of = status.step, status.run.config.steps
    return {
        "run": status.run.label,
        "state": status.state,
        "step": "" if step is None else progress(step, of),
        "done": "" if step is None else progress(step, of, short=True),
        "return": "" if status.value is None else number(status.value),
        "age": "" if status.age_s is None else _age(status.age_s),
        "held by": status.holder or "",
    }


def _layout(rows: Sequence[Mapping[str, str]], *columns: Sequence[str]) -> Layout:
    """Return a layout with a column for each of `columns`: cells that stand below one another."""
    cells = [
        ["\n".join(filter(None, (row[name] for name in column))) for column in columns]
        for row in rows
    ]
    return Layout([", ".join(column) for column in columns], cells)


def status_line(found: Sequence[Status]) -> str:
    """Return in one line how many runs are in each state."""
    states = Counter(each.state for each in found)
    named = ", ".join(f"{runs} {state}" for state, runs in states.items())
    return f"{counted(len(found), 'run')}: {named}"


def status_json(found: Sequence[Status]) -> dict[str, Any]:
    """Return the states for programs."""
    return {
        "states": dict(Counter(each.state for each in found)),
        "runs": [
            identity(each.run)
            | {
                "state": each.state,
                "step": each.step,
                "return": each.value,
                "age_s": each.age_s,
                "held_by": each.holder,
            }
            for each in found
        ],
    }


def _age(seconds: float) -> str:
    """Return a time in its largest unit: `3 min`."""
    size, unit = next(((size, unit) for size, unit in AGES if seconds >= size), (1, "s"))
    return f"{seconds // size:.0f} {unit}"
