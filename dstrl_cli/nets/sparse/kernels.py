"""Compiled kernels of the sparse engine: products that run over active connections only.

A network of K heads keeps the rows (output neurons) of all its layers one after the other: row r
of head k owns the connections `rows[k, r]` to `rows[k, r + 1]` of `index` (input neuron) and
`value`. Activations are tiles `[tile, neuron, T]`: T rows of the batch lie side by side for every
neuron, so that a connection is a few vector operations, and the numbers of a tile stay in the
nearest cache. One call runs a whole network forward or backward. Single-threaded; releases the
interpreter lock; compiled once and cached on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dstrl_cli.compiler import discard_stale, jit
from dstrl_cli.nets.sparse import simd

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars
VECTORS = 4
TILE = VECTORS * simd.LANES
"""T: rows of the batch in one tile. With four vectors, additions overlap that would wait alone."""

DENSE_ROWS = 4
"""Neurons that a dense layer takes at once."""

_relu_sum, _plain_sum = simd.weighted_sum(VECTORS, "relu"), simd.weighted_sum(VECTORS, "plain")
_gated_sum, _added_sum = simd.weighted_sum(VECTORS, "gate"), simd.weighted_sum(VECTORS, "add")
_dense_relu_sum = simd.weighted_sum(VECTORS, "relu", DENSE_ROWS)
_dense_plain_sum = simd.weighted_sum(VECTORS, "plain", DENSE_ROWS)
_dense_added_sum = simd.weighted_sum(VECTORS, "add", DENSE_ROWS)
_products, _gated_products = simd.products(VECTORS, False), simd.products(VECTORS, True)


@jit
def into_tiles(x: Array, out: Array) -> None:
    """Write x [B, n] into out [tiles, n, T]; rows past the batch are zero."""
    size = out.shape[2]
    for tile in range(out.shape[0]):
        rows = min(size, x.shape[0] - tile * size)
        for j in range(rows):
            for n in range(x.shape[1]):
                out[tile, n, j] = x[tile * size + j, n]
        for n in range(x.shape[1]):
            for j in range(rows, size):
                out[tile, n, j] = np.float32(0.0)


@jit
def out_of_tiles(x: Array, out: Array) -> None:
    """Write x [tiles, n, T] into out [B, n]."""
    size = x.shape[2]
    for tile in range(x.shape[0]):
        for j in range(min(size, out.shape[0] - tile * size)):
            for n in range(out.shape[1]):
                out[tile * size + j, n] = x[tile, n, j]


@jit
def dense_rows(ends: Array, row: int, count: int, width: int) -> int:
    """Return how many of a layer's `count` rows are computed as dense products.

    None unless every row has all `width` connections; then all but those beyond a multiple of four.
    """
    if ends[row + count] - ends[row] < count * width:
        return 0
    return count - count % DENSE_ROWS


@jit
def layer_forward(
    rows: Array, row: int, index: Array, value: Array, bias: Array, x: Array, y: Array, relu: bool
) -> None:
    """Write y [out, T] = bias + sum of value * x[index], for the neurons from `row` on.

    x is [in, T]; rows and bias are one head's. `relu` clamps the result at zero.
    """
    biases = bias[row:]
    dense = dense_rows(rows, row, y.shape[0], x.shape[0])
    for o in range(0, dense, DENSE_ROWS):
        begin, end = rows[row + o], rows[row + o + 1]
        if relu:
            _dense_relu_sum(value, index, begin, end, biases, x, x, y, o)
        else:
            _dense_plain_sum(value, index, begin, end, biases, x, x, y, o)
    for o in range(dense, y.shape[0]):
        begin, end = rows[row + o], rows[row + o + 1]
        if relu:
            _relu_sum(value, index, begin, end, biases, x, x, y, o)
        else:
            _plain_sum(value, index, begin, end, biases, x, x, y, o)


@jit
def head_forward(
    sizes: Array, rows: Array, index: Array, value: Array, bias: Array, first: Array, tiles: Array
) -> None:
    """Run one head on first [tiles, in, T]; see `forward`. rows, bias and tiles are the head's."""
    layers = sizes.shape[0] - 1
    for tile in range(tiles.shape[0]):
        below = first[tile]
        row = 0
        for layer in range(layers):
            width = sizes[layer + 1]
            here = tiles[tile, row : row + width]
            layer_forward(rows, row, index, value, bias, below, here, layer < layers - 1)
            below = here
            row += width


@jit
def forward(
    x: Array, sizes: Array, rows: Array, index: Array, value: Array, bias: Array,
    first: Array, hidden: Array, out: Array,
) -> None:  # fmt: skip
    """Run K heads of a ReLU network on one batch.

    x [B, in] is put into first [tiles, in, T]; hidden [K, tiles, R, T] takes every neuron's
    activation (or [1, tiles, R, T], which the heads fill in turn), out [K, B, outputs] the last
    layer. sizes are input, hidden and output sizes; bias is [K, R].
    """
    into_tiles(x, first)
    for k in range(out.shape[0]):
        tiles = hidden[k % hidden.shape[0]]
        head_forward(sizes, rows[k], index, value, bias[k], first, tiles)
        out_of_tiles(tiles[:, tiles.shape[1] - sizes[sizes.shape[0] - 1] :], out[k])


@jit
def layer_gradients(
    columns: Array, column: int, source: Array, ordered: Array, g: Array, x: Array, y: Array,
    value_sums: Array, bias_sums: Array, gated: bool,
) -> None:  # fmt: skip
    """Write value_sums[e] = <x[i], g[source[e]]> over the tile, for inputs i from `column` on.

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


@jit
def layer_backward(
    columns: Array, column: int, source: Array, ordered: Array, zeros: Array, g: Array,
    activation: Array, y: Array, gated: bool,
) -> None:  # fmt: skip
    """Take the sum of ordered * g[source], for the input neurons from `column` on, into y [in, T].

    g is [out, T]; columns is one head's; `ordered` are the values in the order of `source`; zeros
    is [in]. With `gated` the sum replaces y and is zero where the activation [in, T] is; else it
    is added to y.
    """
    dense = 0 if gated else dense_rows(columns, column, y.shape[0], g.shape[0])
    for i in range(0, dense, DENSE_ROWS):
        begin, end = columns[column + i], columns[column + i + 1]
        _dense_added_sum(ordered, source, begin, end, zeros, g, g, y, i)
    for i in range(dense, y.shape[0]):
        begin, end = columns[column + i], columns[column + i + 1]
        if gated:
            _gated_sum(ordered, source, begin, end, zeros, g, activation, y, i)
        else:
            _added_sum(ordered, source, begin, end, zeros, g, g, y, i)


@jit
def add_up(parts: Array) -> None:
    """Add the other rows of parts [tiles, n] to the first."""
    for part in range(1, parts.shape[0]):
        for i in range(parts.shape[1]):
            parts[0, i] += parts[part, i]


@jit
def head_backward(
    k: int, sizes: Array, value: Array, columns: Array, source: Array, position: Array,
    ordered: Array, value_sums: Array, bias_sums: Array,
    first: Array, hidden: Array, below_grad: Array, value_grad: Array, bias_grad: Array,
    grad_first: Array, weights: bool, inputs: bool,
) -> None:  # fmt: skip
    """Backpropagate through head k, whose outputs' gradients are in below_grad; see `backward`.

    Adds to grad_first.
    """
    layers = sizes.shape[0] - 1
    tiles, neurons = hidden.shape[1], hidden.shape[2]
    zeros = np.zeros(sizes.max(), np.float32)
    begin, end = columns[k, 0], columns[k, columns.shape[1] - 1]
    for e in range(begin, end):
        ordered[e] = value[position[e]]
    for tile in range(tiles):
        row = neurons
        column = columns.shape[1] - 1
        for layer in range(layers - 1, -1, -1):
            row -= sizes[layer + 1]
            column -= sizes[layer]
            here = below_grad[k, tile, row : row + sizes[layer + 1]]
            below = slice(row - sizes[layer], row) if layer > 0 else slice(0, 0)
            if layer > 0:
                x, y = hidden[k, tile, below], below_grad[k, tile, below]
            else:
                x, y = first[tile], grad_first[tile]
            if weights:
                layer_gradients(
                    columns[k], column, source, ordered, here, x, y,
                    value_sums[tile], bias_sums[k, tile, below], layer > 0,
                )  # fmt: skip
            elif layer > 0:
                layer_backward(columns[k], column, source, ordered, zeros, here, x, y, True)
            if layer == 0 and inputs:
                layer_backward(columns[k], column, source, ordered, zeros, here, x, y, False)
    if weights:
        for tile in range(tiles):
            for r in range(neurons - sizes[layers], neurons):
                bias_sums[k, tile, r] = below_grad[k, tile, r].sum()
        add_up(value_sums[:, begin:end])
        for e in range(begin, end):
            value_grad[position[e]] = value_sums[0, e]
        add_up(bias_sums[k])
        bias_grad[k] = bias_sums[k, 0]


@jit
def backward(
    grad: Array, sizes: Array, value: Array, columns: Array, source: Array, position: Array,
    ordered: Array, value_sums: Array, bias_sums: Array,
    first: Array, hidden: Array, below_grad: Array, value_grad: Array, bias_grad: Array,
    grad_first: Array, weights: bool, inputs: bool,
) -> None:  # fmt: skip
    """Backpropagate grad [K, B, outputs] through the last `forward`.

    below_grad [K, tiles, R, T] takes the gradient at every neuron. With `weights`, value_grad and
    bias_grad [K, R] take the parameters' gradients; with `inputs`, grad_first [tiles, in, T] the
    input's, summed over the heads. columns, source and position list the connections by input
    neuron; `ordered` has room for their values in that order, value_sums [tiles, connections] and
    bias_sums [K, tiles, R] for the gradients tile by tile.
    """
    if inputs:
        grad_first[:] = np.float32(0.0)
    for k in range(grad.shape[0]):
        into_tiles(grad[k], below_grad[k, :, hidden.shape[2] - sizes[sizes.shape[0] - 1] :])
        head_backward(
            k, sizes, value, columns, source, position, ordered, value_sums, bias_sums, first,
            hidden, below_grad, value_grad, bias_grad, grad_first, weights, inputs,
        )  # fmt: skip


@jit
def adam(
    parameters: Array, gradient: Array, first: Array, second: Array,
    size: Float, scale: Float, weight_decay: Float, beta1: Float, beta2: Float, epsilon: Float,
) -> None:  # fmt: skip
    """Take one Adam step in place; size = rate / (1 - beta1^t), scale = 1 / sqrt(1 - beta2^t)."""
    for i in range(parameters.shape[0]):
        g = gradient[i] + weight_decay * parameters[i]
        m = first[i] + (g - first[i]) * (np.float32(1.0) - beta1)
        v = second[i] + (g * g - second[i]) * (np.float32(1.0) - beta2)
        first[i] = m
        second[i] = v
        parameters[i] -= size * m / (np.sqrt(v) * scale + epsilon)


@jit
def adam_by_connection(
    parameters: Array, gradient: Array, first: Array, second: Array, steps: Array,
    sizes: Array, scales: Array, weight_decay: Float, beta1: Float, beta2: Float, epsilon: Float,
) -> None:  # fmt: skip
    """Take one Adam step in place, corrected by each parameter's own number of `steps` so far.

    sizes[t] and scales[t] are `size` and `scale` of `adam` at step t. Steps are counted up to the
    last of them, from which on the correction is one.
    """
    last = sizes.shape[0] - 1
    for i in range(parameters.shape[0]):
        t = min(int(steps[i]) + 1, last)
        steps[i] = t
        g = gradient[i] + weight_decay * parameters[i]
        m = first[i] + (g - first[i]) * (np.float32(1.0) - beta1)
        v = second[i] + (g * g - second[i]) * (np.float32(1.0) - beta2)
        first[i] = m
        second[i] = v
        parameters[i] -= sizes[t] * m / (np.sqrt(v) * scales[t] + epsilon)


@jit
def blend(target: Array, online: Array, tau: Float) -> None:
    """Move target by tau towards online, in place."""
    for i in range(target.shape[0]):
        target[i] += tau * (online[i] - target[i])


_NO_INDEX = np.int32(2**31 - 1)
_BUCKET_BITS = 20  # lowest bits of a float that its bucket ignores: 2^11 buckets for 31 bits


@jit
def smallest(magnitudes: Array, k: int) -> Float:
    """Return the k-th smallest (from 0) of non-negative floats.

    Their bits, read as integers, have the same order: count them in buckets by their highest bits,
    then search the one bucket in which the k-th lies.
    """
    bits = magnitudes.view(np.uint32)
    counts = np.zeros(1 << (31 - _BUCKET_BITS), np.int64)
    for i in range(bits.shape[0]):
        counts[bits[i] >> _BUCKET_BITS] += 1
    bucket, below = 0, 0
    while below + counts[bucket] <= k:
        below += counts[bucket]
        bucket += 1
    inside = np.empty(counts[bucket], np.float32)
    found = 0
    for i in range(bits.shape[0]):
        if bits[i] >> _BUCKET_BITS == bucket:
            inside[found] = magnitudes[i]
            found += 1
    return np.partition(inside, k - below)[k - below]


@jit
def blend_union(
    rows: Array, index: Array, value: Array, online_rows: Array, online_index: Array,
    online_value: Array, tau: Float, budgets: Array, layer_rows: Array,
    new_rows: Array, new_index: Array, new_value: Array,
    union_rows: Array, union_index: Array, union_value: Array,
) -> None:  # fmt: skip
    """Blend a target with a topology of its own towards the network, then trim it (SOK Alg. 3).

    The blend lives on the union of both topologies; of every layer of every head only the
    `budgets[k, layer]` largest magnitudes stay. layer_rows are the first rows of the layers.
    """
    stay, zero = np.float32(1.0) - tau, np.float32(0.0)
    written = 0
    for k in range(rows.shape[0]):
        new_rows[k, 0] = written
        for layer in range(layer_rows.shape[0] - 1):
            begin_row, end_row = layer_rows[layer], layer_rows[layer + 1]
            count = 0
            for r in range(begin_row, end_row):
                union_rows[r - begin_row] = count
                a, a_end = rows[k, r], rows[k, r + 1]
                b, b_end = online_rows[k, r], online_rows[k, r + 1]
                while a < a_end or b < b_end:
                    # Branch-free: which index comes first is unpredictable.
                    i = index[a] if a < a_end else _NO_INDEX
                    j = online_index[b] if b < b_end else _NO_INDEX
                    mine, theirs = i <= j, j <= i
                    old = value[a] if mine else zero
                    new = online_value[b] if theirs else zero
                    union_index[count] = min(i, j)
                    union_value[count] = stay * old + tau * new
                    a += mine
                    b += theirs
                    count += 1
            union_rows[end_row - begin_row] = count
            budget = budgets[k, layer]
            threshold = np.float32(-1.0)
            spare = 0  # entries of exactly the threshold that stay
            if count > budget:
                magnitudes = np.abs(union_value[:count])
                threshold = smallest(magnitudes, count - budget)
                larger = 0
                for i in range(count):
                    if magnitudes[i] > threshold:
                        larger += 1
                spare = budget - larger
            for r in range(begin_row, end_row):
                for i in range(union_rows[r - begin_row], union_rows[r - begin_row + 1]):
                    magnitude = abs(union_value[i])
                    keep = magnitude > threshold
                    if not keep and magnitude == threshold and spare > 0:
                        keep = True
                        spare -= 1
                    if keep:
                        new_index[written] = union_index[i]
                        new_value[written] = union_value[i]
                        written += 1
                new_rows[k, r + 1] = written


FUNCTIONS = (forward, backward, out_of_tiles, adam, adam_by_connection, blend, blend_union)
SOURCES = (__file__, simd.__file__)

discard_stale(forward, SOURCES)


def compile_all() -> None:
    """Compile every kernel, or load it from disk."""
    floats, one = np.zeros(2, np.float32), np.float32(1.0)
    sizes, rows = np.array([1, 1, 1]), np.array([[0, 1, 2]], np.int32)
    index, bias = np.zeros(2, np.int32), np.zeros((1, 2), np.float32)
    x, first = np.zeros((1, 1), np.float32), np.zeros((1, 1, TILE), np.float32)
    hidden, out = np.zeros((1, 1, 2, TILE), np.float32), np.zeros((1, 1, 1), np.float32)
    forward(x, sizes, rows, index, floats, bias, first, hidden, out)
    backward(
        out, sizes, floats, rows, index, index, floats.copy(), bias.copy(),
        hidden[..., 0].copy(), first, hidden,
        hidden.copy(), floats, bias, first.copy(), True, True,
    )  # fmt: skip
    out_of_tiles(first, x)
    adam(floats, floats, floats, floats, one, one, one, one, one, one)
    adam_by_connection(
        floats, floats, floats, floats, floats.copy(), floats, floats, one, one, one, one
    )
    blend(floats, floats, one)
    blend_union(
        rows, index, floats, rows, index, floats, one, np.ones((1, 2), np.int64),
        np.array([0, 1, 2]), rows.copy(), index.copy(), floats.copy(),
        np.zeros(3, np.int64), np.zeros(4, np.int32), np.zeros(4, np.float32),
    )  # fmt: skip
