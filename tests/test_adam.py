"""Adam for members that sit steps out, against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dstrl_cli.nets.adam import Adam


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torch_for_members_that_sit_steps_out(weight_decay: float) -> None:
    g = torch.Generator().manual_seed(3)
    start = torch.randn(3, 2, 5, generator=g)
    parameters = start.clone()
    adam = Adam(parameters, 0.01, weight_decay)
    theirs = [nn.Parameter(member.clone()) for member in start]
    optimizers = [torch.optim.Adam([p], 0.01, weight_decay=weight_decay) for p in theirs]
    for number in range(60):
        gradient = torch.randn(3, 2, 5, generator=g) * 10 ** (number % 4 - 2)
        apply = torch.tensor([True, number % 5 != 3, number >= 20])
        for member, optimizer in enumerate(optimizers):
            if apply[member]:
                theirs[member].grad = gradient[member].clone()
                optimizer.step()
        adam.step(torch.where(apply.view(3, 1, 1), gradient, math.nan), apply)
        for member in range(3):
            torch.testing.assert_close(parameters[member], theirs[member].detach())
        if number == 10:
            assert torch.equal(parameters[2], start[2])


def test_the_first_adam_step_is_the_learning_rate() -> None:
    """Bias correction in double precision: 0.999 in single precision is off by 1e-5 here."""
    parameters = torch.zeros(1, 4)
    Adam(parameters, 0.01).step(torch.full((1, 4), 3.0), torch.tensor([True]))
    torch.testing.assert_close(parameters, torch.full((1, 4), -0.01), rtol=5e-7, atol=0)
