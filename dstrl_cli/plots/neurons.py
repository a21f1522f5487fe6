"""Figures of `neurons.csv`: how many neurons are dormant, cut off or hubs, over time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.plots.curves import Curves, rows_over_steps, runs_of, section_curves
from dstrl_cli.plots.groups import Array, environments
from dstrl_cli.plots.request import Drawing, Request
from dstrl_cli.report.layerfile import LayerRows
from dstrl_cli.report.runs import LoggedRun

FILE = "neurons.csv"


Reduce = Callable[[Array, Array], float]
"""From the values and the units of a network's layers [L], from the input on, to one number."""


def _percent(values: Array, units: Array) -> float:
    """Return the sum of the values in percent of all units."""
    return float(100 * values.sum() / units.sum()) if units.sum() > 0 else float("nan")


def _percent_of_shares(values: Array, units: Array) -> float:
    """Return the same where each value is a share of its layer's units."""
    return _percent(values * units, units)


def _largest(values: Array, units: Array) -> float:
    return float(values.max())


def _last(values: Array, units: Array) -> float:
    return float(values[-1])


@dataclass(frozen=True)
class Quantity:
    """What one row of the figure shows.

    Attributes:
        column: of `neurons.csv`; layers whose cell is empty do not count.
        words: the label of its axis.
        reduce: from layers to one number.
        hidden: whether the last layer does not count: its outputs are no neurons.
        by_powers: whether its axis is logarithmic, since dense networks have so much more.
    """

    column: str
    words: str
    reduce: Reduce
    hidden: bool = True
    by_powers: bool = False


QUANTITIES = (
    Quantity("dormant", "dormant, % of\nneurons", _percent_of_shares),
    Quantity("no_input", "without input,\n% of neurons", _percent),
    Quantity("no_output", "without output,\n% of neurons", _percent),
    Quantity("max_fan_in", "largest\nfan-in", _largest),
    Quantity("paths", "paths to last\nlayer", _last, hidden=False, by_powers=True),
    Quantity("rank", "rank of last\nhidden layer", _last),
    Quantity("saturated", "share of actions\nsaturated", _last, hidden=False),
)
ROLES = ("actor", "critics")


def of_role(role: str, networks: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Return which rows are about a role: `actor`, or every critic."""
    return (networks == "actor") == (role == "actor")


def over_time(rows: LayerRows, quantity: Quantity, role: str) -> tuple[Array, Array]:
    """Return steps [n] and a quantity [n] of one run; the critics' is the mean over them."""
    counts = np.isfinite(rows[quantity.column])
    if quantity.hidden:
        counts &= np.isfinite(rows["no_output"])  # which the last layer does not have
    rows = rows.where(of_role(role, rows.network) & counts)
    steps = np.unique(rows["step"])
    found = [_mean_of_networks(rows.where(rows["step"] == step), quantity) for step in steps]
    return steps, np.array(found, dtype=float)


def _mean_of_networks(rows: LayerRows, quantity: Quantity) -> float:
    """Return the mean over the networks of one step."""
    of_each = [rows.where(rows.network == name) for name in np.unique(rows.network)]
    return float(np.mean([quantity.reduce(own[quantity.column], own["units"]) for own in of_each]))


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
            shown: list[Quantity] = []
            for quantity in QUANTITIES:
                read = functools.partial(_read, logged, quantity, role)
                if found := section_curves(section, panels, read):
                    rows.append(found)
                    shown.append(quantity)
            if rows:
                words = [quantity.words for quantity in shown]
                by_powers = [number for number, each in enumerate(shown) if each.by_powers]
                figure = rows_over_steps(
                    section, panels, words, rows, request.styles, role, by_powers
                )
                yield Drawing(f"neurons-{role}-{section.name}", figure)


def _read(
    logged: dict[str, LayerRows], quantity: Quantity, role: str, run: LoggedRun
) -> tuple[Array, Array]:
    rows = logged.get(run.path)
    return (np.empty(0), np.empty(0)) if rows is None else over_time(rows, quantity, role)
