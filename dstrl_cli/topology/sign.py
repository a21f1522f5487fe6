"""Drop the positive and the negative weights nearest zero (SET; SOK Alg. 2).

The weights of each sign are ranked by magnitude, and the lowest ranks are dropped. The key
`sign_split` says how many of each sign: the same fraction of both (`fraction`), the same number of
both (`half`, SOK Alg. 2), or what SOK's code computes (`official`), which rounds differently and
also drops every active weight that is exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.topology.masks import rank, whole_part
from dstrl_cli.topology.rule import NetworkView, Score


@dataclass(frozen=True)
class Shares:
    """Connections of one layer to drop, by sign, each [M, K]."""

    zero: Tensor
    negative: Tensor
    positive: Tensor


def fraction_shares(zero: Tensor, negative: Tensor, positive: Tensor, fraction: float) -> Shares:
    """Drop int(fraction * active): zeros first, then of each sign its share of the rest."""
    total = whole_part(fraction, zero + negative + positive)
    zeros = torch.minimum(zero, total)
    rest = total - zeros
    from_negative = rest * negative // (negative + positive).clamp(min=1)
    return Shares(zeros, from_negative, rest - from_negative)


def half_shares(zero: Tensor, negative: Tensor, positive: Tensor, fraction: float) -> Shares:
    """Drop int(fraction * active): zeros first, then half of the rest from each sign."""
    total = whole_part(fraction, zero + negative + positive)
    zeros = torch.minimum(zero, total)
    rest = total - zeros
    from_positive = torch.minimum(rest - torch.minimum(rest // 2, negative), positive)
    return Shares(zeros, rest - from_positive, from_positive)


def official_shares(zero: Tensor, negative: Tensor, positive: Tensor, fraction: float) -> Shares:
    """Drop all zeros, N- - int((1 - f) N-) negatives and int(f N+) + 1 positives (SOK's code)."""
    from_negative = negative - ((1.0 - fraction) * negative.double()).floor().long()
    from_positive = (fraction * positive.double()).floor().long() + 1
    return Shares(zero, from_negative, torch.minimum(from_positive, positive))


SPLITS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Shares]] = {
    "fraction": fraction_shares,
    "half": half_shares,
    "official": official_shares,
}


class Sign(Score):
    """Drop score: rank of |w| among the weights of its sign, less how many of that sign to drop.

    The connections to drop are then those with a score below zero. What a falling budget takes
    beyond them comes from both signs alike.
    """

    def shares(self, view: NetworkView, layer: int, fraction: float) -> Shares:
        """Return how many connections of each sign to drop."""
        weight, mask = view.weights[layer], view.masks[layer]
        negative = (mask & (weight < 0)).sum((-2, -1))
        positive = (mask & (weight > 0)).sum((-2, -1))
        zero = mask.sum((-2, -1)) - negative - positive
        return SPLITS[self.config.sign_split](zero, negative, positive, fraction)

    def count(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return the connections to drop [M, K], all signs together."""
        shares = self.shares(view, layer, fraction)
        total = shares.zero + shares.negative + shares.positive
        if view.targets is None:
            return total
        return torch.minimum(total, super().count(view, layer, fraction))

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return the rank within the sign less the number of that sign to drop [M, K, in, out]."""
        shares = self.shares(view, layer, fraction)
        weight = view.weights[layer].flatten(2)
        mask = view.masks[layer].flatten(2)
        ties = None if view.ties is None else view.ties("drop", layer).flatten(2)
        score = torch.full_like(weight, -weight.shape[-1] - 1.0)  # exact zeros go first
        for sign, share in ((-1, shares.negative), (1, shares.positive)):
            of_sign = mask & (weight.sign() == sign)
            ranked = rank(weight.abs(), of_sign, ties) - share.unsqueeze(-1)
            score = torch.where(of_sign, ranked.to(score.dtype), score)
        return score.view_as(view.weights[layer])
