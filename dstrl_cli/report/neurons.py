"""What `neurons.csv` says of networks: quantities, each reduced from the layers of a network to one
number, over time or at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.report.layerfile import Array, LayerRows

FILE = "neurons.csv"

ROLES = ("actor", "critics")

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
    """One number about a network.

    Attributes:
        column: of `neurons.csv`; layers whose cell is empty do not count.
        reduce: from layers to one number.
        hidden: whether the last layer does not count: its outputs are no neurons.
    """

    column: str
    reduce: Reduce
    hidden: bool = True


DORMANT = Quantity("dormant", _percent_of_shares)
NO_INPUT = Quantity("no_input", _percent)
NO_OUTPUT = Quantity("no_output", _percent)
MAX_FAN_IN = Quantity("max_fan_in", _largest)
PATHS = Quantity("paths", _last, hidden=False)
RANK = Quantity("rank", _last)
SATURATED = Quantity("saturated", _last, hidden=False)


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


def at_one_step(rows: LayerRows, quantity: Quantity, role: str) -> float | None:
    """Return a quantity of the rows of one step; None where it is not known."""
    if not len(rows):
        return None
    _, found = over_time(rows, quantity, role)
    return float(found[0]) if np.isfinite(found).any() else None


def _mean_of_networks(rows: LayerRows, quantity: Quantity) -> float:
    """Return the mean over the networks of one step."""
    of_each = [rows.where(rows.network == name) for name in np.unique(rows.network)]
    return float(np.mean([quantity.reduce(own[quantity.column], own["units"]) for own in of_each]))
