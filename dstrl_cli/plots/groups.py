"""Runs in the groups that figures show: sections, lines and panels, and curves over seeds.

A curve averages within a seed first (over its tasks), then across seeds, as a cell of a table does;
finished and unfinished runs are never averaged together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.report import intervals
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.statistics import CENTERS
from dstrl_cli.report.table import DENSE, OWN, OWN_WORDS, sparsity_title
from dstrl_cli.report.tables import divided, method_labels, row_label

Array = NDArray[np.float64]

Read = Callable[[LoggedRun], tuple[Array, Array]]
"""Returns steps [n], ascending, and values [n] that a run logged."""


@dataclass(frozen=True, eq=False)
class Line:
    """The runs of one method at one sparsity (`s0`: dense; `OWN`), in all environments.

    Lines are compared by identity, so that they can be keys.
    """

    method: str
    sparsity: str
    label: str
    runs: tuple[LoggedRun, ...]

    def within(self, panel: Panel) -> list[LoggedRun]:
        """Return its runs in a panel that are shown (see `used`)."""
        return used(run for run in self.runs if panel.has(run))


@dataclass(frozen=True)
class Section:
    """The lines of one figure: an algorithm at one sparsity, with its dense lines.

    Where every environment has a sparsity of its own, that is `OWN`.
    """

    algo: str
    sparsity: str
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """The heading of the figure."""
        sparsity = OWN_WORDS if self.sparsity == OWN else sparsity_title(self.sparsity)
        return f"{self.algo.upper()}, {sparsity}"

    @property
    def name(self) -> str:
        """The end of the names of the figure's files."""
        return f"{self.algo}-{self.sparsity}"


@dataclass(frozen=True)
class Panel:
    """An environment: the mean of its tasks (`task` None), or one of several tasks."""

    env: str
    task: int | None
    title: str

    def has(self, run: LoggedRun) -> bool:
        """Whether a run belongs here."""
        return run.identity.env == self.env and self.task in (None, run.identity.task)


def sections(runs: Sequence[LoggedRun]) -> list[Section]:
    """Return a section for each algorithm and sparsity, as tables have them (`arrange`)."""
    labels = method_labels(runs)
    made = []
    identities = [run.identity for run in runs]
    for algo, sparsity, own in divided((each.algo, each.sparsity, each.env) for each in identities):
        found: dict[tuple[str, str], list[LoggedRun]] = defaultdict(list)
        for run in runs:
            if run.identity.algo == algo:
                of_run = run.identity.sparsity
                found[OWN if own and of_run != DENSE else of_run, run.identity.method].append(run)
        lines = []
        for method, label in labels.items():
            here = [each for each in dict.fromkeys((DENSE, sparsity)) if (each, method) in found]
            for each in here:
                text = row_label(label, each, here)
                lines.append(Line(method, each, text, tuple(found[each, method])))
        made.append(Section(algo, sparsity, tuple(lines)))
    return made


def panels(runs: Iterable[LoggedRun]) -> list[Panel]:
    """Return a panel per environment; of several tasks one for their mean, and one for each."""
    tasks: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        tasks[run.identity.env].add(run.identity.task)
    made = []
    for env, numbers in sorted(tasks.items()):
        if len(numbers) == 1:
            (task,) = numbers
            made.append(Panel(env, None, f"{env}, task {task}" if task else env))
        else:
            made.append(Panel(env, None, f"{env}, mean of {len(numbers)} tasks"))
            made += [Panel(env, task, f"{env}, task {task}") for task in sorted(numbers)]
    return made


def environments(runs: Iterable[LoggedRun]) -> list[Panel]:
    """Return a panel per environment, without those of single tasks."""
    return [panel for panel in panels(runs) if panel.task is None]


def used(runs: Iterable[LoggedRun]) -> list[LoggedRun]:
    """Return the runs of the seeds that finished in all tasks; where there are none, all runs."""
    seeds = by_seed(runs)
    finished = {seed: each for seed, each in seeds.items() if all(run.finished for run in each)}
    return [run for each in (finished or seeds).values() for run in each]


def by_seed(runs: Iterable[LoggedRun]) -> dict[int, list[LoggedRun]]:
    """Return the runs of each seed: one for each of its tasks."""
    seeds: dict[int, list[LoggedRun]] = defaultdict(list)
    for run in runs:
        seeds[run.identity.seed].append(run)
    return dict(sorted(seeds.items()))


# --- curves over seeds --------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """What the seeds of one line logged over time.

    Attributes:
        steps: environment steps [T] that every seed has.
        values: of each seed [T, seeds].
        center: over seeds [T].
        low, high: the 95 % interval [T]; None where there are too few seeds.
        method: how the interval was computed.
        cut: whether a seed logged steps that another lacks, which are not shown.
        finished: whether the runs finished.
    """

    steps: Array
    values: Array
    center: Array
    low: Array | None
    high: Array | None
    method: str | None
    cut: bool
    finished: bool

    @property
    def seeds(self) -> int:
        """How many seeds it averages."""
        return self.values.shape[1]


def curve(runs: Sequence[LoggedRun], read: Read, center: str = "mean") -> Curve | None:
    """Return the curve of runs of one line in one panel, or None where nothing is logged.

    Runs that logged nothing that `read` finds count as absent.
    """
    logs = {run.path: read(run) for run in runs}
    runs = [run for run in runs if len(logs[run.path][0])]
    if not runs:
        return None
    steps = logs[runs[0].path][0]
    for run in runs[1:]:
        steps = np.intersect1d(steps, logs[run.path][0])
    if not len(steps):
        return None
    of_run = {run.path: _at(steps, *logs[run.path]) for run in runs}
    seeds = by_seed(runs)
    values = np.stack(
        [np.mean([of_run[run.path] for run in tasks], axis=0) for tasks in seeds.values()], axis=1
    )  # [T, seeds]
    chosen = intervals.choose(center, [values.shape[1]])
    low, high = chosen.bounds([values]) if chosen else (None, None)
    return Curve(
        steps=steps,
        values=values,
        center=np.asarray(CENTERS[center](values)),
        low=low,
        high=high,
        method=chosen.name if chosen else None,
        cut=any(len(logs[run.path][0]) > len(steps) for run in runs),
        finished=all(run.finished for run in runs),
    )


def _at(steps: Array, logged: Array, values: Array) -> Array:
    """Return the values at some of the steps that were logged."""
    return values[np.searchsorted(logged, steps)]
