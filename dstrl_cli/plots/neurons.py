"""Figures of `neurons.csv`: how many neurons are dormant, cut off or hubs, over time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.plots.curves import Curves, rows_over_steps, runs_of, section_curves
from dstrl_cli.plots.groups import Array, environments
from dstrl_cli.plots.request import Drawing, Request
from dstrl_cli.report.layerfile import LayerRows
from dstrl_cli.report.runs import LoggedRun

FILE = "neurons.csv"


@dataclass(frozen=True)
class Quantity:
    """What one row of the figure shows.

    Attributes:
        column: of `neurons.csv`.
        words: the label of its axis.
        of_units: whether it is shown in percent of the units of the layers that have it.
        largest: whether the largest layer counts, and not their sum.
    """

    column: str
    words: str
    of_units: bool = False
    largest: bool = False


QUANTITIES = (
    Quantity("dormant", "dormant, % of\nneurons", of_units=True),
    Quantity("no_input", "without input,\n% of neurons", of_units=True),
    Quantity("no_output", "without output,\n% of neurons", of_units=True),
    Quantity("max_fan_in", "largest\nfan-in", largest=True),
    Quantity("paths", "paths to last\nlayer", largest=True),
    Quantity("rank", "rank of last\nhidden layer", largest=True),
    Quantity("saturated", "share of actions\nsaturated", largest=True),
)
ROLES = ("actor", "critics")


def of_role(role: str, networks: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which rows are about a role: `actor`, or every critic."""
    return (networks == "actor") == (role == "actor")


def over_time(rows: LayerRows, quantity: Quantity, role: str) -> tuple[Array, Array]:
    """Return steps [n] and a quantity [n] of one run; the critics' is the mean over them."""
    values = rows[quantity.column]
    rows = rows.where(of_role(role, rows.network) & np.isfinite(values))
    values, units = rows[quantity.column], rows["units"]
    steps = np.unique(rows["step"])
    found = []
    for step in steps:
        at = rows["step"] == step
        found.append(
            np.mean(
                [
                    _of_network(values[at & own], units[at & own], quantity)
                    for own in (rows.network == name for name in np.unique(rows.network[at]))
                ]
            )
        )
    return steps, np.array(found, dtype=float)


def _of_network(values: Array, units: Array, quantity: Quantity) -> float:
    if quantity.of_units:
        return float(100 * values.sum() / units.sum()) if units.sum() > 0 else float("nan")
    return float(values.max() if quantity.largest else values.sum())


def neurons(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section, environment and role with anything logged: a row per quantity."""
    logged = {run.path: run.layers(FILE) for run in request.runs}
    logged = {path: rows for path, rows in logged.items() if len(rows)}
    if not logged:
        return
    for section in request.sections:
        there = [run for run in runs_of(section) if run.path in logged]
        panels = environments(there)
        for role in ROLES:
            rows: list[Curves] = []
            words: list[str] = []
            for quantity in QUANTITIES:
                read = functools.partial(_read, logged, quantity, role)
                if found := section_curves(section, panels, read):
                    rows.append(found)
                    words.append(quantity.words)
            if rows:
                figure = rows_over_steps(section, panels, words, rows, request.styles, role)
                yield Drawing(f"neurons-{role}-{section.name}", figure)


def _read(
    logged: dict[str, LayerRows], quantity: Quantity, role: str, run: LoggedRun
) -> tuple[Array, Array]:
    rows = logged.get(run.path)
    return (np.empty(0), np.empty(0)) if rows is None else over_time(rows, quantity, role)
