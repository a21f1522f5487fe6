"""Grow connections where the dense gradient of the loss is largest (RigL, RLX Alg. 1)."""

from __future__ import annotations

from torch import Tensor

from dstrl_cli.topology.rule import NetworkView, Score


class Gradient(Score):
    """Grow score |dL/dw| of the mini-batch of this update, with inactive weights at zero."""

    needs_gradient = True

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return |dL/dw| [M, K, in, out]."""
        assert view.gradients is not None
        return view.gradients[layer].abs()
