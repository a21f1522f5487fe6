"""The initial mask `bernoulli`: every connection drawn by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.shapes import check


def bernoulli_mask(
    weight: Tensor, density: float, budget: int, generator: torch.Generator
) -> Tensor:
    """Return a mask whose entries are active independently with `density` (SOK's code)."""
    check("weight", weight, "in out")
    drawn = torch.rand(weight.numel(), generator=generator, dtype=torch.float64) < density
    return drawn.view_as(weight)
