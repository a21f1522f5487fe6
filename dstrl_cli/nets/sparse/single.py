"""One observation through a network of the sparse engine: what acting needs at every step.

A tile of a whole batch for one row would be work for nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dstrl_cli.compiler import inner

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars


@inner
def weighted_sum(index: Array, value: Array, begin: int, end: int, x: Array, width: int) -> Float:
    """Return the sum of value[k] * x[index[k]] for k in [begin, end); width is the length of x."""
    total = np.float32(0.0)
    if end - begin == width:  # every connection: x is read as it lies
        for i in range(width):
            total += value[begin + i] * x[i]
    else:
        for k in range(begin, end):
            total += value[k] * x[index[k]]
    return total


@inner
def forward_row(
    sizes: Array, rows: Array, index: Array, value: Array, bias: Array, x: Array, room: Array
) -> Array:
    """Return the outputs of one head of a ReLU network for x [in]; see `kernels.forward`.

    rows and bias are the head's; room [2, widest layer] takes every other layer in turn, and the
    outputs in the end.
    """
    layers, row, below = sizes.shape[0] - 1, 0, x
    for layer in range(layers):
        here = room[layer % 2]
        for o in range(sizes[layer + 1]):
            begin, end = rows[row + o], rows[row + o + 1]
            total = bias[row + o] + weighted_sum(index, value, begin, end, below, sizes[layer])
            if layer < layers - 1 and total < np.float32(0.0):
                total = np.float32(0.0)
            here[o] = total
        row += sizes[layer + 1]
        below = here
    return below
