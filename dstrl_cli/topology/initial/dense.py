"""The initial mask `dense`: all connections, for budgets that fall from there."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.shapes import check


def dense_mask(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask of all connections; the configuration sees to it that `budget` is all."""
    check("weight", weight, "in out")
    return torch.ones_like(weight, dtype=torch.bool)
