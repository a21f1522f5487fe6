"""One cell of a table: the runs of a method in an environment, reduced to numbers over seeds.

A cell averages within a seed first (over its tasks), then across seeds. It never averages
finished and unfinished runs together: unfinished ones are left out, or, where a cell has nothing
else, shown alone; either way the cell is marked.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dstrl_cli.report import intervals, statistics
from dstrl_cli.report.csvfile import LARGEST
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.metrics import Value
from dstrl_cli.report.papers import Published
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.statistics import CENTERS
from dstrl_cli.report.table import Cell, Cost, Look

Key = tuple[str, str, str, str]
"""What the runs of a cell share: algorithm, sparsity label, method, environment."""

Member = tuple[LoggedRun, Value | None]
"""A run and its metric; an unfinished run may have logged nothing yet."""


def make_cell(key: Key, members: Sequence[Member], look: Look, paper: Published | None) -> Cell:
    """Return the cell of some runs, of which at least one has a value."""
    algo, sparsity, method, env = key
    seeds: dict[int, list[Member]] = defaultdict(list)
    for run, value in members:
        seeds[run.identity.seed].append((run, value))
    finished = {seed for seed, tasks in seeds.items() if all(run.finished for run, _ in tasks)}
    used = _with_values({seed: seeds[seed] for seed in sorted(finished or seeds)})
    runs = [run for tasks in used.values() for run, _ in tasks]
    values = {seed: float(np.mean([v.value for _, v in tasks])) for seed, tasks in used.items()}
    differing = differing_settings([run.settings for run in runs])
    conditions = {
        Mark.UNFINISHED: not finished,
        Mark.LEFT_OUT: bool(finished) and len(finished) < len(seeds),
        Mark.MIXED: bool(differing),
        Mark.TASKS: len({frozenset(r.identity.task for r, _ in t) for t in used.values()}) > 1,
    }
    marks = {mark for mark, holds in conditions.items() if holds}
    marks |= {mark for tasks in used.values() for _, value in tasks for mark in value.marks}
    cell = Cell(
        values=values,
        left_out=tuple(sorted(set(seeds) - set(used))),
        tasks=tuple(sorted({run.identity.task for run in runs})),
        marks=frozenset(marks),
        differing=differing,
        paper=paper.find(algo, method, env, sparsity) if paper else None,
        cost=_cost(runs),
    )
    return with_values(cell, values, look)


def with_values(cell: Cell, values: Mapping[int, float], look: Look) -> Cell:
    """Return a cell with other values of its seeds, and the statistics of these."""
    scores = np.array(list(values.values()))
    interval = intervals.interval([scores], look.center)
    sem = statistics.standard_error(scores)
    missing = {"interval": interval is None, "sem": sem is None, "std": False}[look.spread]
    return replace(
        cell,
        values=values,
        center=float(CENTERS[look.center](scores)),
        mean=float(np.mean(scores)),
        std=statistics.std(scores),
        sem=sem,
        interval=interval,
        marks=cell.marks | {Mark.FEW_SEEDS} if missing else cell.marks - {Mark.FEW_SEEDS},
    )


def _with_values(
    seeds: Mapping[int, Iterable[Member]],
) -> dict[int, list[tuple[LoggedRun, Value]]]:
    """Return the seeds without the runs that logged nothing yet, and without seeds of only such."""
    used = {seed: [(r, v) for r, v in tasks if v is not None] for seed, tasks in seeds.items()}
    return {seed: tasks for seed, tasks in used.items() if tasks}


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
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
