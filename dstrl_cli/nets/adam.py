"""Adam for a population: every member has its own step count and may sit a step out.

Written over flat tensors `[P, ...]` so that one pass serves all members. L2 weight decay is added
to the gradient, as in Adam (not AdamW).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.topology.kept import to_array

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam (Kingma & Ba 2015) on parameters `[P, ...]`, in place.

    Args:
        parameters: [P, ...].
        learning_rate, weight_decay: of all members; the rate may change (`set_learning_rate`).
        count_each: whether bias correction counts the steps of every parameter by itself, so that
            `powers` may be set back to 1 where moments start anew.

    Attributes:
        first, second: the moments [P, ...].
        powers: both betas to the power of the steps taken [2, P, ...], of size 1 beyond P unless
            `count_each`.
    """

    def __init__(
        self,
        parameters: Tensor,
        learning_rate: float,
        weight_decay: float = 0.0,
        count_each: bool = False,
    ) -> None:
        self.parameters = parameters
        self.weight_decay = weight_decay
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self.scratch = torch.empty_like(parameters)
        device = parameters.device
        # a tensor, so that a captured step follows it when it changes
        self.learning_rate = torch.tensor(learning_rate, dtype=torch.float64, device=device)
        self.column = (len(parameters),) + (1,) * (parameters.dim() - 1)
        counted = parameters.shape if count_each else self.column
        # 1 - BETA**steps without counting on the host
        self.powers = torch.ones(2, *counted, dtype=torch.float64, device=device)
        betas = torch.tensor([BETA1, BETA2], dtype=torch.float64, device=device)
        self.betas = betas.view(2, *(1 for _ in self.column))
        self.ones = torch.ones_like(self.betas)
        self.rates = (1 - self.betas).to(parameters.dtype)

    def set_learning_rate(self, rate: float) -> None:
        """Take further steps with another learning rate."""
        self.learning_rate.fill_(rate)

    def step(self, gradient: Tensor, apply: Tensor) -> None:
        """Update the members marked in `apply` [P]; overwrites `gradient` [P, ...].

        The others keep parameters, moments and step count.
        """
        apply = apply.view(self.column)
        gradient.masked_fill_(~apply, 0.0)  # a member that diverged may hold NaN here
        applied = apply.to(gradient.dtype)
        if self.weight_decay:
            gradient.addcmul_(self.parameters, applied, value=self.weight_decay)
        self.powers.mul_(torch.where(apply, self.betas, self.ones))
        rate1, rate2 = self.rates * applied
        self.first.lerp_(gradient, rate1)
        torch.mul(gradient, gradient, out=self.scratch)
        self.second.lerp_(self.scratch, rate2)

        correction1, correction2 = (1 - self.powers).clamp_(min=1e-16)
        size = (correction1.reciprocal() * self.learning_rate).to(gradient.dtype) * applied
        scale = correction2.rsqrt().to(gradient.dtype)
        denominator = torch.sqrt(self.second, out=self.scratch).mul_(scale).add_(EPSILON)
        torch.div(self.first, denominator, out=denominator)
        self.parameters.addcmul_(denominator, size, value=-1.0)

    def state(self, member: int) -> dict[str, NDArray[Any]]:
        """Return moments [1, ...] and powers [2, 1, ...] of one member."""
        one = slice(member, member + 1)
        return {
            "first": to_array(self.first[one]),
            "second": to_array(self.second[one]),
            "powers": to_array(self.powers[:, one]),
        }

    def set_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take up the states of all members, in order, in place."""
        for member, state in enumerate(states):
            one = slice(member, member + 1)
            self.first[one].copy_(torch.from_numpy(state["first"]))
            self.second[one].copy_(torch.from_numpy(state["second"]))
            powers, given = self.powers[:, one], torch.from_numpy(state["powers"])
            # a member whose parameters are counted together, before or now: all powers are equal
            powers.copy_(given[tuple(map(slice, powers.shape))])
