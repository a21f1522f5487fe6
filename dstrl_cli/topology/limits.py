"""Limits on the inputs of neurons: how many connections the parts of a layer may have.

A part is a number of consecutive inputs of one neuron: all of them where the fan-in is limited, M
of them where N of M are to be active. A limit only says how many connections a part has at least
and at most; `masks` meets it. Layers are turned over here, [out, in], so that parts lie in a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.config.limits import at_most, by_layer
from dstrl_cli.config.rulekeys import TopologyConfig


class Limit(ABC):
    """How many connections the parts of a layer may have.

    Attributes:
        drops_by_part: whether dropping takes the lowest of every part before the second lowest of
            any; else the lowest of the layer.
    """

    drops_by_part: ClassVar[bool] = False

    def part(self, inputs: int) -> int:
        """Return how many consecutive inputs of a neuron make a part: all, unless said."""
        return inputs

    @abstractmethod
    def bounds(
        self, target: Tensor, inputs: int, outputs: int, alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the least and the most connections of every part, integers [M, K, parts].

        Args:
            target: connections of the whole layer [M, K].
            inputs, outputs: sizes of the layer.
            alive: neurons that may have connections [M, K, out]; None: all.
        """


@dataclass(frozen=True)
class AtMost(Limit):
    """At most `most` inputs a neuron; a fully dense layer is exempt."""

    most: int

    @override
    def bounds(
        self, target: Tensor, inputs: int, outputs: int, alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        most = torch.where(target == inputs * outputs, inputs, min(self.most, inputs))
        return _between(torch.zeros_like(most), most, outputs)


@dataclass(frozen=True)
class AtMostTimes(Limit):
    """At most `times` as many inputs as the neurons of the layer have on average, rounded down.

    Where that leaves too few places for the layer's connections, it is rounded up.
    """

    times: float

    @override
    def bounds(
        self, target: Tensor, inputs: int, outputs: int, alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        mean = target.double() / outputs
        allowed = (self.times * mean).round(decimals=6).floor()
        most = torch.maximum(allowed, mean.ceil()).clamp(max=inputs).long()
        return _between(torch.zeros_like(most), most, outputs)


@dataclass(frozen=True)
class Constant(Limit):
    """The same number of inputs for every living neuron, give or take one.

    `ablate_below` is how many of a neuron's connections must be salient for it to stay alive: a
    number or, below 1, a share of what a neuron has on average. None: all neurons live.
    """

    ablate_below: float | None = None

    @override
    def bounds(
        self, target: Tensor, inputs: int, outputs: int, alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if alive is None:
            alive = torch.ones(*target.shape, outputs, dtype=torch.bool, device=target.device)
        least = target // alive.sum(-1).clamp(min=1)
        most = (least + 1).clamp(max=inputs)
        return least.unsqueeze(-1) * alive, most.unsqueeze(-1) * alive

    def living(self, salient: Tensor, target: Tensor) -> Tensor:
        """Return the neurons that stay alive [M, K, out] (SRigL's code, `rigl_constant_fan`).

        Those live that have as many salient connections as `ablate_below` asks for, one at the
        least, and always so many that the layer's connections fit into them.

        Args:
            salient: connections worth having [M, K, out, in], bool, active or not.
            target: connections of the whole layer [M, K].
        """
        assert self.ablate_below is not None
        outputs, inputs = salient.shape[-2:]
        counts = salient.sum(-1)  # [M, K, out]
        if self.ablate_below >= 1:
            needed = torch.full_like(target, int(self.ablate_below))
        else:
            share = self.ablate_below * (target // outputs).double()
            needed = share.round(decimals=6).floor().long().clamp(min=1)
        fewest = (target // inputs).clamp(max=outputs - 1)  # of the best, so many and one more live
        best = counts.sort(dim=-1, descending=True).values
        needed = torch.minimum(needed, best.gather(-1, fewest.unsqueeze(-1)).squeeze(-1))
        return counts >= needed.unsqueeze(-1)


@dataclass(frozen=True)
class NOfM(Limit):
    """Exactly `n` of every `m` consecutive inputs of a neuron."""

    n: int
    m: int
    drops_by_part: ClassVar[bool] = True

    @override
    def part(self, inputs: int) -> int:
        return self.m

    @override
    def bounds(
        self, target: Tensor, inputs: int, outputs: int, alive: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        exactly = torch.full_like(target, self.n)
        return _between(exactly, exactly, outputs * inputs // self.m)


def _between(least: Tensor, most: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Return the same bounds [M, K] for every part [M, K, parts]."""
    return (
        least.unsqueeze(-1).expand(*least.shape, parts),
        most.unsqueeze(-1).expand(*most.shape, parts),
    )


def layer_limit(
    rule: TopologyConfig, inputs: int, outputs: int, layer: int, layers: int
) -> Limit | None:
    """Return the limit on one of a network's layers, or None where there is none.

    A single neuron has the layer's connections to itself, so its fan-in is not limited. Neurons of
    the last layer are what the network returns: they are never ablated.
    """
    if rule.n_of_m is not None:
        n, m = by_layer(rule.n_of_m, layers)[layer]
        return None if n == m else NOfM(n, m)
    if rule.fan_in == "free" or outputs == 1:
        return None
    limit = at_most(rule.fan_in)
    if limit is None:
        return Constant(rule.ablate_below if layer < layers - 1 else None)
    return AtMostTimes(limit.number) if limit.times_mean else AtMost(int(limit.number))
