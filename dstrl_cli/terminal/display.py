"""What the user sees while runs train: a live view on a terminal, plain lines elsewhere.

All implement `sweep.display.Display`; launchers call them. That of a sweep is in `sweepview`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from dstrl_cli.runs.status import FINISHED
from dstrl_cli.sweep.display import Display
from dstrl_cli.sweep.place import Placement
from dstrl_cli.terminal import curve
from dstrl_cli.terminal.columns import NARROW
from dstrl_cli.terminal.pace import Pace, clock_time
from dstrl_cli.terminal.sweepview import SweepDisplay
from dstrl_cli.terminal.wording import Row, count, ending, number, progress, success_words


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
        self._episodes: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def start(self, key: int, title: str, total: int, warm_up: int, runs: Sequence[str]) -> None:
        """Say that a run starts."""
        if not self._evaluations:
            self.message(f"started   {title}")

    def placed(self, key: int, title: str, node: str) -> None:
        """Say on which machine a run trains."""
        self.message(f"on {node}: {title}")

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Say nothing: evaluations say how far a run has come."""
        return

    def episodes(self, key: int, done: int, total: int) -> None:
        """Keep how far a run has come for its next evaluation."""
        self._episodes[key] = f"episode {progress(done, total)}"

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Print the evaluation."""
        if not self._evaluations:
            return
        mean, std = row.get("eval_return_mean"), row.get("eval_return_std")
        parts = [
            f"step {count(row.get('step'))}",
            *([self._episodes[key]] if key in self._episodes else []),
            f"return {number(mean)} ± {number(std)}",
            *success_words(row.get("eval_success")),
            f"{number(row.get('steps_per_s'))} steps/s",
        ]
        if shown := self._active.shown(label, row):
            parts.append(shown)
        self.message("  ".join(parts))

    def message(self, text: str) -> None:
        """Print the line, unwrapped: what reads it may be a program."""
        self._console.print(Text(text), soft_wrap=True)

    def state(self, label: str, state: str) -> None:
        """Say nothing: what matters comes as a message."""
        return

    def finish(self, label: str, summary: Row) -> None:
        """Say how a run ended, and how many have."""
        self._ended += 1
        if self._runs == 1:
            return
        text = Text(f"{ending(label, summary)}  ({self._ended}/{self._runs})")
        finished = summary.get("status") == FINISHED
        (self._console if finished else self._errors).print(text, soft_wrap=True)


class LiveDisplay(Display):
    """A bar that is drawn anew: of a single run, on a terminal.

    Args:
        console: the terminal.
        clock: the time in seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._returns: list[tuple[float, float]] = []  # step and return of the evaluations
        self._progress = _WithCurve(
            self._returns, *_columns(console), console=console, refresh_per_second=4
        )
        self._clock = clock
        self._pace = Pace(1, 0)
        self._task = TaskID(0)
        self._episodes: tuple[int, int] | None = None
        self._active = _Active()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, key: int, title: str, total: int, warm_up: int, runs: Sequence[str]) -> None:
        """Add the bar."""
        self._task = self._progress.add_task("training", total=total)
        self._pace = Pace(total, warm_up)

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Move the bar, and estimate anew what is left."""
        now, done = self._clock(), step
        self._pace.report(step, now)
        if self._episodes is not None:
            had, of = self._episodes
            done = max(step, round(had / of * total))
            self._pace.expect(step, had, of)
        left = self._pace.seconds_left(now)
        self._progress.update(self._task, completed=done, total=total, speed=steps_per_s, left=left)

    def episodes(self, key: int, done: int, total: int) -> None:
        """Count episodes beside the bar, which fills by steps or episodes, whichever is further."""
        self._episodes = done, total
        self._progress.update(self._task, count=f"{progress(done, total)} episodes")

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Show the last return beside the bar, and the curve of all above it."""
        if (value := row.get("eval_return_mean")) is not None:
            words = [f"return {number(value)}", *success_words(row.get("eval_success"))]
            active = self._active.shown(label, row)
            if math.isfinite(value):
                self._returns.append((row.get("step") or 0, value))
            self._progress.update(self._task, last="  ".join(words), active=active)

    def message(self, text: str) -> None:
        """Print the line above the bar."""
        self._progress.console.print(Text(text))

    def placed(self, key: int, title: str, node: str) -> None:
        """Show nothing: a single run trains in this process."""

    def state(self, label: str, state: str) -> None:
        """Show nothing: a single run trains or has ended."""
        return

    def finish(self, label: str, summary: Row) -> None:
        """Take the bar away."""
        self._progress.remove_task(self._task)


class _WithCurve(Progress):
    """A bar below the curve of the returns so far; narrow terminals have no curve."""

    def __init__(
        self, returns: Sequence[tuple[float, float]], *columns: ProgressColumn, **options: Any
    ) -> None:
        self._returns = returns
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the curve, where there is one, and the bar."""
        if self.tasks and self.console.width >= NARROW:
            drawn = curve.shown(self._returns, self.console)
            if drawn is not None:
                yield drawn
        yield from super().get_renderables()


class _Active:
    """The active connections of runs, shown from the first evaluation on at which they changed."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._changed: set[str] = set()

    def shown(self, label: str, row: Row) -> str:
        """Return the connections of a run's row in words, or nothing while they are constant."""
        now = f"{count(row.get('actor_active'))} + {count(row.get('critic_active'))}"
        if self._first.setdefault(label, now) != now:
            self._changed.add(label)
        return f"active {now}" if label in self._changed else ""


class _Count(ProgressColumn):
    """Steps done of all steps or, where episodes end the training, the same of episodes."""

    def __init__(self) -> None:
        super().__init__(Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        steps = progress(int(task.completed), int(task.total or 0))
        return Text(task.fields.get("count", steps))


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.fields.get("speed")
        return Text("" if speed is None else f"{number(speed)}/s", style="progress.data.speed")


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(clock_time(task.fields.get("left")), style="progress.remaining")


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
    columns += [TaskProgressColumn("{task.percentage:.0f}%")] if narrow else [_Count(), _Speed()]
    columns += [_TimeLeft(), _Field("last")]
    return columns if narrow else [*columns, _Field("active")]


def make_display(
    console: Console, errors: Console, placement: Placement, *, evaluations: bool
) -> LineDisplay | LiveDisplay | SweepDisplay:
    """Return the display that suits the console.

    Args:
        console: where progress is shown.
        errors: where plain lines name runs that did not finish.
        placement: what will train.
        evaluations: whether plain lines are printed for each evaluation.
    """
    runs = placement.runs
    if not console.is_terminal:
        return LineDisplay(console, len(runs), evaluations, errors)
    if evaluations:
        return LiveDisplay(console)
    work = []
    for population in placement.populations:
        config = population.runs[0].config
        labels = [run.label for run in population.runs]
        work.append((labels, config.steps, config.learning_starts))
    return SweepDisplay(console, work)
