"""Tables: runs gathered into cells, rows and sections (`table`); `render` prints them.

A cell averages within a seed first (over its tasks), then across seeds. It never averages
finished and unfinished runs together: unfinished ones are left out, or, where a cell has nothing
else, shown alone; either way the cell is marked.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report import statistics
from dstrl_cli.report.csvfile import LARGEST
from dstrl_cli.report.extra import EXTRA_COLUMNS
from dstrl_cli.report.labels import MethodLabel, method_label
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.metrics import Metric, Value, common_metric, parse
from dstrl_cli.report.papers import Published, published
from dstrl_cli.report.realised import one_network
from dstrl_cli.report.runs import Damage, LoggedRun, Results, load, problems
from dstrl_cli.report.statistics import CENTERS
from dstrl_cli.report.table import DENSE, Cell, Cost, Row, Section, Table
from dstrl_cli.report.words import counted
from dstrl_cli.runs.repair import REPAIRED

METRIC_FILES = ("eval.csv", "episodes.csv")
"""The files that metrics read."""

MAX_VALUES = 5
"""Values of a differing key that a note lists."""

Key = tuple[str, str, str, str]
"""What the runs of a cell share: algorithm, sparsity label, method, environment."""

Member = tuple[LoggedRun, Value | None]
"""A run and its metric; an unfinished run may have logged nothing yet."""


def table(
    results: Path | str,
    *,
    metric: str | None = None,
    center: str = "mean",
    compare: str | None = None,
    columns: Sequence[str] = (),
    only: Collection[Path] | None = None,
) -> Table:
    """Read the runs of a results folder and gather them into a table.

    Args:
        results: the folder; also a single run, or any folder between the two.
        metric: such as `last-steps:125000`, `last-evals:10`, `all-episodes`, `lca`, `final`. None
            takes the one that the runs' own `config.yaml` names, if all name the same, and
            otherwise the default, which a note then says.
        center: `mean` or `iqm`.
        compare: a published table to show beside, such as `xu2024:I`.
        columns: `params` and `flops` add their columns.
        only: the run folders to show; None shows all.

    Only files that the table needs are opened, so that damage in others is not told. Raises
    InputError where a name is unknown or nothing in `results` is usable.
    """
    chosen = None if metric is None else parse(metric)
    if center not in CENTERS:
        raise InputError(suggest("center", center, CENTERS))
    for column in columns:
        if column not in EXTRA_COLUMNS:
            raise InputError(suggest("column", column, EXTRA_COLUMNS))
    paper = published(compare) if compare else None
    return build(load(results, only), chosen, center, paper, tuple(dict.fromkeys(columns)))


def build(
    results: Results,
    metric: Metric | None = None,
    center: str = "mean",
    paper: Published | None = None,
    extra: tuple[str, ...] = (),
) -> Table:
    """Gather runs that are already read; raises InputError where the metric is nowhere defined."""
    chosen, why = (metric, None) if metric else common_metric(results.runs)
    gathered: dict[Key, list[Member]] = defaultdict(list)
    empty: list[LoggedRun] = []
    for run in results.runs:
        value, who = chosen.compute(run), run.identity
        if value is None and run.finished:
            empty.append(run)
        else:
            gathered[who.algo, who.sparsity, who.method, who.env].append((run, value))
    shown = {key: each for key, each in gathered.items() if any(v is not None for _, v in each)}
    if not shown:
        raise InputError(_no_value(chosen, results))
    cells = {key: _cell(key, members, center, paper) for key, members in shown.items()}
    labels = {
        run.identity.method: method_label(run.identity.method, run.config)
        for run in reversed(results.runs)
    }
    notes = [] if why is None else [why]
    return Table(
        metric=chosen,
        center=center,
        extra=extra,
        sections=_sections(cells, labels),
        paper=paper,
        unfinished=tuple(run for run in results.runs if not run.finished),
        damaged=(*results.damaged, *_without_value(empty, chosen, results.damaged)),
        notes=(
            *notes,
            *_differences(cells),
            *one_network(shown),
            *_cost_notes(extra, cells.values()),
            *_paper_notes(chosen, paper, cells.values()),
            *_file_notes(results.runs),
        ),
        unchecked=len(_unchecked(results.runs)),
    )


def _no_value(metric: Metric, results: Results) -> str:
    """Return the message for runs of which none has a value."""
    counts = Counter(run.status for run in results.runs)
    several = len(results.runs) > 1
    statuses = ", ".join(f"{n} {status}" if several else status for status, n in counts.items())
    which = ", the first" if several else ""
    damage = f"; {problems(results.damaged)}" if results.damaged else ""
    return (
        f"metric '{metric.name}' takes at least one {metric.needs}, and no run has one that can be "
        f"used: {counted(len(results.runs), 'run')} ({statuses}){which}: "
        f"{results.runs[0].path}{damage}"
    )


def _without_value(
    runs: Iterable[LoggedRun], metric: Metric, damaged: Iterable[Damage]
) -> Iterator[Damage]:
    """Yield the finished runs that logged nothing, but for those whose log is known as damaged."""
    known = {item.path for item in damaged}
    for run in runs:
        if not any(PurePosixPath(run.path, name).as_posix() in known for name in METRIC_FILES):
            yield Damage(run.path, f"finished, but nothing is logged for {metric.name}")


# --- one cell -------------------------------------------------------------------------------------


def _cell(key: Key, members: Sequence[Member], center: str, paper: Published | None) -> Cell:
    algo, sparsity, method, env = key
    seeds: dict[int, list[Member]] = defaultdict(list)
    for run, value in members:
        seeds[run.identity.seed].append((run, value))
    finished = {seed for seed, tasks in seeds.items() if all(run.finished for run, _ in tasks)}
    used = _with_values({seed: seeds[seed] for seed in sorted(finished or seeds)})
    runs = [run for tasks in used.values() for run, _ in tasks]
    values = {seed: float(np.mean([v.value for _, v in tasks])) for seed, tasks in used.items()}
    scores = np.array(list(values.values()))
    interval = statistics.stratified_bootstrap([scores], CENTERS[center])
    differing = _differing([run.settings for run in runs])
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


def _with_values(
    seeds: Mapping[int, Iterable[Member]],
) -> dict[int, list[tuple[LoggedRun, Value]]]:
    """Return the seeds without the runs that logged nothing yet, and without seeds of only such."""
    used = {seed: [(r, v) for r, v in tasks if v is not None] for seed, tasks in seeds.items()}
    return {seed: tasks for seed, tasks in used.items() if tasks}


def _differing(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Return the keys in which runs differ, each with the values that occur."""
    if all(each == settings[0] for each in settings):
        return {}
    keys = sorted({key for each in settings for key in each})
    found = {key: [each.get(key) for each in settings] for key in keys}
    distinct = {
        k: [v for i, v in enumerate(values) if v not in values[:i]] for k, values in found.items()
    }
    return {key: tuple(values) for key, values in distinct.items() if len(values) > 1}


def _cost(runs: Iterable[LoggedRun]) -> Cost | None:
    costs = [cost for run in runs if (cost := _run_cost(run.summary)) is not None]
    if not costs:
        return None
    means: list[Any] = [None if math.isnan(x) else x for x in np.mean(costs, axis=0).tolist()]
    return Cost(*means)


def _run_cost(summary: Mapping[str, Any]) -> list[float] | None:
    """Return the fields of `Cost` of one run, or None where its summary lacks one.

    Of those that older summaries lack a missing one is NaN.
    """
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
        if not (np.abs(np.array(numbers, dtype=float)) <= LARGEST).all():
            return None
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    newer = (
        ("flops", "train_total_full"),
        ("flops", "train_ratio_full"),
        ("sparsity", "actor"),
        ("sparsity", "critic"),
    )
    return [*map(float, numbers), *(_number(summary, *keys) for keys in newer)]


def _number(summary: Mapping[str, Any], group: str, key: str) -> float:
    """Return a number of a summary, or NaN where it is missing."""
    try:
        number = float(summary[group][key])
    except (KeyError, TypeError, ValueError, OverflowError):
        return math.nan
    return number if abs(number) <= LARGEST else math.nan


# --- sections and rows ----------------------------------------------------------------------------


Labels = Mapping[str, MethodLabel]


def _sections(cells: Mapping[Key, Cell], labels: Labels) -> tuple[Section, ...]:
    """One section per algorithm and sparsity, each with the algorithm's dense rows."""
    sections = []
    for algo in sorted({algo for algo, *_ in cells}, key=lambda name: (name != "td3", name)):
        found = {sparsity for name, sparsity, *_ in cells if name == algo}
        for sparsity in sorted(found - {DENSE}, key=parse_sparsity_label) or [DENSE]:
            sections.append(Section(algo, sparsity, _rows(cells, labels, algo, sparsity)))
    return tuple(sections)


def _rows(cells: Mapping[Key, Cell], labels: Labels, algo: str, sparsity: str) -> tuple[Row, ...]:
    found: dict[tuple[str, str], dict[str, Cell]] = defaultdict(dict)
    for (name, own, method, env), cell in sorted(cells.items(), key=lambda item: item[0]):
        if name == algo and own in (sparsity, DENSE):
            found[method, own][env] = cell
    rows = []
    for (method, own), by_env in found.items():
        label = labels[method]
        # A method that also ran without sparsity needs two rows that can be told apart.
        twice = own == DENSE != sparsity and (method, sparsity) in found
        text = f"{label.label} (dense)" if twice else label.label
        rows.append((label.order, method, own != DENSE, Row(method, text, by_env)))
    return tuple(row for *_, row in sorted(rows, key=lambda item: item[:3]))


def _differences(cells: Mapping[Key, Cell]) -> Iterator[str]:
    for (algo, sparsity, method, env), cell in sorted(cells.items(), key=lambda item: item[0]):
        if cell.differing:
            keys = ", ".join(f"{key} ({_some(found)})" for key, found in cell.differing.items())
            yield f"{env}/{algo}-{method}/{sparsity}: runs differ in {keys}"


def _some(values: Sequence[Any]) -> str:
    shown = [str(value) for value in values[:MAX_VALUES]]
    return ", ".join([*shown, "..."] if len(values) > MAX_VALUES else shown)


def _cost_notes(extra: Collection[str], cells: Iterable[Cell]) -> Iterator[str]:
    if "flops" in extra and any(cell.cost and cell.cost.notably_more for cell in cells):
        yield (
            "FLOPs: 'full' adds the gradients of inactive connections that growing by gradient "
            "needs; the papers' formulas ('train') leave them out"
        )


def _paper_notes(metric: Metric, paper: Published | None, cells: Iterable[Cell]) -> Iterator[str]:
    if paper is None:
        return
    if not any(cell.paper for cell in cells):
        yield f"{paper.name} has no number for any of these runs"
    elif paper.metric != metric.name:
        yield f"{paper.name} publishes {paper.metric}, this table shows {metric.name}"
    if paper.unit == "%":
        yield f"{paper.name} publishes percent of the dense return"


def _unchecked(runs: Iterable[LoggedRun]) -> list[LoggedRun]:
    """Return the finished runs whose files cannot be compared with what the runs wrote."""
    return [run for run in runs if run.finished and not run.has_checksums]


def _file_notes(runs: Sequence[LoggedRun]) -> Iterator[str]:
    """Yield what is to be known of the runs' files, where not all runs are alike in it.

    Results that are old as a whole have no checksums; that is not said of every table of them.
    """
    finished = sum(run.finished for run in runs)
    unchecked = len(_unchecked(runs))
    if 0 < unchecked < finished:
        yield f"unchecked: {unchecked} of {counted(finished, 'finished run')} (no checksums)"
    if repaired := sum(REPAIRED in run.summary for run in runs):
        yield (
            f"{counted(repaired, 'run')} lost summary.json; the other files show that training "
            "finished"
        )
