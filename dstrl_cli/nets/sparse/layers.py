"""Compiled kernels of one layer: forward and backward, for one tile or for a whole batch.

A layer that has every connection is computed as a dense product, any other connection by
connection. See `kernels` for how connections and activations are laid out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dstrl_cli.compiler import inlined
from dstrl_cli.nets.sparse import dense, registers, simd

Array = Any  # NumPy arrays, typed by the compiler

_weighted_sum: Any = simd.weighted_sum
_gated_gradient, _added_gradient = simd.weighted_gradient(True), simd.weighted_gradient(False)
_products, _gated_products = simd.products(False), simd.products(True)

# what a layer with every connection takes at once, and one neuron of the rest
ROWS, (ABOVE, BELOW) = dense.ROWS, dense.BLOCK
_dense_sums, _dense_sum = dense.weighted_sums(ROWS), dense.weighted_sums(1)
_dense_gradients = dense.weighted_gradients(ROWS, True)
_dense_gradient = dense.weighted_gradients(1, True)
_dense_added, _dense_added_one = (
    dense.weighted_gradients(ROWS, False), dense.weighted_gradients(1, False),
)  # fmt: skip
_block_products = dense.inner_products(ABOVE, BELOW)
_row_products, _product = dense.inner_products(1, BELOW), dense.inner_products(1, 1)

NEAR = 32 * 1024 // (4 * registers.TILE)
"""Neurons whose tiles fill 32 KB. A dense layer's gradients are added up over so many at a time, so
that they, and the weights' cache lines, of which each neuron reads a part, stay in a near cache."""
NO_FLOOR = np.float32(-np.inf)


@inlined
def is_dense(ends: Array, first: int, count: int, width: int) -> bool:
    """Return whether `count` neurons from `first` on have all their `width` connections."""
    return ends[first + count] - ends[first] == count * width


@inlined
def layer_forward(
    rows: Array, row: int, index: Array, value: Array, bias: Array, x: Array, y: Array, relu: bool
) -> None:
    """Write y [out, T] = bias + sum of value * x[index], for the neurons from `row` on.

    x is [in, T]; rows and bias are one head's. `relu` clamps the result at zero.
    """
    biases, inputs, outputs = bias[row:], x.shape[0], y.shape[0]
    floor = np.float32(0.0) if relu else NO_FLOOR
    if is_dense(rows, row, outputs, inputs):
        begin = rows[row]
        if outputs < ROWS:
            for o in range(outputs):
                _dense_sum(value, begin + o * inputs, inputs, x, y, o, biases, floor)
        else:
            for step in range(0, outputs, ROWS):
                o = min(step, outputs - ROWS)  # the last ones overlap those before
                _dense_sums(value, begin + o * inputs, inputs, x, y, o, biases, floor)
    else:
        for o in range(outputs):
            begin, end = rows[row + o], rows[row + o + 1]
            _weighted_sum(value, index, begin, end, x, y, o, biases, floor)


@inlined
def sparse_gradients(
    columns: Array, column: int, source: Array, ordered: Array, g: Array, x: Array, y: Array,
    value_sums: Array, bias_sums: Array, gated: bool,
) -> None:  # fmt: skip
    """Add <x[i], g[source[e]]> over the tile to value_sums[e], for inputs i from `column` on.

    g is [out, T], x [in, T]; columns is one head's; `ordered` are the values in the order of
    `source`. With `gated`, y [in, T] takes the gradient of the neurons x before their ReLU, and
    bias_sums [in] its sums over the tile.
    """
    for i in range(x.shape[0]):
        begin, end = columns[column + i], columns[column + i + 1]
        if gated:
            _gated_products(ordered, source, begin, end, g, x, i, y, value_sums, bias_sums)
        else:
            _products(ordered, source, begin, end, g, x, i, y, value_sums, bias_sums)


@inlined
def sparse_backward(
    columns: Array, column: int, source: Array, ordered: Array, g: Array, x: Array, y: Array,
    gated: bool,
) -> None:  # fmt: skip
    """Take the sum of ordered * g[source], for the input neurons from `column` on, into y [in, T].

    g is [out, T]; columns is one head's; `ordered` are the values in the order of `source`. With
    `gated` the sum replaces y and is zero where x [in, T] is; else it is added to y.
    """
    for i in range(y.shape[0]):
        begin, end = columns[column + i], columns[column + i + 1]
        if gated:
            _gated_gradient(ordered, source, begin, end, g, y, i, x)
        else:
            _added_gradient(ordered, source, begin, end, g, y, i, x)


@inlined
def dense_backward(
    value: Array, begin: int, g: Array, x: Array, y: Array, bias_sums: Array, gated: bool
) -> None:
    """Do the same for a layer with every connection, whose values begin at value[begin].

    With `gated`, bias_sums [in] takes the sums of y over the tile.
    """
    inputs, outputs = y.shape[0], g.shape[0]
    whole = inputs - inputs % ROWS
    for first in range(0, outputs, NEAR):
        last = min(first + NEAR, outputs)
        for i in range(0, whole, ROWS):
            if gated:
                _dense_gradients(value, begin, inputs, outputs, g, y, i, x, bias_sums, first, last)
            else:
                _dense_added(value, begin, inputs, outputs, g, y, i, x, bias_sums, first, last)
        for i in range(whole, inputs):
            if gated:
                _dense_gradient(value, begin, inputs, outputs, g, y, i, x, bias_sums, first, last)
            else:
                _dense_added_one(value, begin, inputs, outputs, g, y, i, x, bias_sums, first, last)


CHUNK = 16
"""Neurons whose gradients at all tiles stay in the nearest cache while the inputs pass by."""


@inlined
def dense_gradients(
    g: Array, x: Array, value_grad: Array, begin: int, first: int, last: int
) -> None:
    """Write the gradients of a layer with every connection from value_grad[begin] on.

    g [tiles, out, T] are the gradients at its neurons, x [tiles, in, T] its inputs. Only those of
    the neurons from `first`, a multiple of `CHUNK`, up to `last` are written; where these are few,
    the same numbers are also written of neurons before them.
    """
    tiles, outputs, inputs = g.shape[0], g.shape[1], x.shape[1]
    g_stride, x_stride = g.strides[0] // g.itemsize, x.strides[0] // x.itemsize
    above = ABOVE if outputs >= ABOVE and inputs >= BELOW else 1
    below = BELOW if inputs >= BELOW else 1
    for chunk in range(first, last, CHUNK):
        for i_step in range(0, inputs, below):
            i = min(i_step, inputs - below)  # the last ones overlap those before
            for o_step in range(chunk, min(chunk + CHUNK, last), above):
                o = min(o_step, outputs - above)
                at = begin + o * inputs + i
                if above > 1:
                    _block_products(g, g_stride, o, x, x_stride, i, tiles, value_grad, at, inputs)
                elif below > 1:
                    _row_products(g, g_stride, o, x, x_stride, i, tiles, value_grad, at, inputs)
                else:
                    _product(g, g_stride, o, x, x_stride, i, tiles, value_grad, at, inputs)


SOURCES = (__file__, simd.__file__, dense.__file__, registers.__file__)
"""Files from which code is taken into that of a module that uses this one."""
