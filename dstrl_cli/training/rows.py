"""The rows and lines that a topology update gives, from its counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dstrl_cli.nets.groups import Counts


def kept_connections(names: Sequence[str], spared: Counts) -> list[str]:
    """Return which networks K kept the last connection of a layer; `spared` is [K][L]."""
    return [
        f"the last connection of {name}, layer {layer}, was to be dropped and was kept"
        for name, layers in zip(names, spared, strict=True)
        for layer, kept in enumerate(layers)
        if kept
    ]


def topology_rows(
    step: int, names: Sequence[str], counts: tuple[Counts, Counts, Counts], fraction: float
) -> list[dict[str, Any]]:
    """Return the rows of `topology.csv` of one topology update: one for each network and layer.

    Args:
        step: environment steps so far.
        names: of the networks K.
        counts: active, dropped and grown connections, each [K][L].
        fraction: of the active connections that was to be exchanged.
    """
    return [
        {
            "step": step,
            "network": name,
            "layer": layer,
            "active": active,
            "dropped": dropped,
            "grown": grown,
            "fraction": fraction,
        }
        for name, *of_network in zip(names, *counts, strict=True)
        for layer, (active, dropped, grown) in enumerate(zip(*of_network, strict=True))
    ]


def success_cell(success: float) -> float | None:
    """Return an episode's success as the CSV files have it: 0 or 1, or None where not known."""
    if math.isnan(success):
        return None
    return int(success) if float(success).is_integer() else float(success)
