"""The initial mask `magnitude`: the connections of the largest weights."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.shapes import check
from dstrl_cli.topology.masks import highest


def magnitude_mask(
    weight: Tensor, density: float, budget: int, generator: torch.Generator
) -> Tensor:
    """Return a mask of the `budget` weights of largest magnitude (RLX's code)."""
    check("weight", weight, "in out")
    return highest(weight.abs().flatten(), torch.tensor(budget)).view_as(weight)
