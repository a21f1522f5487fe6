"""Budgets over layers, initial masks, selection by rank, and rewiring: pure functions on tensors.

A budget is the integer number of active connections of one layer; it never changes during a run.
`rewire` is the only code that changes a mask. Scores come from `dstrl_cli.topology`; nothing here
knows of methods, networks or optimizers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.config.sizes import lambda_densities
from dstrl_cli.errors import InputError

Shape = tuple[int, int]
"""(inputs, outputs) of one weight matrix."""


def uniform_densities(shapes: Sequence[Shape], sparsity: float) -> list[float]:
    """Return the same density 1 - sparsity for every layer."""
    return [1.0 - sparsity for _ in shapes]


def erdos_renyi_densities(shapes: Sequence[Shape], sparsity: float) -> list[float]:
    """Return densities p_l = eps (I + O) / (I O) that meet a total sparsity (RLX App. B).

    `eps` makes the active connections of all layers (1 - sparsity) of the total. Layers whose
    density would exceed 1 become dense and their surplus moves to the others, the largest raw
    density first, until all fit (authors' code, `sparse_set`).
    """
    sizes = [i * o for i, o in shapes]
    if sparsity == 0.0:
        return [1.0] * len(shapes)
    raw = [(i + o) / (i * o) for i, o in shapes]
    dense: set[int] = set()
    while len(dense) < len(shapes):
        free = [layer for layer in range(len(shapes)) if layer not in dense]
        target = (1.0 - sparsity) * sum(sizes) - sum(sizes[layer] for layer in dense)
        eps = target / sum(raw[layer] * sizes[layer] for layer in free)
        largest = max(raw[layer] for layer in free)
        if eps * largest <= 1.0:
            return [1.0 if layer in dense else eps * raw[layer] for layer in range(len(shapes))]
        dense.update(layer for layer in free if raw[layer] == largest)
    return [1.0] * len(shapes)  # only rounding leads here: a sparsity that is all but 0


def densities(
    shapes: Sequence[Shape],
    sparsity: float,
    allocation: str,
    lambdas: Sequence[float] | None = None,
) -> list[float]:
    """Return the density of every layer by the named allocation."""
    if allocation == "lambda":
        return lambda_densities(shapes, lambdas or ())
    return {"uniform": uniform_densities, "erdos_renyi": erdos_renyi_densities}[allocation](
        shapes, sparsity
    )


def exact_budgets(shapes: Sequence[Shape], layer_densities: Sequence[float]) -> list[int]:
    """Return the active connections per layer, n - int((1 - p) n) (authors' code of RLX).

    Raises:
        InputError: when a layer would be left without any connection.
    """
    budgets = []
    for (inputs, outputs), density in zip(shapes, layer_densities, strict=True):
        size = inputs * outputs
        # 1 - p in floating point can fall just short of an integer product: round it first.
        budget = size - int(round((1.0 - density) * size, 6))
        if budget < 1:
            raise InputError(
                f"sparsity: the budget of a layer {inputs}x{outputs} is 0 connections; "
                "lower the sparsity or widen the network"
            )
        budgets.append(budget)
    return budgets


def lowest(scores: Tensor, count: Tensor) -> Tensor:
    """Mark the `count` lowest of `scores` [..., N] in each row; ties go to the lower index."""
    order = scores.argsort(dim=-1, stable=True)
    chosen = torch.arange(scores.shape[-1], device=scores.device) < count.unsqueeze(-1)
    return torch.zeros_like(chosen.expand_as(order)).scatter_(-1, order, chosen.expand_as(order))


def highest(scores: Tensor, count: Tensor) -> Tensor:
    """Mark the `count` highest of `scores` [..., N] in each row; ties go to the lower index."""
    return lowest(-scores, count)


def keep_largest(values: Tensor, count: Tensor, max_count: int) -> Tensor:
    """Zero all but the `count` largest magnitudes of `values` [..., N] in each row (SOK Alg. 3).

    `max_count` is the largest of `count`; it bounds the sort. Returns a new tensor.
    """
    magnitudes, index = values.abs().topk(max_count, dim=-1)
    kept = torch.arange(max_count, device=values.device) < count.unsqueeze(-1)
    chosen = torch.where(kept, values.gather(-1, index), torch.zeros_like(magnitudes))
    return torch.zeros_like(values).scatter_(-1, index, chosen)


def random_mask(size: int, budget: int, generator: torch.Generator) -> Tensor:
    """Return a mask [size] with exactly `budget` active connections, all such equally likely."""
    mask = torch.zeros(size, dtype=torch.bool)
    mask[torch.randperm(size, generator=generator)[:budget]] = True
    return mask


def bernoulli_mask(size: int, density: float, generator: torch.Generator) -> Tensor:
    """Return a mask [size] whose entries are active independently with `density` (SOK's code)."""
    return torch.rand(size, generator=generator, dtype=torch.float64) < density


def magnitude_mask(weight: Tensor, budget: int) -> Tensor:
    """Return a mask [size] of the `budget` largest magnitudes of `weight` [size] (RLX's code)."""
    return highest(weight.abs(), torch.tensor(budget))


@dataclass(frozen=True)
class Rewired:
    """What `rewire` did to one layer: the new mask and the counts, each [M, K]."""

    mask: Tensor
    dropped: Tensor
    grown: Tensor


def rewire(
    mask: Tensor,
    drop_score: Tensor,
    grow_score: Tensor,
    count: Tensor,
    *,
    regrow_dropped: bool,
    grow: bool = True,
) -> Rewired:
    """Drop the lowest-scored active connections of a layer and grow as many inactive ones.

    Args:
        mask: active connections [M, K, in, out], bool.
        drop_score: [M, K, in, out]; lowest active first to go.
        grow_score: [M, K, in, out]; highest inactive first to come.
        count: connections to exchange [M, K], integer.
        regrow_dropped: whether a connection dropped here may be grown again at once.
        grow: False drops without growing.

    A fully dense layer is left alone; where fewer positions than `count` may be grown, only so many
    are exchanged. Equal scores are decided by position, so the result is deterministic.
    """
    shape = mask.shape
    active = mask.flatten(2)
    inactive = (~active).sum(-1)
    if grow and not regrow_dropped:
        count = torch.minimum(count, inactive)
    count = torch.where(inactive > 0, torch.minimum(count, active.sum(-1)), torch.zeros_like(count))

    drop = lowest(drop_score.flatten(2).masked_fill(~active, math.inf), count)
    kept = active & ~drop
    if not grow:
        return Rewired(kept.view(shape), count, torch.zeros_like(count))
    taken = kept if regrow_dropped else active
    grown = highest(grow_score.flatten(2).masked_fill(taken, -math.inf), count)
    return Rewired((kept | grown).view(shape), count, count)
