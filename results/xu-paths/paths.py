"""First masks of critics with chosen numbers of paths to their output, and nothing learned.

Of a hidden layer as large as the one before it, a share of the connections leads to the neurons
that the output layer reads; the rest leads anywhere else. Within both, all masks are equally
likely.
Every layer keeps its number of connections. With a share of 5 % masks are as good as random ones.
"""

import torch
from torch import Tensor


def _fed(
    share: float, weight: Tensor, density: float, budget: int, generator: torch.Generator
) -> Tensor:
    inputs, outputs = weight.shape
    mask = torch.zeros(inputs, outputs, dtype=torch.bool)
    if outputs == 1:  # the output layer reads the first neurons
        mask[:budget] = True
        return mask
    if inputs != outputs:  # the input layer
        return _drawn(mask, slice(0, outputs), budget, generator)
    read = round(density * inputs)  # as many as the output layer, which is equally sparse, reads
    fed = min(round(share * budget), inputs * read)
    return _drawn(mask, slice(0, read), fed, generator) | _drawn(
        mask, slice(read, outputs), budget - fed, generator
    )


def _drawn(mask: Tensor, columns: slice, count: int, generator: torch.Generator) -> Tensor:
    """Return a mask with `count` connections somewhere in the columns."""
    drawn = mask.clone()
    inside = mask[:, columns]
    flat = torch.zeros(inside.numel(), dtype=torch.bool)
    flat[torch.randperm(len(flat), generator=generator)[:count]] = True
    drawn[:, columns] = flat.view_as(inside)
    return drawn


def feed_5(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask with a share of 5 %."""
    return _fed(0.05, weight, density, budget, generator)


def feed_10(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask with a share of 10 %."""
    return _fed(0.1, weight, density, budget, generator)


def feed_40(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask with a share of 40 %."""
    return _fed(0.4, weight, density, budget, generator)


def feed_100(weight: Tensor, density: float, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask with a share of 100 %."""
    return _fed(1.0, weight, density, budget, generator)
