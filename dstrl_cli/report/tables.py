"""Tables: runs gathered into cells, sections and rows. How a table looks is `render`'s business.

A cell averages within a seed first (over its tasks), then across seeds. It never averages
finished and unfinished runs together: unfinished ones are left out, or, where a cell has nothing
else, shown alone; either way the cell is marked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report import statistics
from dstrl_cli.report.labels import method_label
from dstrl_cli.report.marks import Mark, ordered
from dstrl_cli.report.metrics import DEFAULT, Metric, Value, parse
from dstrl_cli.report.papers import Match, Published, published
from dstrl_cli.report.runs import Damage, Results, Run, load
from dstrl_cli.report.statistics import CENTERS, Interval

if TYPE_CHECKING:
    from rich.console import Console

EXTRA_COLUMNS = ("params", "flops")
DENSE = "s0"
Key = tuple[str, str, str, str]
"""A cell's place: algorithm, sparsity label, method, environment."""


@dataclass(frozen=True)
class Cost:
    """Parameters and FLOPs of a cell's runs, averaged over them; ratios are to the dense network.

    SOK counts the actor and two critics, RLX the targets too.
    """

    sok_active: float
    sok_ratio: float
    rlx_active: float
    rlx_ratio: float
    train_flops: float
    train_ratio: float
    test_flops: float
    test_ratio: float


@dataclass(frozen=True)
class Cell:
    """The runs of one method in one environment, over seeds.

    Attributes:
        values: the metric of each seed used, averaged over the seed's tasks.
        left_out: unfinished seeds that are not in `values`.
        tasks: the tasks that occur.
        center: mean or interquartile mean of `values`.
        mean: their mean.
        std: their standard deviation (ddof=0).
        interval: 95 % bootstrap interval of `center`; None with fewer than 3 seeds.
        marks: reservations about the numbers.
        differing: keys, other than seed and task, in which the runs used differ.
        paper: the published number, if one was asked for and exists.
        cost: None where no summary gives it.
    """

    values: Mapping[int, float]
    left_out: tuple[int, ...]
    tasks: tuple[int, ...]
    center: float
    mean: float
    std: float
    interval: Interval | None
    marks: frozenset[Mark]
    differing: tuple[str, ...]
    paper: Match | None
    cost: Cost | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds used."""
        return tuple(self.values)

    @property
    def n(self) -> int:
        """The number of seeds used."""
        return len(self.values)


@dataclass(frozen=True)
class Row:
    """A method's cells, by environment."""

    method: str
    label: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Section:
    """The rows of one algorithm at one sparsity; dense methods appear in each of its sections."""

    algo: str
    sparsity: str
    rows: tuple[Row, ...]

    @property
    def envs(self) -> tuple[str, ...]:
        """The environments that have a cell, sorted."""
        return tuple(sorted({env for row in self.rows for env in row.cells}))

    @property
    def title(self) -> str:
        """Such as `TD3, sparsity 0.95` or `SAC, actor sparsity 0.9, critic sparsity 0.8`."""
        return f"{self.algo.upper()}, {_sparsity_title(self.sparsity)}"


@dataclass(frozen=True)
class Table:
    """A table of results, ready to be rendered."""

    metric: Metric
    center: str
    extra: tuple[str, ...]
    sections: tuple[Section, ...]
    paper: Published | None
    unfinished: tuple[Run, ...]
    damaged: tuple[Damage, ...]
    notes: tuple[str, ...]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks that occur, in the order of legends."""
        cells = [c for section in self.sections for row in section.rows for c in row.cells.values()]
        found = {mark for cell in cells for mark in (*cell.marks, *_paper_marks(cell))}
        return ordered(found)

    @property
    def envs(self) -> tuple[str, ...]:
        """All environments, sorted."""
        return tuple(sorted({env for section in self.sections for env in section.envs}))

    def render(self, format: str = "rich", console: Console | None = None) -> str:
        """Return the table as text in `format`: rich, md, csv, latex or json.

        `console` decides the width and colours of the `rich` format. Raises InputError for an
        unknown format.
        """
        from dstrl_cli.report.render import render

        return render(self, format, console)


def table(
    results: Path | str,
    *,
    metric: str = DEFAULT,
    center: str = "mean",
    compare: str | None = None,
    columns: Sequence[str] = (),
    only: Collection[Path] | None = None,
) -> Table:
    """Read the runs under `results` and gather them into a table.

    Args:
        results: a folder of runs, at any depth.
        metric: such as `last-steps:125000`, `last-evals:10`, `all-episodes`, `lca`, `final`.
        center: `mean` or `iqm`.
        compare: a published table to show beside, such as `xu2024:I`.
        columns: `params` and `flops` add their columns.
        only: the run folders to show; None shows all.

    Raises InputError where a name is unknown or nothing under `results` is usable.
    """
    chosen = parse(metric)
    if center not in CENTERS:
        raise InputError(suggest("center", center, CENTERS))
    for column in columns:
        if column not in EXTRA_COLUMNS:
            raise InputError(suggest("column", column, EXTRA_COLUMNS))
    paper = published(compare) if compare else None
    return build(load(results, only), chosen, center, paper, tuple(dict.fromkeys(columns)))


def build(
    results: Results,
    metric: Metric,
    center: str = "mean",
    paper: Published | None = None,
    extra: tuple[str, ...] = (),
) -> Table:
    """Gather runs that are already read; raises InputError where the metric is nowhere defined."""
    gathered: dict[Key, list[tuple[Run, Value]]] = defaultdict(list)
    empty: list[Damage] = []
    for run in results.runs:
        value = metric.compute(run)
        who = run.identity
        if value is None:
            empty.append(Damage(run.path, f"nothing logged yet for {metric.name} ({run.status})"))
        else:
            gathered[who.algo, who.sparsity, who.method, who.env].append((run, value))
    if not gathered:
        raise InputError(
            f"metric '{metric.name}': no run has logged anything for it yet; "
            f"{len(empty)} runs, the first: {empty[0].path}"
        )
    cells = {key: _cell(key, members, center, paper) for key, members in gathered.items()}
    return Table(
        metric=metric,
        center=center,
        extra=extra,
        sections=_sections(cells),
        paper=paper,
        unfinished=tuple(run for run in results.runs if not run.finished),
        damaged=(*results.damaged, *empty),
        notes=(*_differences(cells), *_paper_notes(metric, paper, cells.values())),
    )


# --- one cell -------------------------------------------------------------------------------------


def _cell(
    key: Key,
    members: Sequence[tuple[Run, Value]],
    center: str,
    paper: Published | None,
) -> Cell:
    algo, sparsity, method, env = key
    seeds: dict[int, list[tuple[Run, Value]]] = defaultdict(list)
    for run, value in members:
        seeds[run.identity.seed].append((run, value))
    finished = {seed for seed, tasks in seeds.items() if all(run.finished for run, _ in tasks)}
    used = {seed: seeds[seed] for seed in sorted(finished or seeds)}
    runs = [run for tasks in used.values() for run, _ in tasks]
    values = {seed: float(np.mean([v.value for _, v in tasks])) for seed, tasks in used.items()}
    scores = np.array(list(values.values()))
    interval = statistics.stratified_bootstrap([scores], CENTERS[center])
    differing = _differing([run.settings for run in runs if run.config])
    conditions = {
        Mark.UNFINISHED: not finished,
        Mark.LEFT_OUT: bool(finished) and len(finished) < len(seeds),
        Mark.MIXED: bool(differing),
        Mark.TASKS: len({frozenset(r.identity.task for r, _ in t) for t in used.values()}) > 1,
        Mark.FEW_SEEDS: center != "mean" and interval is None,
    }
    marks = {mark for mark, holds in conditions.items() if holds}
    marks |= {mark for tasks in used.values() for _, value in tasks for mark in value.marks}
    return Cell(
        values=values,
        left_out=tuple(sorted(set(seeds) - set(used))),
        tasks=tuple(sorted({run.identity.task for run in runs})),
        center=float(CENTERS[center](scores)),
        mean=float(np.mean(scores)),
        std=statistics.std(scores),
        interval=interval,
        marks=frozenset(marks),
        differing=differing,
        paper=paper.find(algo, method, env, sparsity) if paper else None,
        cost=_cost(runs),
    )


def _differing(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    keys = sorted({key for each in settings for key in each})
    return tuple(k for k in keys if any(s.get(k) != settings[0].get(k) for s in settings))


def _cost(runs: Iterable[Run]) -> Cost | None:
    costs = [cost for run in runs if (cost := _run_cost(run.summary)) is not None]
    return Cost(*np.mean(costs, axis=0).tolist()) if costs else None


def _run_cost(summary: Mapping[str, Any]) -> list[float] | None:
    """Return the fields of `Cost` of one run, or None where its summary lacks one."""
    try:
        size, flops = summary["parameters"], summary["flops"]
        numbers = [
            size["sok_active"],
            size["sok_active"] / size["sok_dense"],
            size["rlx_active"],
            size["rlx_active"] / size["rlx_dense"],
            flops["train_total"],
            flops["train_ratio"],
            flops["test"],
            flops["test_ratio"],
        ]
        return [float(number) for number in numbers] if np.isfinite(numbers).all() else None
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _paper_marks(cell: Cell) -> frozenset[Mark]:
    return cell.paper.marks if cell.paper else frozenset()


# --- sections and rows ----------------------------------------------------------------------------


def _sections(cells: Mapping[Key, Cell]) -> tuple[Section, ...]:
    """One section per algorithm and sparsity, each with the algorithm's dense rows."""
    sections = []
    for algo in sorted({algo for algo, *_ in cells}, key=lambda name: (name != "td3", name)):
        found = {sparsity for name, sparsity, *_ in cells if name == algo}
        for sparsity in sorted(found - {DENSE}, key=_sparsity_key) or [DENSE]:
            sections.append(Section(algo, sparsity, _rows(cells, algo, sparsity)))
    return tuple(sections)


def _rows(cells: Mapping[Key, Cell], algo: str, sparsity: str) -> tuple[Row, ...]:
    found: dict[tuple[str, str], dict[str, Cell]] = defaultdict(dict)
    for (name, own, method, env), cell in sorted(cells.items(), key=lambda item: item[0]):
        if name == algo and own in (sparsity, DENSE):
            found[method, own][env] = cell
    rows = []
    for (method, own), by_env in found.items():
        label = method_label(method)
        # A method that also ran without sparsity needs two rows that can be told apart.
        twice = own == DENSE != sparsity and (method, sparsity) in found
        text = f"{label.label} (dense)" if twice else label.label
        rows.append((label.order, method, own != DENSE, Row(method, text, by_env)))
    return tuple(row for *_, row in sorted(rows, key=lambda item: item[:3]))


def _sparsity_key(label: str) -> tuple[float, ...]:
    return tuple(float(part.lstrip("asc")) for part in _sparsity_parts(label))


def _sparsity_parts(label: str) -> list[str]:
    actor, dash, critic = label.partition("-c")
    return [actor, critic] if dash else [actor]


def _sparsity_title(label: str) -> str:
    numbers = [part.lstrip("asc") for part in _sparsity_parts(label)]
    if label == DENSE:
        return "dense"
    if len(numbers) == 1:
        return f"sparsity {numbers[0]}"
    return f"actor sparsity {numbers[0]}, critic sparsity {numbers[1]}"


def _differences(cells: Mapping[Key, Cell]) -> Iterator[str]:
    for (algo, sparsity, method, env), cell in sorted(cells.items(), key=lambda item: item[0]):
        if cell.differing:
            yield f"{env}/{algo}-{method}/{sparsity}: runs differ in {', '.join(cell.differing)}"


def _paper_notes(metric: Metric, paper: Published | None, cells: Iterable[Cell]) -> Iterator[str]:
    if paper is None:
        return
    if not any(cell.paper for cell in cells):
        yield f"{paper.name} has no number for any of these runs"
    elif paper.metric != metric.name:
        yield f"{paper.name} publishes {paper.metric}, this table shows {metric.name}"
    if paper.unit == "%":
        yield f"{paper.name} publishes percent of the dense return"
