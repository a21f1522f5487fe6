"""What the user sees while runs train: live bars on a terminal, plain lines elsewhere.

Nothing here knows how runs are carried out; `DisplayReporter` is what the trainer talks to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

NARROW = 80
"""Terminals narrower than this get fewer columns."""

Row = Mapping[str, Any]


class Display:
    """Shows runs while they train. This base shows nothing."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def start(self, key: int, label: str, total: int) -> None:
        """Show a run (or a population) that starts, of `total` steps, from now on called `key`."""

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Show how far a run has come."""

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Show an evaluation: a row of `progress.csv`."""

    def message(self, text: str) -> None:
        """Show one line of text."""

    def finish(self, key: int, label: str, summary: Row) -> None:
        """Show how a run ended."""


class DisplayReporter:
    """The trainer's reporter for one population: passes on what happens to its members."""

    def __init__(self, display: Display, key: int, labels: Sequence[str]) -> None:
        self._display = display
        self._key = key
        self._labels = labels

    def progress(self, step: int, total: int, steps_per_s: float, info: Row | None = None) -> None:
        """Show how far the population has come."""
        self._display.progress(self._key, step, total, steps_per_s)

    def evaluation(self, member: int, row: Row) -> None:
        """Show one member's evaluation."""
        self._display.evaluation(self._key, self._labels[member], row)

    def message(self, text: str) -> None:
        """Show one line of text."""
        self._display.message(text)


class LineDisplay(Display):
    """Plain lines: where output goes to a file or a pipe.

    `evaluations` adds a line for each evaluation; a sweep would have too many.
    """

    def __init__(self, console: Console, runs: int, evaluations: bool) -> None:
        self._console = console
        self._runs = runs
        self._evaluations = evaluations
        self._ended = 0

    def start(self, key: int, label: str, total: int) -> None:
        """Say that a run starts."""
        if not self._evaluations:
            self.message(f"started   {label}")

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Print the evaluation."""
        if not self._evaluations:
            return
        mean, std = row.get("eval_return_mean"), row.get("eval_return_std")
        parts = [
            f"step {_count(row.get('step'))}",
            f"return {_number(mean)} ± {_number(std)}",
            f"{_number(row.get('steps_per_s'))} steps/s",
            f"active {active(row)}",
        ]
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        """Print the line, unwrapped: what reads it may be a program."""
        self._console.print(Text(text), soft_wrap=True)

    def finish(self, key: int, label: str, summary: Row) -> None:
        """Say how a run ended, and how many have."""
        self._ended += 1
        if self._runs > 1:
            self.message(f"{ending(label, summary)}  ({self._ended}/{self._runs})")


class LiveDisplay(Display):
    """Bars that are drawn anew: on a terminal."""

    def __init__(self, console: Console, runs: int) -> None:
        self._progress = Progress(*_columns(console), console=console, refresh_per_second=4)
        self._runs = runs
        self._tasks: dict[int, TaskID] = {}
        self._returns: dict[int, dict[str, float]] = {}
        self._all: TaskID | None = None

    def __enter__(self) -> LiveDisplay:
        self._progress.start()
        if self._runs > 1:
            self._all = self._progress.add_task(f"all {self._runs} runs", total=self._runs)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def start(self, key: int, label: str, total: int) -> None:
        """Add a bar."""
        name = label if self._runs > 1 else "training"
        self._tasks[key] = self._progress.add_task(escape(name), total=total)
        self._returns[key] = {}

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Move the bar."""
        if key in self._tasks:
            self._progress.update(self._tasks[key], completed=step, total=total, speed=steps_per_s)

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Show the last return beside the bar: of a population, the mean of its members."""
        value = row.get("eval_return_mean")
        if key not in self._tasks or value is None:
            return
        returns = self._returns[key]
        returns[label] = float(value)
        mean = sum(returns.values()) / len(returns)
        self._progress.update(
            self._tasks[key], last=f"return {_number(mean)}", active=f"active {active(row)}"
        )

    def message(self, text: str) -> None:
        """Print the line above the bars."""
        self._progress.console.print(Text(text))

    def finish(self, key: int, label: str, summary: Row) -> None:
        """Take the bar away, and say how the run ended."""
        if key in self._tasks:
            self._progress.remove_task(self._tasks.pop(key))
        if self._all is not None:
            self._progress.advance(self._all)
            self.message(ending(label, summary))


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed")
        return Text("" if speed is None else f"{_number(speed)}/s", style="progress.data.speed")


class _Field(ProgressColumn):
    def __init__(self, name: str) -> None:
        super().__init__(Column(no_wrap=True))
        self._name = name

    def render(self, task: Task) -> Text:
        return Text(str(task.fields.get(self._name, "")))


def _columns(console: Console) -> list[ProgressColumn]:
    """Return the columns that fit the terminal."""
    narrow = console.width < NARROW
    name = TextColumn(
        "{task.description}",
        table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1, min_width=10),
    )
    columns: list[ProgressColumn] = [name, BarColumn(bar_width=10 if narrow else 20)]
    if not narrow:
        columns += [TextColumn("{task.completed:,.0f}/{task.total:,.0f}"), _Speed()]
    columns += [TimeRemainingColumn(compact=True), _Field("last")]
    return columns if narrow else [*columns, _Field("active")]


def make_display(console: Console, runs: int, *, evaluations: bool) -> Display:
    """Return the display that suits the console; `evaluations`: also each one, in plain lines."""
    if console.is_terminal:
        return LiveDisplay(console, runs)
    return LineDisplay(console, runs, evaluations)


# --- wording ------------------------------------------------------------------------------------


def ending(label: str, summary: Row) -> str:
    """Return in one line how a run ended."""
    status = str(summary.get("status"))
    parts = [f"{status:<11}", label]
    if (result := final_return(summary)) is not None and status == "finished":
        parts.append(f"return {result}")
    if error := summary.get("error"):
        parts.append(str(error))
    return " ".join(parts)


def final_return(summary: Row) -> str | None:
    """Return `mean ± std` of the last evaluation, or None."""
    result = summary.get("final_return") or {}
    if result.get("mean") is None:
        return None
    return f"{_number(result['mean'])} ± {_number(result.get('std'))}"


def active(row: Row) -> str:
    """Return the active connections of a row of `progress.csv`: actor + both critics."""
    return f"{_count(row.get('actor_active'))} + {_count(row.get('critic_active'))}"


def _number(value: Any) -> str:
    """Return a number in about four digits; `-` where there is none."""
    if value is None:
        return "-"
    number = float(value)
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _count(value: Any) -> str:
    """Return a whole number with thousands separated; `-` where there is none."""
    return "-" if value is None else f"{int(value):,}"
