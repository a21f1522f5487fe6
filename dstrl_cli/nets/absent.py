"""The critics of an algorithm that has none: a network without heads, layers or weights.

It counts its updates like any other, so that nothing else need know. It cannot be computed with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.nets.network import Members, Network, Overwritten
from dstrl_cli.nets.plan import NetworkPlan


def _nothing(what: str) -> NoReturn:
    raise TypeError(f"{what}: this algorithm has no such network")


class AbsentNetwork(Network):
    """No network at all (see `Network` for the interface)."""

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__(plan)
        self.groups, self.observing = [], []

    @override
    def forward(self, x: Tensor, heads: int | None = None) -> Tensor:
        _nothing("forward")

    @override
    def backward(self, grad: Tensor, *, weights: bool = True, inputs: bool = False) -> Tensor:
        _nothing("backward")

    @override
    def predict(self, x: Tensor) -> Tensor:
        _nothing("predict")

    @override
    def target(self, x: Tensor) -> Tensor:
        _nothing("target")

    @override
    def update_target(self, tau: float) -> None:
        pass

    @override
    def optimizer_step(self, apply: Tensor) -> None:
        pass

    @override
    def set_learning_rate(self, rate: float) -> None:
        pass

    @override
    def view_layers(self, members: Members) -> tuple[list[Tensor], list[Tensor]]:
        return [], []

    @override
    def gradients(self, members: Members) -> list[Tensor]:
        return []

    @override
    def moments(self, members: Members) -> list[tuple[Tensor, Tensor]]:
        return []

    @override
    def set_masks(self, members: Members, layers: Sequence[Tensor]) -> None:
        pass

    @override
    def overwrite(self, member: int, layers: Sequence[Overwritten]) -> None:
        pass

    @override
    def finish_update(self) -> None:
        pass

    @override
    def layers(self, member: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return []

    @override
    def active(self) -> Tensor:
        return torch.zeros(self.plan.members, 0, 0, dtype=torch.long, device=self.plan.device)

    @override
    def weights_state(self, member: int) -> dict[str, Any]:
        return {}

    @override
    def set_weights_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        pass
