"""Builders of rules, and of the networks that they see, that several tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.topology.rule import NetworkView, Rule

FOREVER = 10**9


def rule(end: int = FOREVER, **keys: Any) -> Rule:
    return Rule(TopologyConfig(**{"schedule": "constant", **keys}), end)


def one(matrix: list[list[float]]) -> Tensor:
    """A matrix [in, out] as one member with one head."""
    return torch.tensor(matrix)[None, None]


def view(
    weights: Sequence[Tensor],
    masks: Sequence[Tensor] | None = None,
    gradients: Sequence[Tensor] | None = None,
    td_error: float | None = None,
    batch_size: int = 1,
    seeds: Sequence[int] = (0,),
) -> NetworkView:
    """What a rule sees; connections are active where the weight is not zero, unless said."""

    def uniform(layer: int) -> Tensor:
        shape = weights[layer].shape[1:]
        drawn = [
            torch.rand(shape, generator=streams.generator(seed, "growth", layer)) for seed in seeds
        ]
        return torch.stack(drawn)

    return NetworkView(
        weights=weights,
        masks=masks or [weight != 0 for weight in weights],
        gradients=gradients,
        td_error=None if td_error is None else torch.full(weights[0].shape[:2], td_error),
        batch_size=batch_size,
        uniform=uniform,
        alive=torch.ones(len(weights[0]), dtype=torch.bool),
    )
