"""Selection by rank, and `rewire`: the only code that changes a mask. Pure functions on tensors.

Nothing here knows of methods, networks or optimizers. Shapes: M members, K heads of a network, and
layers [in, out].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.shapes import check
from dstrl_cli.topology.limits import Constant, Limit


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

    def only_for(self, members: Tensor, before: Tensor) -> Rewired:
        """Return what was done if only the marked `members` [M] had taken part.

        Args:
            members: bool.
            before: the masks from before [M, K, in, out].
        """
        some = members.unsqueeze(-1)
        mask = torch.where(some[..., None, None], self.mask, before)
        return Rewired(mask, self.dropped * some, self.grown * some, self.spared & some)


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
    limit: Limit | None = None,
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
        limit: on the inputs of neurons. Then at least as many are exchanged as are needed to meet
            it, and a connection that is dropped is grown again where its neuron has no other place.

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
    spared = (count >= available) & (available > 0) & (inactive > 0) & (not grow)
    has_room = (inactive > more) | (fewer > 0)
    count = torch.where(has_room, torch.minimum(count, most), torch.zeros_like(count))

    if limit is not None:
        goal = target if grow else available - count
        orders = _orders(mask, drop_score, grow_score, drop_ties, grow_ties)
        new = _within_limit(limit, mask, *orders, count * int(grow), goal, regrow_dropped)
        dropped, grown = (mask & ~new).sum((-2, -1)), (new & ~mask).sum((-2, -1))
        return Rewired(new, dropped, grown, spared)
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


# --- under a limit ------------------------------------------------------------------------------


def fitted(mask: Tensor, limit: Limit, numbers: Tensor) -> Tensor:
    """Return a first mask [in, out] that meets a limit, with as much of a drawn one as it allows.

    Connections beyond the limit go and others come, those with the lowest of `numbers` [in, out]
    first, so that the layer keeps its number of connections.
    """
    inputs, outputs = mask.shape
    drawn, numbers = mask.T[None, None], numbers.T[None, None]  # [1, 1, out, in]
    order = _rank(numbers.flatten(2)).view_as(drawn) + drawn.numel() * (~drawn).long()
    target = drawn.sum((-2, -1))
    least, most = limit.bounds(target, inputs, outputs)
    target = target.clamp(least.sum(-1), most.sum(-1))  # of a Bernoulli mask
    chosen = spread(order, torch.ones_like(drawn), limit.part(inputs), least, most, target)
    return chosen[0, 0].T.contiguous()


def spread(
    order: Tensor, among: Tensor, part: int, least: Tensor, most: Tensor, count: Tensor
) -> Tensor:
    """Mark `count` positions of a layer so that every part has between `least` and `most` of them.

    Every part takes its first `least`; the others come in the order of the layer, from parts that
    are not full.

    Args:
        order: whole numbers [M, K, out, in], different ones within a layer; the lowest come first.
        among: positions that may be marked [M, K, out, in], bool.
        part: consecutive inputs that make a part.
        least, most: [M, K, parts], integer.
        count: [M, K], integer; fewer are marked where `among` has too few.
    """
    last = torch.iinfo(order.dtype).max
    order = order.masked_fill(~among, last)
    parts = order.unflatten(-1, (-1, part)).flatten(2, 3)  # [M, K, parts, part]
    place = _rank(parts)
    first, within = place < least.unsqueeze(-1), place < most.unsqueeze(-1)
    others = parts.masked_fill(first | ~within, last).flatten(2)
    found = first.flatten(2) | lowest(others, count - least.sum(-1)) & (others < last)
    return found.view_as(among) & among


def _rank(values: Tensor) -> Tensor:
    """Return the place from 0 of each of `values` [..., N] in ascending order."""
    order = values.argsort(dim=-1, stable=True)
    places = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def _orders(
    mask: Tensor,
    drop_score: Tensor,
    grow_score: Tensor,
    drop_ties: Tensor | None,
    grow_ties: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the places [M, K, out, in] of a layer's positions in dropping and in growing."""
    dropping = _finite(drop_score, nan=torch.finfo(drop_score.dtype).max)
    growing = _finite(grow_score, nan=torch.finfo(grow_score.dtype).min)
    everywhere = torch.ones_like(dropping, dtype=torch.bool)
    drop = rank(dropping, mask.flatten(2), drop_ties)
    grow = rank(-growing, everywhere, grow_ties)
    return drop.view_as(mask).transpose(-2, -1), grow.view_as(mask).transpose(-2, -1)


def _within_limit(
    limit: Limit,
    mask: Tensor,
    drop: Tensor,
    grow: Tensor,
    count: Tensor,
    target: Tensor,
    regrow_dropped: bool,
) -> Tensor:
    """Return the new mask [M, K, in, out] of a layer under a limit.

    First the lowest of what neither the target nor the limit allows goes, then as many more as make
    `count` with those that only the limit forbade. Neurons are then filled up to the limit and the
    target: with what was kept, and with others in the order of growing.

    Args:
        limit: what holds.
        mask: active connections [M, K, in, out].
        drop, grow: places of all positions [M, K, out, in] in dropping, among the active ones, and
            in growing.
        count, target: connections to exchange, and of the whole layer [M, K].
        regrow_dropped: whether what is dropped is grown like others; else only where nothing else
            is left to a neuron.
    """
    inputs, outputs = mask.shape[-2:]
    size, part = inputs * outputs, limit.part(inputs)
    active = mask.transpose(-2, -1)
    alive = None
    if isinstance(limit, Constant) and limit.ablate_below is not None:
        keep = target - count
        held = active & (drop >= (active.sum((-2, -1)) - keep)[..., None, None])
        alive = limit.living(held | (grow < count[..., None, None]), target)
    least, most = limit.bounds(target, inputs, outputs, alive)
    best_first = size - 1 - drop
    stay = spread(best_first, active, part, least, most, target)
    leaving = drop
    if limit.drops_by_part:
        lowest_first = drop.masked_fill(~stay, size).unflatten(-1, (-1, part))
        leaving = drop + size * _rank(lowest_first).view_as(drop)
    leaving = leaving.masked_fill(~stay, torch.iinfo(drop.dtype).max)
    staying = stay.sum((-2, -1))
    forbidden = active.sum((-2, -1)).minimum(target) - staying
    leave = lowest(leaving.flatten(2), (count - forbidden).clamp(min=0).minimum(staying))
    kept = stay & ~leave.view_as(stay)
    order = torch.where(kept, best_first, size + grow)
    if not regrow_dropped:
        order = order + size * (active & ~kept).long()
    return spread(order, torch.ones_like(stay), part, least, most, target).transpose(-2, -1)
