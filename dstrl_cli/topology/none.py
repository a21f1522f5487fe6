"""Grow nothing: for rules that only drop, such as gradual magnitude pruning."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.topology.rule import NetworkView, Score


class Nothing(Score):
    """The grow score of a rule whose number of connections falls and that exchanges none."""

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return zeros [M, K, in, out], which nobody ranks."""
        return torch.zeros_like(view.weights[layer])
