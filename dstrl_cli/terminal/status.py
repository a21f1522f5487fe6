"""The states of the runs of a plan: as a table, in one line, and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from dstrl_cli.report.words import counted
from dstrl_cli.sweep.status import Status
from dstrl_cli.terminal.columns import Layout, fitting_table
from dstrl_cli.terminal.plan import identity
from dstrl_cli.terminal.wording import count, number

AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def status_table(found: Sequence[Status], width: int) -> Table:
    """Return a row for each run; `width` is the terminal's."""
    headings = ["run", "state", "step", "return", "age", "held by"]
    rows = [
        [
            each.run.label,
            each.state,
            "" if each.step is None else f"{count(each.step)} of {count(each.run.config.steps)}",
            "" if each.value is None else number(each.value),
            "" if each.age_s is None else _age(each.age_s),
            each.holder or "",
        ]
        for each in found
    ]
    below = [["\n".join([row[0], *filter(None, [row[5]])]), *row[1:5]] for row in rows]
    layouts = [Layout(headings, rows), Layout(["run, held by", *headings[1:5]], below)]
    return fitting_table(layouts, width, right=("step", "return", "age"))


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
