"""A rule: how the topology of one network changes (a drop score, a grow score, a schedule).

Scores see a `NetworkView` and say which connections matter; `masks.rewire` alone changes masks.
One `Rule` serves the members of a population that share its settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.config.models import TopologyConfig
from dstrl_cli.registry import SCORES, load
from dstrl_cli.topology import masks


@dataclass(frozen=True)
class NetworkView:
    """What a score may see of the M members of a rule, layer by layer from the input on.

    Attributes:
        weights: [M, K, in, out] per layer; zero where inactive.
        masks: [M, K, in, out] per layer, bool.
        gradients: dense gradients of the loss of this update [M, K, in, out] per layer, or None
            unless a score asks for them.
        td_error: sum over the batch of |target - Q| [M, K], or None for a network without one.
        batch_size: rows of the batch.
        uniform: layer -> numbers in [0, 1) [M, K, in, out] from each member's own stream.
        alive: members that still train [M], bool; the others keep their topology.
    """

    weights: Sequence[Tensor]
    masks: Sequence[Tensor]
    gradients: Sequence[Tensor] | None
    td_error: Tensor | None
    batch_size: int
    uniform: Callable[[int], Tensor]
    alive: Tensor


class Score:
    """Scores the connections of a layer, for dropping or for growing, or both."""

    needs_gradient = False
    observes_updates = False

    def __init__(self, config: TopologyConfig) -> None:
        self.config = config

    def observe(self, view: NetworkView) -> None:
        """See one update of the network (called for every update if `observes_updates`)."""

    def prepare(self, view: NetworkView) -> None:
        """See the network before a topology update, once for all its layers."""

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return drop scores [M, K, in, out]; the lowest active connections go first."""
        raise TypeError(f"{type(self).__name__} does not score dropping")

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return grow scores [M, K, in, out]; the highest inactive connections come first."""
        raise TypeError(f"{type(self).__name__} does not score growing")

    def count(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return how many connections to drop [M, K]: int(fraction * active)."""
        active = view.masks[layer].sum((-2, -1)).double()
        return (fraction * active).floor().long()


SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda fraction, progress: fraction,
    "cosine": lambda fraction, progress: fraction / 2 * (1 + math.cos(math.pi * progress)),
    "static": lambda fraction, progress: 0.0,
}
"""Fraction at a progress (updates over the updates of the whole run) in [0, 1] (RLX 4.1)."""


@dataclass(frozen=True)
class Change:
    """A topology update of one rule: per layer the new masks and counts, and the fraction."""

    layers: Sequence[masks.Rewired]
    fraction: float


class Rule:
    """The topology rule of one network for those members that share its settings.

    Args:
        config: the rule's keys.
        end: the network's own updates after which the topology stays as it is (T_end).
    """

    def __init__(self, config: TopologyConfig, end: int) -> None:
        self.config, self.end = config, end
        same = config.drop == config.grow  # one score, one state
        self.drop: Score = load(SCORES, config.drop)(config)
        self.grow: Score = self.drop if same else load(SCORES, config.grow)(config)
        self.scores = (self.drop,) if same else (self.drop, self.grow)
        self.static = config.schedule == "static"
        self.needs_gradient = not self.static and any(s.needs_gradient for s in self.scores)
        self.observes_updates = not self.static and any(s.observes_updates for s in self.scores)
        self.finished = False

    def due(self, update: int) -> bool:
        """Return whether the network's `update` (from 1) is one of this rule's topology updates."""
        if self.static or self.finished:
            return False
        if (update - self.config.update_offset) % self.config.update_interval != 0:
            return False
        return update < self.end or self.config.final_drop

    def fraction(self, update: int) -> float:
        """Return the fraction of active connections to exchange at `update`."""
        progress = min(1.0, update / self.end) if self.end > 0 else 1.0
        return SCHEDULES[self.config.schedule](self.config.drop_fraction, progress)

    def observe(self, view: NetworkView) -> None:
        """Let the scores see one update."""
        for score in self.scores:
            score.observe(view)

    def change(self, view: NetworkView, update: int) -> Change:
        """Return the masks after the topology update that is due at `update`.

        With `final_drop`, the first change due at or after `end` drops without growing and is the
        last one (SOK's code).
        """
        last = update >= self.end
        self.finished = last
        fraction = self.fraction(update)
        for score in self.scores:
            score.prepare(view)
        layers = [
            masks.rewire(
                view.masks[layer],
                self.drop.drop(view, layer, fraction),
                self.grow.grow(view, layer),
                self.drop.count(view, layer, fraction) * view.alive.unsqueeze(-1),
                regrow_dropped=self.config.regrow_dropped,
                grow=not last,
            )
            for layer in range(len(view.masks))
        ]
        return Change(layers, fraction)


def rank(values: Tensor, among: Tensor) -> Tensor:
    """Return the rank from 0 of each of `values` [..., N] among the marked ones, ascending.

    Unmarked entries rank after all marked ones.
    """
    order = values.masked_fill(~among, math.inf).argsort(dim=-1, stable=True)
    positions = torch.arange(values.shape[-1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, positions)
