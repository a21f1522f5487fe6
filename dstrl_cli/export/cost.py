"""What one action of an exported policy costs, counted and not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dstrl_cli.export.network import Network, Scale

FLOAT = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class Cost:
    """The cost of a policy.

    Attributes:
        multiply_adds: multiplications of a weight by a value, each with its addition.
        constant_bytes: weights, biases, indices and action bounds (flash on a small device).
        ram_bytes: the values between layers, without observation and action.
    """

    multiply_adds: int
    constant_bytes: int
    ram_bytes: int


def buffer_sizes(network: Network) -> list[int]:
    """Return how many values each of the buffers holds, by turns, that layers write to."""
    written = [layer.outputs for layer in network.layers]
    return [max(written[first::2]) for first in range(min(2, len(written)))]


def scale_bytes(scale: Scale) -> int:
    """Return the bytes of the action bounds, none where actions are the outputs of tanh."""
    bounds: list[Any] = [scale.middle, scale.half, scale.low, scale.high]
    return sum(each.nbytes for each in bounds) if scale.is_needed else 0


def dense_cost(network: Network) -> Cost:
    """Return the cost where layers are whole matrices: idle neurons are gone, zeros are not."""
    products = sum(layer.weight.size for layer in network.layers)
    biases = sum(layer.outputs for layer in network.layers)
    constants = FLOAT * (products + biases) + scale_bytes(network.scale)
    return Cost(products, constants, FLOAT * sum(buffer_sizes(network)))
