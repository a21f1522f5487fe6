"""Strengths of neurons from active connections alone, without dense matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def neuron_strengths(
    sizes: Sequence[int], rows: NDArray[Any], index: NDArray[Any], values: NDArray[Any]
) -> list[Tensor]:
    """Return the sums of |weight| over each neuron's connections, [1, K, n_0] to [1, K, n_L].

    Outgoing connections of input neurons, incoming ones of all others; float64.

    Args:
        sizes: neurons of every layer.
        rows, index, values: of the network (see `kernels`).
    """
    heads, magnitudes = len(rows), np.abs(values)
    neurons = rows.shape[1] - 1
    numbers = np.repeat(np.arange(heads * neurons), np.diff(rows, axis=1).ravel())
    incoming = np.bincount(numbers, magnitudes, heads * neurons).reshape(heads, neurons)
    outgoing = np.stack(
        [
            np.bincount(index[begin:end], magnitudes[begin:end], sizes[0])
            for begin, end in zip(rows[:, 0], rows[:, sizes[1]], strict=True)
        ]
    )
    layers = np.split(incoming, np.cumsum(sizes[1:-1]), axis=1)
    return [torch.from_numpy(layer).unsqueeze(0) for layer in (outgoing, *layers)]
