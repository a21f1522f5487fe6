"""The masks that networks start with: functions with one signature, for one layer of one head.

`(weight [in, out], density, budget, generator) -> mask [in, out]`, bool. `budget` is the layer's
number of active connections, and `density` the share from which it follows. Random numbers come
from `generator` alone. For layers that are dense no function is called. A function of one's own is
named `module:function`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dstrl_cli.topology.masks import highest
from dstrl_cli.topology.shapes import check

InitialMask = Callable[[Tensor, float, int, torch.Generator], Tensor]


BY_WEIGHT = ("magnitude",)
"""First masks that go by the weights: where a limit on the inputs of neurons moves connections of
theirs, the largest weights come first; elsewhere the choice is random."""


def random_mask(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask with exactly `budget` active connections, all such masks equally likely."""
    check("weight", weight, "in out")
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[torch.randperm(weight.numel(), generator=generator)[:budget]] = True
    return mask.view_as(weight)


def bernoulli_mask(
    weight: Tensor, density: float, budget: int, generator: torch.Generator
) -> Tensor:
    """Return a mask whose entries are active independently with `density` (SOK's code)."""
    check("weight", weight, "in out")
    drawn = torch.rand(weight.numel(), generator=generator, dtype=torch.float64) < density
    return drawn.view_as(weight)


def magnitude_mask(
    weight: Tensor, density: float, budget: int, generator: torch.Generator
) -> Tensor:
    """Return a mask of the `budget` weights of largest magnitude (RLX's code)."""
    check("weight", weight, "in out")
    return highest(weight.abs().flatten(), torch.tensor(budget)).view_as(weight)
