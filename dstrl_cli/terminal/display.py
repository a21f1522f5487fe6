"""What the user sees while runs train: live bars on a terminal, plain lines elsewhere.

Both implement `sweep.display.Display`; launchers call them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from dstrl_cli.config.printable import printable
from dstrl_cli.sweep.display import Display
from dstrl_cli.sweep.place import Placement
from dstrl_cli.terminal.pace import Pace, clock_time, seconds_left

NARROW = 80
"""Terminals narrower than this get fewer columns."""

Row = Mapping[str, Any]


class LineDisplay(Display):
    """Plain lines: where output goes to a file or a pipe.

    Args:
        console: where lines go.
        runs: how many runs there are.
        evaluations: whether each evaluation gets a line; a sweep would have too many.
        errors: where runs that did not finish are named; default `console`.
    """

    def __init__(
        self, console: Console, runs: int, evaluations: bool, errors: Console | None = None
    ) -> None:
        self._console = console
        self._errors = errors or console
        self._runs = runs
        self._evaluations = evaluations
        self._ended = 0
        self._active = _Active()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, key: int, label: str, total: int, warm_up: int) -> None:
        """Say that a run starts."""
        if not self._evaluations:
            self.message(f"started   {label}")

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Say nothing: evaluations say how far a run has come."""
        return

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Print the evaluation."""
        if not self._evaluations:
            return
        mean, std = row.get("eval_return_mean"), row.get("eval_return_std")
        parts = [
            f"step {_count(row.get('step'))}",
            f"return {_number(mean)} ± {_number(std)}",
            f"{_number(row.get('steps_per_s'))} steps/s",
        ]
        if shown := self._active.shown(label, row):
            parts.append(shown)
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        """Print the line, unwrapped: what reads it may be a program."""
        self._console.print(Text(text), soft_wrap=True)

    def finish(self, key: int, label: str, summary: Row) -> None:
        """Say how a run ended, and how many have."""
        self._ended += 1
        if self._runs == 1:
            return
        text = Text(f"{ending(label, summary)}  ({self._ended}/{self._runs})")
        finished = summary.get("status") == "finished"
        (self._console if finished else self._errors).print(text, soft_wrap=True)


class LiveDisplay(Display):
    """Bars that are drawn anew: on a terminal.

    Args:
        console: the terminal.
        runs: how many runs there are.
        work: steps and random steps of every population, in the order of their keys.
        clock: the time in seconds.
    """

    def __init__(
        self,
        console: Console,
        runs: int,
        work: Sequence[tuple[int, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = Progress(*_columns(console), console=console, refresh_per_second=4)
        self._runs, self._clock = runs, clock
        self._waiting = {key: Pace(*each) for key, each in enumerate(work)}
        self._running: dict[int, Pace] = {}
        self._ended: list[Pace] = []
        self._tasks: dict[int, TaskID] = {}
        self._returns: dict[int, dict[str, float]] = {}
        self._active = _Active()
        self._all: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        if self._runs > 1:
            self._all = self._progress.add_task(f"all {self._runs} runs", total=self._runs)
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, key: int, label: str, total: int, warm_up: int) -> None:
        """Add a bar."""
        name = label if self._runs > 1 else "training"
        self._tasks[key] = self._progress.add_task(escape(printable(name)), total=total)
        self._returns[key] = {}
        self._waiting.pop(key, None)
        self._running[key] = Pace(total, warm_up)

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Move the bar, and estimate anew what is left."""
        if key not in self._tasks:
            return
        now = self._clock()
        self._running[key].report(step, now)
        left = self._running[key].seconds_left(now)
        self._progress.update(
            self._tasks[key], completed=step, total=total, speed=steps_per_s, left=left
        )
        if self._all is not None:
            running, waiting = self._running.values(), self._waiting.values()
            self._progress.update(self._all, left=seconds_left(running, waiting, self._ended, now))

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Show the last return beside the bar: of a population, the mean of its members."""
        value = row.get("eval_return_mean")
        if key not in self._tasks or value is None:
            return
        returns = self._returns[key]
        returns[label] = float(value)
        mean = sum(returns.values()) / len(returns)
        self._progress.update(
            self._tasks[key],
            last=f"return {_number(mean)}",
            active=self._active.shown(label, row),
        )

    def message(self, text: str) -> None:
        """Print the line above the bars."""
        self._progress.console.print(Text(text))

    def finish(self, key: int, label: str, summary: Row) -> None:
        """Take the bar away, and say how the run ended."""
        if key in self._tasks:
            self._progress.remove_task(self._tasks.pop(key))
            self._ended.append(self._running.pop(key))
        if self._all is not None:
            self._progress.advance(self._all)
            self.message(ending(label, summary))


class _Active:
    """The active connections of runs, shown from the first evaluation on at which they changed."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._changed: set[str] = set()

    def shown(self, label: str, row: Row) -> str:
        """Return the connections of a run's row in words, or nothing while they are constant."""
        now = f"{_count(row.get('actor_active'))} + {_count(row.get('critic_active'))}"
        if self._first.setdefault(label, now) != now:
            self._changed.add(label)
        return f"active {now}" if label in self._changed else ""


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed")
        return Text("" if speed is None else f"{_number(speed)}/s", style="progress.data.speed")


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text("-:--" if left is None else clock_time(left), style="progress.remaining")


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
    columns += [_TimeLeft(), _Field("last")]
    return columns if narrow else [*columns, _Field("active")]


def make_display(
    console: Console, errors: Console, placement: Placement, *, evaluations: bool
) -> LineDisplay | LiveDisplay:
    """Return the display that suits the console.

    Args:
        console: where progress is shown.
        errors: where plain lines name runs that did not finish.
        placement: what will train.
        evaluations: whether plain lines are printed for each evaluation.
    """
    runs = len(placement.runs)
    if not console.is_terminal:
        return LineDisplay(console, runs, evaluations, errors)
    configs = [each.runs[0].config for each in placement.populations]
    return LiveDisplay(console, runs, [(each.steps, each.learning_starts) for each in configs])


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


def _number(value: Any) -> str:
    """Return a number in about four digits; `-` where there is none."""
    if value is None:
        return "-"
    number = float(value)
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _count(value: Any) -> str:
    """Return a whole number with thousands separated; `-` where there is none."""
    return "-" if value is None else f"{int(value):,}"
