"""The critics of a table's runs at the last evaluation: what its column `neurons` shows.

Of each run the numbers are means over its critics, of each cell means over its runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace

import numpy as np

from dstrl_cli.report.cells import Key
from dstrl_cli.report.neurons import DORMANT, FILE, MAX_FAN_IN, NO_INPUT, PATHS, at_one_step
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import Cell, Neurons
from dstrl_cli.report.words import counted
from dstrl_cli.runs.policy import POLICY_FILE

QUANTITIES = (DORMANT, NO_INPUT, MAX_FAN_IN, PATHS)
"""The first fields of `Neurons`."""

ByPath = Mapping[str, Neurons | None]
"""What is known of runs, by their paths; None: nothing."""


def of_runs(runs: Iterable[LoggedRun]) -> ByPath:
    """Return what is known of the critics of runs; each is read once, however often it comes."""
    return {path: _of_run(run) for path, run in {run.path: run for run in runs}.items()}


def _of_run(run: LoggedRun) -> Neurons | None:
    """Return what is known of a run; None without `neurons.csv`, which older runs do not have."""
    rows = run.layers(FILE, last_step=True)
    found = [at_one_step(rows, quantity, "critics") for quantity in QUANTITIES]
    if all(value is None for value in found):
        return None
    return Neurons(*found, *_unread(run))


def _unread(run: LoggedRun) -> tuple[float, float] | tuple[None, None]:
    """Return how many inputs a critic does not read, and how many it has; None: not known."""
    first = [layers[0] for name, layers in run.masks().items() if name != "actor"]
    if not first:
        return None, None
    unread = [int((~mask.any(axis=1)).sum()) for mask in first]  # of masks [in, out]
    return float(np.mean(unread)), float(np.mean([mask.shape[0] for mask in first]))


def with_neurons(
    cells: Mapping[Key, Cell], runs: Mapping[Key, Sequence[LoggedRun]], known: ByPath
) -> dict[Key, Cell]:
    """Return cells with the means over the runs that each shows."""
    return {
        key: replace(cell, neurons=_mean([known[run.path] for run in runs[key]]))
        for key, cell in cells.items()
    }


def _mean(found: Iterable[Neurons | None]) -> Neurons | None:
    """Return the mean of each field over the runs that know it."""
    rows = [astuple(each) for each in found if each is not None]
    if not rows:
        return None
    return Neurons(*(_mean_known(values) for values in zip(*rows, strict=True)))


def _mean_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def notes(known: ByPath) -> Iterator[str]:
    """Yield what the numbers are, and of how many runs they are known where not of all."""
    if not known:
        return
    whole = [each for each in known.values() if each is not None]
    if not whole:
        yield f"critics' neurons: no run shown has critics in {FILE}"
        return
    looked = [each for each in whole if each.critic_unread_inputs is not None]
    unread = "; unread: inputs that no active connection reads" if looked else ""
    yield (
        "critics' neurons: at the last evaluation, means over critics and runs; dormant and no "
        "input: percent of hidden neurons; fan-in: the largest of a hidden neuron; paths: over "
        f"active connections, from the inputs to the last layer{unread}"
    )
    if len(whole) < len(known):
        yield f"critics' neurons: known of {len(whole)} of {counted(len(known), 'run')} ({FILE})"
    if looked and len(looked) < len(whole):
        of_all = counted(len(whole), "run")
        yield f"unread inputs: known of {len(looked)} of {of_all} ({POLICY_FILE})"
