"""The initial mask `random`: a given number of connections anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.shapes import check


def random_mask(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask with exactly `budget` active connections, all such masks equally likely."""
    check("weight", weight, "in out")
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[torch.randperm(weight.numel(), generator=generator)[:budget]] = True
    return mask.view_as(weight)
