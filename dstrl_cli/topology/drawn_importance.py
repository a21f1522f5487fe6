"""Grow connections at random, the more likely the more important the neurons that they join.

A variant of `importance` that is no part of XU's paper. Growth by the largest sums S_i + S_{i-1}
takes whole rows and columns of the strongest neurons; drawing by the same sums spreads it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.topology.importance import Importance
from dstrl_cli.topology.rule import NetworkView

SMALLEST = 1e-30
"""Weight of a connection whose neurons have no importance: it is drawn after all others."""


class DrawnImportance(Importance):
    """Grow score with which a connection is drawn with probability proportional to S_i + S_{i-1}.

    The highest of log(u) / w, for uniform u, are a weighted sample without replacement with weights
    w (Efraimidis and Spirakis 2006, Algorithm A). Keys and drop score are those of `importance`.
    """

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return log(u) / (S_i + S_{i-1}) [M, K, in, out], float64."""
        assert view.uniform is not None
        weight = super().grow(view, layer).clamp_(min=SMALLEST)
        return torch.log1p(-view.uniform(layer).double()) / weight
