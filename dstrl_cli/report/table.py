"""A table as data: sections, rows and cells. How it is filled is in `tables`, how it looks in
`grids` and `render`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dstrl_cli.config.labels import format_sparsity_label, parse_sparsity_label
from dstrl_cli.report.improvement import Improvement
from dstrl_cli.report.intervals import Interval
from dstrl_cli.report.marks import Mark, ordered
from dstrl_cli.report.metrics import Metric
from dstrl_cli.report.papers import Match, Published
from dstrl_cli.report.permutation import Decision, Plan
from dstrl_cli.report.runs import Damage, LoggedRun

DENSE = format_sparsity_label(0, 0)

OWN, OWN_WORDS = "own", "sparsity by environment"
"""Stands for the sparsity of a section in which every environment has its own."""

NOTABLE_SHARE = 0.01
"""Full training FLOPs are shown where they exceed the papers' figure by a larger share."""


def notably_more(full: float | None, published: float) -> bool:
    """Whether full training FLOPs exceed those of the papers' formulas so much that it is said."""
    return full is not None and full > (1 + NOTABLE_SHARE) * published


@dataclass(frozen=True)
class Look:
    """What a table shows of the values of a cell.

    Attributes:
        center: `mean`, `median` or `iqm`.
        spread: `std`, `sem` or `interval`.
        normalize: None, `dense` or `random-dense` (`scaling`).
        bold: None, `best`, or `within`: also what lies within the best one's interval.
        against: the method over which the probability of improvement is shown, or None.
        by_task: whether tasks are shown beside the average over them.
    """

    center: str = "mean"
    spread: str = "std"
    normalize: str | None = None
    bold: str | None = None
    against: str | None = None
    by_task: bool = False


@dataclass(frozen=True)
class Cost:
    """Parameters and FLOPs of a cell's runs, averaged over them; ratios are to the dense network.

    SOK counts the actor and two critics, RLX the targets too. Training FLOPs are those of the
    papers' formulas; the full ones add the gradients of inactive connections. Full FLOPs and the
    realised sparsities are None where summaries, written by an older dstrl, lack them.
    """

    sok_active: float
    sok_ratio: float
    rlx_active: float
    rlx_ratio: float
    train_flops: float
    train_ratio: float
    test_flops: float
    test_ratio: float
    train_flops_full: float | None = None
    train_ratio_full: float | None = None
    realised_actor_sparsity: float | None = None
    realised_critic_sparsity: float | None = None

    @property
    def notably_more(self) -> bool:
        """Whether the full training FLOPs are shown beside the papers'."""
        known = self.train_ratio_full is not None
        return known and notably_more(self.train_flops_full, self.train_flops)


@dataclass(frozen=True)
class Neurons:
    """Neurons and connections of the critics of a cell's runs at the last evaluation.

    Means over critics, then over runs; None where no run knows it.

    Attributes:
        critic_dormant_percent: hidden neurons that are dormant.
        critic_no_input_percent: hidden neurons without an active input.
        critic_max_fan_in: the most active inputs of one hidden neuron.
        critic_paths: ways over active connections from the inputs to the last layer.
        critic_unread_inputs: inputs that no active connection reads; it takes a policy file.
        critic_inputs: inputs that there are, of the same runs.
    """

    critic_dormant_percent: float | None
    critic_no_input_percent: float | None
    critic_max_fan_in: float | None
    critic_paths: float | None
    critic_unread_inputs: float | None = None
    critic_inputs: float | None = None


@dataclass(frozen=True)
class Cell:
    """The runs of one method in one environment, over seeds.

    Attributes:
        values: the metric of each seed used, averaged over the seed's tasks.
        left_out: unfinished seeds that are not in `values`.
        tasks: the tasks that occur.
        marks: reservations about the numbers.
        differing: keys, other than seed and task, in which the runs used differ, each with the
            values that occur.
        paper: the published number, if one was asked for and exists.
        cost: None where no summary gives it.
        center: mean, median or interquartile mean of `values`.
        mean: their mean.
        std: their standard deviation (ddof=0).
        sem: the standard error of their mean (ddof=1); None of one seed.
        interval: 95 % confidence interval of `center`; None with too few seeds.
        improvement: the probability of improvement over the method that was asked for.
        neurons: None where they were not asked for, or no run has them.
    """

    values: Mapping[int, float]
    left_out: tuple[int, ...]
    tasks: tuple[int, ...]
    marks: frozenset[Mark]
    differing: Mapping[str, tuple[Any, ...]]
    paper: Match | None
    cost: Cost | None
    center: float = 0.0
    mean: float = 0.0
    std: float = 0.0
    sem: float | None = None
    interval: Interval | None = None
    improvement: Improvement | None = None
    neurons: Neurons | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds used."""
        return tuple(self.values)

    @property
    def n(self) -> int:
        """The number of seeds used."""
        return len(self.values)


@dataclass(frozen=True)
class Overall:
    """A method over all environments of a section; each counts as much as the others.

    Attributes:
        counts: the number of seeds of each environment.
        center: the mean of their means; median and interquartile mean of all seeds pooled. None
            where values of different environments have no common scale.
        interval: its 95 % confidence interval.
        improvement: the probability of improvement, averaged over environments.
    """

    counts: tuple[int, ...]
    center: float | None
    interval: Interval | None
    improvement: Improvement | None


@dataclass(frozen=True)
class Row:
    """A method's cells, by environment; `overall` where it has one in each of several.

    `dense`: its runs are, whatever the sparsity of the section.
    """

    method: str
    label: str
    cells: Mapping[str, Cell]
    overall: Overall | None = None
    dense: bool = False


@dataclass(frozen=True)
class Comparison:
    """Two methods of one section in one environment, and what a test decided."""

    section: Section
    env: str
    first: Row
    second: Row
    decision: Decision


@dataclass(frozen=True)
class Comparisons:
    """All comparisons that one test was about: they share the probability of an error.

    Attributes:
        plan: what had to be fixed beforehand.
        found: the comparisons.
        looks: how many rounds of seeds were looked at.
        waiting: the comparisons that lack seeds for the next round.
        absent: the pairs asked for, as `our-rlx2:rlx2`, that have finished runs of both nowhere.
        given_up: the comparisons that lacked seeds for a round and get no more.
    """

    plan: Plan
    found: tuple[Comparison, ...]
    looks: int
    waiting: tuple[Comparison, ...]
    absent: tuple[str, ...] = ()
    given_up: tuple[Comparison, ...] = ()


@dataclass(frozen=True)
class Section:
    """The rows of one algorithm at one sparsity; dense methods appear in each of its sections.

    Where every environment has a sparsity of its own, as in the tables of SOK and RLX, `sparsity`
    is `OWN` and `own` has the label of each.
    """

    algo: str
    sparsity: str
    rows: tuple[Row, ...]
    own: Mapping[str, str] = field(default_factory=dict)

    def sparsity_in(self, env: str) -> str:
        """Return the label of the sparsity that methods which have one have in an environment."""
        return self.own.get(env, DENSE) if self.sparsity == OWN else self.sparsity

    @property
    def envs(self) -> tuple[str, ...]:
        """The environments that have a cell, sorted."""
        return tuple(sorted({env for row in self.rows for env in row.cells}))

    @property
    def title(self) -> str:
        """Such as `TD3, sparsity 0.95` or `SAC, actor sparsity 0.9, critic sparsity 0.8`."""
        if self.sparsity == OWN:
            labels = ", ".join(f"{env} {label}" for env, label in sorted(self.own.items()))
            return f"{self.algo.upper()}, {OWN_WORDS}: {labels}"
        return f"{self.algo.upper()}, {sparsity_title(self.sparsity)}"


@dataclass(frozen=True)
class Table:
    """A table of results, ready to be rendered."""

    metric: Metric
    look: Look
    extra: tuple[str, ...]
    sections: tuple[Section, ...]
    paper: Published | None
    unfinished: tuple[LoggedRun, ...]
    damaged: tuple[Damage, ...]
    notes: tuple[str, ...]
    unchecked: int = 0  # finished runs of whose files no checksum is known
    tests: Comparisons | None = None
    by_task: tuple[Section, ...] = ()  # environments with several tasks, and these as environments

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells; those of dense methods once per section."""
        rows = [row for section in (*self.sections, *self.by_task) for row in section.rows]
        return tuple(cell for row in rows for cell in row.cells.values())

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks that occur, in the order of legends."""
        found = {mark for cell in self.cells for mark in (*cell.marks, *_paper_marks(cell))}
        return ordered(found)

    @property
    def envs(self) -> tuple[str, ...]:
        """All environments, sorted."""
        return tuple(sorted({env for section in self.sections for env in section.envs}))


def task_env(env: str, task: int) -> str:
    """Return how a task of an environment is called, as its folders are."""
    return f"{env}.task{task}"


def sparsity_title(label: str) -> str:
    """Return a sparsity label in words: `sparsity 0.95`, `dense`."""
    if label == DENSE:
        return "dense"
    actor, critic = parse_sparsity_label(label)
    if actor == critic:
        return f"sparsity {actor:.10g}"
    return f"actor sparsity {actor:.10g}, critic sparsity {critic:.10g}"


def _paper_marks(cell: Cell) -> frozenset[Mark]:
    return cell.paper.marks if cell.paper else frozenset()
