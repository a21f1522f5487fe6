"""The live view of a sweep: one line for each run, as many as the terminal has room for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dstrl_cli.report.words import counted
from dstrl_cli.runs.status import FINISHED, RUNNING
from dstrl_cli.sweep.display import Display
from dstrl_cli.terminal.columns import NARROW
from dstrl_cli.terminal.pace import Pace, clock_time, seconds_left
from dstrl_cli.terminal.wording import Row, ending, number, progress

WAITING = "waiting"

HEADINGS = ("run", "state", "step", "return", "left")
NODE = "on"
"""Heading of the machines on which runs train, where there are several."""

GAP = 2
MIN_NAME, MAX_STATE = 10, 24
"""Columns that are blank between two cells, that names have at least, and states at most."""

OTHER_LINES = 4
"""Lines of the view that show no run, and the terminal's last one."""


@dataclass
class _Run:
    """What is shown of a run; `key` is that of its population while it trains."""

    label: str
    total: int
    state: str = WAITING
    key: int | None = None
    node: str = ""
    step: int | None = None
    episodes: tuple[int, int] | None = None  # had, and of how many, where they end the training
    value: float | None = None

    @property
    def rank(self) -> int:
        """How little it matters: runs of the lowest ranks are shown where there is little room."""
        if self.state in (RUNNING, WAITING, FINISHED):
            return {RUNNING: 0, WAITING: 3, FINISHED: 4}[self.state]
        return 1 if self.state.startswith("held") else 2

    @property
    def kind(self) -> str:
        """The first word of its state."""
        return self.state.split()[0]


class SweepDisplay(Display):
    """All runs of a sweep in a table that is drawn anew: on a terminal.

    Args:
        console: the terminal.
        work: for every population the labels of its runs, their steps and their random steps.
        clock: the time in seconds.
    """

    def __init__(
        self,
        console: Console,
        work: Sequence[tuple[Sequence[str], int, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._clock = console, clock
        self._runs = {label: _Run(label, total) for labels, total, _ in work for label in labels}
        self._waiting = {labels[0]: Pace(total, warm_up) for labels, total, warm_up in work}
        self._running: dict[int, Pace] = {}
        self._members: dict[int, list[_Run]] = {}
        self._headings: tuple[str, ...] = HEADINGS
        self._ended: list[Pace] = []
        self._live = Live(
            console=console, get_renderable=self.view, refresh_per_second=4, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def start(self, key: int, title: str, total: int, warm_up: int, runs: Sequence[str]) -> None:
        """Show that the runs of a population train."""
        self._running[key] = Pace(total, warm_up)
        self._members[key] = [self._runs[label] for label in runs]
        for run in self._members[key]:
            self._waiting.pop(run.label, None)
            run.state, run.key, run.node = RUNNING, key, ""
            run.step = run.episodes = run.value = None

    def placed(self, key: int, title: str, node: str) -> None:
        """Show the machine, in a column that there is from the first one on."""
        self._headings = (*HEADINGS, NODE)
        for run in self._of(key):
            run.node = node

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Show how far a population has come."""
        if key in self._running:
            pace = self._running[key]
            pace.report(step, self._clock())
            for run in self._of(key):
                run.step = step
                if run.episodes is not None:
                    pace.expect(step, *run.episodes)

    def episodes(self, key: int, done: int, total: int) -> None:
        """Show episodes in place of steps."""
        for run in self._of(key):
            run.episodes = done, total

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Show the last return."""
        if (value := row.get("eval_return_mean")) is not None:
            self._runs[label].value = float(value)

    def message(self, text: str) -> None:
        """Print the line above the table."""
        self._console.print(Text(text))

    def state(self, label: str, state: str) -> None:
        """Show in what state a run is that does not train."""
        self._leave(self._runs[label], state)

    def finish(self, label: str, summary: Row) -> None:
        """Show how a run ended."""
        run = self._runs[label]
        self._waiting.pop(label, None)
        if summary.get("steps") is not None:
            run.step = summary["steps"]
        if (result := (summary.get("final_return") or {}).get("mean")) is not None:
            run.value = float(result)
        self._leave(run, str(summary.get("status")))
        self.message(ending(label, summary))

    def view(self) -> Group:
        """Return the table as it is now."""
        runs = list(self._runs.values())
        room = max(1, self._console.height - OTHER_LINES)
        order = {run.label: place for place, run in enumerate(runs)}
        shown = sorted(runs, key=lambda run: (run.rank, order[run.label]))[:room]
        names = {run.label for run in shown}
        hidden = [run for run in runs if run.label not in names]
        table = Table.grid(padding=(0, GAP), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1, min_width=MIN_NAME)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=MAX_STATE)
        for _ in range(3):
            table.add_column(no_wrap=True, justify="right")
        if NODE in self._headings:
            table.add_column(no_wrap=True, overflow="ellipsis", max_width=MAX_STATE)
        table.add_row(*(Text(name, "bold") for name in self._headings))
        for cells in self._rows(sorted(shown, key=lambda run: order[run.label])):
            table.add_row(*map(Text, cells))
        more = [Text(f"and {len(hidden)} more: {_kinds(hidden)}")] if hidden else []
        return Group(self._headline(), table, *more)

    def _headline(self) -> Text:
        running, waiting = self._running.values(), self._waiting.values()
        left = seconds_left(running, waiting, self._ended, self._clock())
        runs = self._runs.values()
        text = f"time left {clock_time(left)}; {counted(len(runs), 'run')}: {_kinds(runs)}"
        return Text(text, no_wrap=True, overflow="ellipsis")

    def _rows(self, runs: Sequence[_Run]) -> list[list[str]]:
        """Return the cells of runs; where names have no room, steps in percent, then cut names.

        A name is cut at its front: the seed at its end tells it from the others.
        """
        for short in (False, True) if self._console.width >= NARROW else (True,):
            rows = [self._cells(run, short) for run in runs]
            widths = [max(map(len, column)) for column in zip(self._headings, *rows, strict=True)]
            _, state, *numbers = (width + GAP for width in widths)
            room = self._console.width - min(state, MAX_STATE + GAP) - sum(numbers)
            if widths[0] <= room:
                break
        return [[_cut(name, max(room, MIN_NAME)), *others] for name, *others in rows]

    def _cells(self, run: _Run, short: bool) -> list[str]:
        """Return the cells of a run, its steps as a percentage if `short`."""
        step = ""
        if run.step is not None:
            done, of = run.episodes or (run.step, run.total)
            step = progress(done, of, short) + " ep" * (run.episodes is not None and not short)
        pace = None if run.key is None else self._running.get(run.key)
        left = "" if pace is None else clock_time(pace.seconds_left(self._clock()))
        value = "" if run.value is None else number(run.value)
        return [run.label, run.state, step, value, left, run.node][: len(self._headings)]

    def _of(self, key: int) -> list[_Run]:
        return [run for run in self._members.get(key, ()) if run.key == key]

    def _leave(self, run: _Run, state: str) -> None:
        """Note that a run does not train; its population has ended with its last member."""
        key, run.key, run.state, run.node = run.key, None, state, ""
        if key is not None and not self._of(key):
            self._ended.append(self._running.pop(key))
            del self._members[key]


def _kinds(runs: Iterable[_Run]) -> str:
    """Return how many runs are in each state."""
    ordered = sorted(runs, key=lambda run: run.rank)
    return ", ".join(f"{n} {kind}" for kind, n in Counter(run.kind for run in ordered).items())


def _cut(name: str, room: int) -> str:
    return name if len(name) <= room else f"…{name[len(name) - room + 1 :]}"
