"""A study whose seeds come in rounds, as far as its runs are finished: what is decided by now.

Which runs belong to it is known before any of them has begun, so that the comparisons, and what
they share, do not depend on what lies in the results folder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from dstrl_cli.errors import InputError
from dstrl_cli.report.comparing import Asked, CellName, compare
from dstrl_cli.report.labels import MethodLabel
from dstrl_cli.report.metrics import Metric
from dstrl_cli.report.runs import load
from dstrl_cli.report.table import Cell, Comparisons
from dstrl_cli.report.tables import arrange, told_apart

Scores = Mapping[int, float]
"""The metric of each seed."""

Members = Mapping[int, Sequence[str]]
"""The runs of each seed in ascending order, one per task, as folders relative to the results."""


def read_scores(
    results: Path, members: Mapping[CellName, Members], metric: Metric
) -> dict[CellName, dict[int, float]]:
    """Return the scores of each cell up to the first seed that has none.

    A seed has one when the runs of all its tasks are finished and their logs can be used.
    """
    named = [label for seeds in members.values() for labels in seeds.values() for label in labels]
    there = [results / label for label in dict.fromkeys(named) if (results / label).is_dir()]
    values: dict[str, float] = {}
    try:
        found = load(results, there).runs if there else ()
    except InputError:  # no run that can be used
        found = ()
    for run in found:
        value = metric.compute(run) if run.finished else None
        if value is not None:
            values[run.path] = value.value
    return {name: _first_seeds(seeds, values) for name, seeds in members.items()}


def _first_seeds(seeds: Members, values: Mapping[str, float]) -> dict[int, float]:
    found = {}
    for seed, labels in seeds.items():
        if not all(label in values for label in labels):
            break
        found[seed] = float(np.mean([values[label] for label in labels]))
    return found


def look(
    scores: Mapping[CellName, Scores],
    labels: Mapping[str, MethodLabel],
    test: Asked,
    closed: Collection[CellName] = (),
) -> Comparisons:
    """Return what the scores that there are decide.

    Args:
        scores: of every cell of the study; none where no seed is finished.
        labels: of the methods.
        test: the plan and the pairs, all of which the study has.
        closed: cells that get no more seeds.

    Raises InputError where a pair names no method of the study.
    """
    cells = {
        (algo, sparsity, method, env): _cell(seeds)
        for (algo, sparsity, method, env), seeds in scores.items()
    }
    return compare(arrange(cells, told_apart(labels)), test, closed)


def _cell(values: Scores) -> Cell:
    """Return a cell of which only the values are of interest."""
    return Cell(
        values, left_out=(), tasks=(), marks=frozenset(), differing={}, paper=None, cost=None
    )
