"""Selection by rank, and `rewire`: the only code that changes a mask. Pure functions on tensors.

Nothing here knows of methods, networks or optimizers. Shapes: M members, K heads of a network, and
layers [in, out].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.topology.shapes import check


def whole_part(fraction: float, count: Tensor) -> Tensor:
    """Return int(fraction * count), for whole numbers `count` of any shape.

    The product is rounded to six digits first, as budgets are: in floating point 0.29 * 100 is
    28.999999999999996, which would be 28 instead of 29.
    """
    return (fraction * count.double()).round(decimals=6).floor().long()


def ascending(scores: Tensor, ties: Tensor | None = None) -> Tensor:
    """Return the positions of `scores` [..., N] in ascending order of the scores.

    Among equal scores the one with the lower number in `ties` [..., N] comes first; without `ties`
    the one at the lower position.
    """
    if ties is None:
        return scores.argsort(dim=-1, stable=True)
    shuffled = ties.argsort(dim=-1, stable=True)
    return shuffled.gather(-1, scores.gather(-1, shuffled).argsort(dim=-1, stable=True))


def lowest(scores: Tensor, count: Tensor, ties: Tensor | None = None) -> Tensor:
    """Mark the `count` lowest of `scores` [..., N] in each row; `ties` as in `ascending`.

    `count` is [...], integer.
    """
    _check_rows(scores, count)
    order = ascending(scores, ties)
    chosen = torch.arange(scores.shape[-1], device=scores.device) < count.unsqueeze(-1)
    return torch.zeros_like(chosen.expand_as(order)).scatter_(-1, order, chosen.expand_as(order))


def highest(scores: Tensor, count: Tensor, ties: Tensor | None = None) -> Tensor:
    """Mark the `count` highest of `scores` [..., N] in each row; `ties` as in `ascending`.

    `count` is [...], integer.
    """
    return lowest(-scores, count, ties)


def keep_largest(values: Tensor, count: Tensor, max_count: int) -> Tensor:
    """Zero all but the `count` largest magnitudes of `values` [..., N] in each row (SOK Alg. 3).

    `count` is [...], integer. `max_count` is at least the largest of `count`; it bounds the sort.
    Returns a new tensor.
    """
    _check_rows(values, count)
    magnitudes, index = values.abs().topk(max_count, dim=-1)
    kept = torch.arange(max_count, device=values.device) < count.unsqueeze(-1)
    chosen = torch.where(kept, values.gather(-1, index), torch.zeros_like(magnitudes))
    return torch.zeros_like(values).scatter_(-1, index, chosen)


def rank(values: Tensor, among: Tensor, ties: Tensor | None = None) -> Tensor:
    """Return the rank from 0 of each of `values` [..., N] among the marked ones, ascending.

    `among` [..., N] is bool. Unmarked entries rank after all marked ones. `ties` is as in
    `ascending`.
    """
    if among.shape != values.shape or among.dtype != torch.bool:
        raise ValueError(f"among must be bool of shape {list(values.shape)}")
    order = ascending(values.masked_fill(~among, math.inf), ties)
    positions = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, positions)


def _check_rows(values: Tensor, count: Tensor) -> None:
    if count.shape != values.shape[:-1]:
        raise ValueError(
            f"count must be one number for each row of {list(values.shape)}, "
            f"not of shape {list(count.shape)}"
        )
    if count.dtype != torch.long:
        raise TypeError(f"count must be {torch.long}, not {count.dtype}")


@dataclass(frozen=True)
class Rewired:
    """What `rewire` did to one layer.

    Attributes:
        mask: the new mask [M, K, in, out], bool.
        dropped: active connections that the new mask has no more [M, K].
        grown: connections that only the new mask has [M, K]. One that is dropped and grown again at
            once counts as neither.
        spared: whether the layer's last connection was to be dropped, and was kept [M, K], bool.
    """

    mask: Tensor
    dropped: Tensor
    grown: Tensor
    spared: Tensor


def rewire(
    mask: Tensor,
    drop_score: Tensor,
    grow_score: Tensor,
    count: Tensor,
    *,
    regrow_dropped: bool,
    target: Tensor | None = None,
    grow: bool = True,
    ties: tuple[Tensor, Tensor] | None = None,
) -> Rewired:
    """Drop the lowest-scored active connections of a layer and grow the highest-scored inactive.

    As many are grown as are dropped, unless the layer is to have fewer or more connections:
    then max(0, active - target) more are dropped, or max(0, target - active) more are grown.

    Args:
        mask: active connections [M, K, in, out], bool.
        drop_score: [M, K, in, out]; the lowest of the active connections are dropped.
        grow_score: [M, K, in, out]; the highest of the inactive connections are grown.
        count: connections to exchange [M, K], integer.
        regrow_dropped: whether a connection that is dropped here may be grown here.
        target: active connections that the layer is to have [M, K], integer, from 1 to all; None:
            as many as it has.
        grow: False drops without growing; the target then does not count.
        ties: random numbers [M, K, in, out], for dropping and for growing: of equal scores the one
            with the lower number is taken. Without them the one at the lower position is.

    A layer that is fully dense and to stay so is left alone; where fewer positions than `count` may
    be grown, only so many are exchanged. Without growth the highest-scored connection of a layer
    always stays. A score that is not a number is the last choice for dropping and for growing.

    Raises ValueError or TypeError for a shape or dtype other than these.
    """
    check("mask", mask, "M K in out", torch.bool)
    check("drop_score", drop_score, "M K in out", like=mask)
    check("grow_score", grow_score, "M K in out", like=mask)
    shape = mask.shape
    drop_ties, grow_ties = (each.flatten(2) for each in ties) if ties else (None, None)
    active = mask.flatten(2)
    inactive, available = (~active).sum(-1), active.sum(-1)
    target = available if target is None or not grow else target
    fewer, more = (available - target).clamp(min=0), (target - available).clamp(min=0)
    if grow and not regrow_dropped:
        count = torch.minimum(count, inactive - more)
    most = available - fewer if grow else (available - 1).clamp(min=0)
    spared = (count > most) & (inactive > 0) & (available > most)
    has_room = (inactive > more) | (fewer > 0)
    count = torch.where(has_room, torch.minimum(count, most), torch.zeros_like(count))

    dropping = _finite(drop_score, nan=torch.finfo(drop_score.dtype).max)
    drop = lowest(dropping.masked_fill(~active, math.inf), count + fewer, drop_ties)
    kept = active & ~drop
    if not grow:
        return Rewired(kept.view(shape), count, torch.zeros_like(count), spared)
    growing = _finite(grow_score, nan=torch.finfo(grow_score.dtype).min)
    taken = kept if regrow_dropped else active
    new = kept | highest(growing.masked_fill(taken, -math.inf), count + more, grow_ties)
    dropped, grown = (active & ~new).sum(-1), (new & ~active).sum(-1)
    return Rewired(new.view(shape), dropped, grown, spared)


def _finite(score: Tensor, nan: float) -> Tensor:
    """Return finite scores [M, K, N]: infinity is left to positions that are ruled out."""
    return score.flatten(2).nan_to_num(nan=nan)
