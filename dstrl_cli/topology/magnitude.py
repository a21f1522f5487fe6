"""Drop the active connections of smallest magnitude (RigL, RLX Alg. 1)."""

from __future__ import annotations

from torch import Tensor

from dstrl_cli.topology.rule import NetworkView, Score


class Magnitude(Score):
    """Drop score |w|."""

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return |w| [M, K, in, out]."""
        return view.weights[layer].abs()
