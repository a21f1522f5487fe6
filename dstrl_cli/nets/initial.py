"""Initial weights of one multilayer perceptron, by the scheme named in the configuration."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def fan_in(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights [in, out] and biases [out] uniform in +-1/sqrt(in): PyTorch's default, TD3's code."""
    bound = 1.0 / math.sqrt(inputs)
    weight = torch.empty(inputs, outputs).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(outputs).uniform_(-bound, bound, generator=generator)


def orthogonal(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Orthogonal weights [in, out] and zero biases: RLX's code for SAC."""
    weight = torch.empty(outputs, inputs)
    torch.nn.init.orthogonal_(weight, generator=generator)
    return weight.T.contiguous(), torch.zeros(outputs)


def xavier(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Xavier-uniform weights [in, out] and zero biases: the SAC code that SOK builds on."""
    weight = torch.empty(outputs, inputs)
    torch.nn.init.xavier_uniform_(weight, generator=generator)
    return weight.T.contiguous(), torch.zeros(outputs)


SCHEMES: dict[str, Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "fan_in": fan_in,
    "orthogonal": orthogonal,
    "xavier": xavier,
}
