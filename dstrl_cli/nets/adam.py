"""Adam for a population: every member has its own step count and may sit a step out.

Written over flat tensors `[P, ...]` so that one pass serves all members. L2 weight decay is added
to the gradient, as in Adam (not AdamW).
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam (Kingma & Ba 2015) on parameters `[P, ...]`, in place."""

    def __init__(self, parameters: Tensor, learning_rate: float, weight_decay: float = 0.0) -> None:
        self.parameters = parameters
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.first = torch.zeros_like(parameters)
        self.second = torch.zeros_like(parameters)
        self.scratch = torch.empty_like(parameters)
        column = (len(parameters),) + (1,) * (parameters.dim() - 1)
        # powers of the betas, [P, 1, ...]: 1 - BETA**steps without counting steps on the host
        self.power1 = torch.ones(column, dtype=torch.float64, device=parameters.device)
        self.power2 = torch.ones_like(self.power1)

    def step(self, gradient: Tensor, apply: Tensor) -> None:
        """Update the members marked in `apply` [P]; overwrites `gradient` [P, ...].

        The others keep parameters, moments and step count.
        """
        apply = apply.view(self.power1.shape)
        gradient.masked_fill_(~apply, 0.0)  # a member that diverged may hold NaN here
        if self.weight_decay:
            gradient.addcmul_(self.parameters, apply.to(gradient.dtype), value=self.weight_decay)
        self.power1.mul_(BETA1 ** apply.double())
        self.power2.mul_(BETA2 ** apply.double())
        applied = apply.to(gradient.dtype)
        self.first.lerp_(gradient, (1 - BETA1) * applied)
        torch.mul(gradient, gradient, out=self.scratch)
        self.second.lerp_(self.scratch, (1 - BETA2) * applied)

        correction1 = (1 - self.power1).clamp_(min=1e-16)
        correction2 = (1 - self.power2).clamp_(min=1e-16)
        size = (self.learning_rate / correction1).to(gradient.dtype) * applied
        scale = correction2.rsqrt().to(gradient.dtype)
        denominator = torch.sqrt(self.second, out=self.scratch).mul_(scale).add_(EPSILON)
        torch.div(self.first, denominator, out=denominator)
        self.parameters.addcmul_(denominator, size, value=-1.0)
