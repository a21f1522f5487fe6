"""Normalised values: percent of the dense network's mean, or of the way there from random actions.

The second is for environments whose returns are negative, where a share of the dense return means
nothing. The return of random actions is that of the training episodes that ended within the
warm-up (`learning_starts`), in which actions are drawn uniformly. Both references are taken as
known: the intervals of normalised values leave their spread out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from dstrl_cli.errors import InputError
from dstrl_cli.report.cells import Key, with_values
from dstrl_cli.report.csvfile import LARGEST
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.metrics import Metric, warm_up_returns
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import DENSE, Cell, Look, task_env

DENSE_METHOD = "dense"
"""What others are in percent of; where it was not trained, the only method without sparsity."""

NORMALIZED = {
    "dense": "percent of the dense mean",
    "random-dense": "percent of the way from random actions (0) to the dense mean (100)",
}
"""How values may be normalised, by the name that asks for it."""

Task = tuple[str, str]
"""Algorithm and environment: what has a scale of its own."""


@dataclass(frozen=True)
class Scale:
    """The values that become 0 and 100."""

    zero: float
    hundred: float

    def apply(self, value: float) -> float:
        """Return a value in percent."""
        return 100 * (value - self.zero) / (self.hundred - self.zero)


def normalize(
    cells: Mapping[Key, Cell], runs: Iterable[LoggedRun], look: Look, metric: Metric
) -> tuple[dict[Key, Cell], list[str]]:
    """Return the cells in percent, and why some were left out.

    Args:
        cells: with values as logged; among them the dense ones.
        runs: all runs, for the return of random actions.
        look: says how; without a normalisation all cells are returned as they are.
        metric: of the values.

    Raises InputError where the metric cannot be normalised so, or no cell can.
    """
    if look.normalize is None:
        return dict(cells), []
    from_random = look.normalize == "random-dense"
    if from_random and metric.returns is None:
        raise InputError(
            f"--normalize random-dense and metric '{metric.name}': it is no return, of which alone "
            "that of random actions is known; give another metric, or --normalize dense"
        )
    random = _random_returns(runs) if from_random else None
    tasks = sorted({(algo, env) for algo, _, _, env in cells})
    scales = {task: _scale(task, cells, random) for task in tasks}
    notes = [text for text in scales.values() if isinstance(text, str)]
    scaled = {}
    for key, cell in cells.items():
        scale = scales[key[0], key[3]]
        if isinstance(scale, str):
            continue
        values = {seed: scale.apply(value) for seed, value in cell.values.items()}
        if all(abs(value) <= LARGEST for value in values.values()):
            scaled[key] = with_values(cell, values, look)
        else:
            notes.append(f"{key[3]}: {key[2]} not shown, too large a multiple of the dense mean")
    if not scaled:
        raise InputError(f"--normalize {look.normalize}: {'; '.join(notes)}")
    return scaled, notes


def _dense(cells: Mapping[Key, Cell], algo: str, env: str) -> Cell | None:
    """Return the cell of the dense method; None where there is none, or several to choose from."""
    found = {
        method: cell
        for (name, sparsity, method, place), cell in cells.items()
        if (name, sparsity, place) == (algo, DENSE, env)
    }
    only = next(iter(found.values())) if len(found) == 1 else None
    return found.get(DENSE_METHOD, only)


def _scale(
    task: Task, cells: Mapping[Key, Cell], random: Mapping[str, float] | None
) -> Scale | str:
    """Return the scale of an environment, or why it has none."""
    algo, env = task
    dense = _dense(cells, algo, env)
    if dense is None:
        return f"{env}: not shown, no run of {algo}-{DENSE_METHOD} to normalise by"
    if Mark.UNFINISHED in dense.marks:
        return f"{env}: not shown, no run of {algo}-{DENSE_METHOD} to normalise by has finished"
    if random is None:
        if dense.mean > 0:
            return Scale(0.0, dense.mean)
        return (
            f"{env}: not shown, the dense mean of {algo} is {dense.mean:.6g}, not above 0; "
            "give --normalize random-dense"
        )
    if env not in random:
        return f"{env}: not shown, no training episode ended within the warm-up (learning_starts)"
    if dense.mean <= random[env]:
        return (
            f"{env}: not shown, the dense mean of {algo}, {dense.mean:.6g}, is not above that of "
            f"random actions, {random[env]:.6g}"
        )
    return Scale(random[env], dense.mean)


def _random_returns(runs: Iterable[LoggedRun]) -> dict[str, float]:
    """Return the mean return of random actions in each environment, and task, that has any."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        returns = warm_up_returns(run)
        if len(returns.values):
            for env in (run.identity.env, task_env(run.identity.env, run.identity.task)):
                found[env].append(float(returns.values.mean()))
    return {env: float(np.mean(means)) for env, means in found.items()}
