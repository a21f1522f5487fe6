"""Grow connections at uniformly random inactive positions (SET; SOK Alg. 2)."""

from __future__ import annotations

from torch import Tensor

from dstrl_cli.topology.rule import NetworkView, Score


class Random(Score):
    """Grow score uniform in [0, 1), from each member's own stream."""

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return uniform numbers [M, K, in, out]."""
        assert view.uniform is not None
        return view.uniform(layer)
