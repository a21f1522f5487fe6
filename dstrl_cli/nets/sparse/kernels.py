"""Compiled kernels of the sparse engine: products that run over active connections only.

A network of K heads keeps the rows (output neurons) of all its layers one after the other: row r
of head k owns the connections `rows[k, r]` to `rows[k, r + 1]` of `index` (input neuron) and
`value`. Activations are tiles `[tile, neuron, T]`: T rows of the batch lie side by side for every
neuron, so that a connection is a few vector operations. One call runs a whole network forward or
backward. Single-threaded; releases the interpreter lock; compiled once and cached on disk.

What binds, measured on an Intel Xeon (AVX-512 at 2.5 GHz: 160 GFLOP/s; 48 KB L1, 2 MB L2), batch
256. A layer with every connection reaches 130 to 160 GFLOP/s: several neurons share each number
that is loaded. A sparse connection needs four loads of activations, one of its value and one of its
index for four multiplications: three cycles where two would do. Most neurons have so few of them
(8 at 256 units and 95 %) that writing a neuron's tile and leaving its loop take as long as its
sums: 40 to 75 GFLOP/s. Whether a tile fits into L1 matters less: with T = 32 (32 KB of activations
at 256 units) sparse updates take 15 to 37 % longer than with T = 64, as an index and a value serve
half as many rows; with T = 128 whole steps take as long at 256 units, 3 % more at 2048 and 95 %,
and layers with half or all of their connections 16 to 24 % more. So T depends on the registers
only. At 2048 units the inputs of a connection come from L2, and the index, values and sums that
every tile reads do not fit there beside them. To take them in blocks that fit into L1 does not pay
at 95 %: a neuron's sums are then loaded and stored once a block, which takes as long or longer (0.6
to 1.02 of the speed with blocks of 96 to 512 inputs; at 80 % it would be 1.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dstrl_cli.compiler import discard_stale, inlined, inner, jit
from dstrl_cli.nets.sparse.layers import SOURCES as LAYER_SOURCES
from dstrl_cli.nets.sparse.layers import (
    dense_backward,
    dense_gradients,
    is_dense,
    layer_forward,
    sparse_backward,
    sparse_gradients,
)
from dstrl_cli.nets.sparse.registers import TILE

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars

WHOLE = 64
"""Numbers that a loop takes at once, at the most."""


@inlined
def copy(x: Array, y: Array) -> None:
    """Write contiguous x into y of the same shape.

    What `y[:] = x` compiles besides, to word its error for other shapes, takes seconds.
    """
    given, taken = x.reshape(-1), y.reshape(-1)
    for i in range(given.shape[0]):
        taken[i] = given[i]


@inlined
def share_of(begin: int, end: int, part: int, parts: int) -> tuple[int, int]:
    """Return where a part of what lies from `begin` to `end` begins and ends.

    Parts begin at multiples of whole vectors, so that numbers do not depend on how many there are.
    """
    each = -(-(end - begin) // parts)
    each += -each % WHOLE
    first = min(begin + each * part, end)
    return first, min(first + each, end)


@inner
def into_tiles(x: Array, out: Array) -> None:
    """Write x [B, n] into out [tiles, n, T]; rows past the batch are zero."""
    size, width = out.shape[2], x.shape[1]
    for tile in range(out.shape[0]):
        rows = min(size, x.shape[0] - tile * size)
        part = x[tile * size : tile * size + rows].ravel()
        for n in range(width):
            neuron = out[tile, n]
            for j in range(rows):
                neuron[j] = part[j * width + n]
            for j in range(rows, size):
                neuron[j] = np.float32(0.0)


@jit
def out_of_tiles(x: Array, out: Array) -> None:
    """Write x [tiles, n, T] into out [B, n]."""
    size = x.shape[2]
    for tile in range(x.shape[0]):
        for j in range(min(size, out.shape[0] - tile * size)):
            for n in range(out.shape[1]):
                out[tile * size + j, n] = x[tile, n, j]


@inlined
def head_forward(
    sizes: Array, rows: Array, index: Array, value: Array, bias: Array, first: Array, hidden: Array
) -> None:
    """Run one tile of one head: first [in, T] into hidden [R, T]; rows and bias are the head's."""
    layers, row, below = sizes.shape[0] - 1, 0, first
    for layer in range(layers):
        width = sizes[layer + 1]
        here = hidden[row : row + width]
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
    layers = sizes.shape[0] - 1
    for k in range(out.shape[0]):
        tiles = hidden[k % hidden.shape[0]]
        for tile in range(tiles.shape[0]):
            head_forward(sizes, rows[k], index, value, bias[k], first[tile], tiles[tile])
        out_of_tiles(tiles[:, tiles.shape[1] - sizes[layers] :], out[k])


@inlined
def in_order(
    value: Array, columns: Array, position: Array, full: Array, sizes: Array,
    ordered: Array, value_sums: Array, part: int, parts: int,
) -> None:  # fmt: skip
    """Put one head's values into `ordered` by input neuron, and zeros into value_sums.

    Layers that are `full` need neither. Of each layer this is the part of this number.
    """
    column = 0
    for layer in range(full.shape[0]):
        if not full[layer]:
            begin, end = share_of(columns[column], columns[column + sizes[layer]], part, parts)
            for several in range(value_sums.shape[0]):
                value_sums[several, begin:end] = np.float32(0.0)
            for e in range(begin, end):
                ordered[e] = value[position[e]]
        column += sizes[layer]


@inlined
def head_backward(
    sizes: Array, full: Array, value: Array, columns: Array, source: Array, ordered: Array,
    value_sums: Array, bias_sums: Array, first: Array, hidden: Array, below_grad: Array,
    grad_first: Array, weights: bool, wanted: int,
) -> None:  # fmt: skip
    """Backpropagate one tile of one head, whose last neurons have their gradient already.

    The gradients of the inputs from number `wanted` on are added to grad_first.
    """
    layers = full.shape[0]
    row, column = hidden.shape[0], columns.shape[0] - 1
    for layer in range(layers - 1, -1, -1):
        row -= sizes[layer + 1]
        column -= sizes[layer]
        g = below_grad[row : row + sizes[layer + 1]]
        gated = layer > 0
        if gated:
            below = slice(row - sizes[layer], row)
            x, y, sums = hidden[below], below_grad[below], bias_sums[below]
        else:
            x, y, sums = first, grad_first, bias_sums[:0]
        if full[layer]:
            if gated or wanted < first.shape[0]:
                dense_backward(value, columns[column], g, x, y, sums, gated)
            continue
        if weights:
            sparse_gradients(columns, column, source, ordered, g, x, y, value_sums, sums, gated)
        if layer == 0:
            sparse_backward(
                columns, column + wanted, source, ordered, g, x[wanted:], y[wanted:], gated
            )
        elif not weights:
            sparse_backward(columns, column, source, ordered, g, x, y, gated)


@inlined
def head_gradients(
    sizes: Array, full: Array, columns: Array, position: Array, value_sums: Array,
    first: Array, hidden: Array, below_grad: Array, value_grad: Array, part: int, parts: int,
) -> None:  # fmt: skip
    """Write the gradients of one head's values, those of sparse layers from value_sums.

    value_sums are added up from the first row [connections] on. Of each layer this is the part of
    this number.
    """
    row = column = 0
    for layer in range(full.shape[0]):
        begin, end = columns[column], columns[column + sizes[layer]]
        if full[layer]:
            g = below_grad[:, row : row + sizes[layer + 1]]
            x = first if layer == 0 else hidden[:, row - sizes[layer] : row]
            neurons = share_of(0, sizes[layer + 1], part, parts)
            dense_gradients(g, x, value_grad, begin, *neurons)
        else:
            here, there = share_of(begin, end, part, parts)
            for several in range(1, value_sums.shape[0]):
                for e in range(here, there):
                    value_sums[0, e] += value_sums[several, e]
            for e in range(here, there):
                value_grad[position[e]] = value_sums[0, e]
        column += sizes[layer]
        row += sizes[layer + 1]


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
    neuron; `ordered` has room for their values in that order, value_sums [1, connections] for
    their gradients and bias_sums [K, tiles, R] for those of the biases tile by tile.
    """
    layers = sizes.shape[0] - 1
    tiles, neurons = hidden.shape[1], hidden.shape[2]
    last = neurons - sizes[layers]
    full = np.zeros(layers, np.bool_)
    wanted = 0 if inputs else sizes[0]
    if inputs:
        grad_first[:] = np.float32(0.0)
    for k in range(grad.shape[0]):
        column = 0
        for layer in range(layers):
            full[layer] = is_dense(columns[k], column, sizes[layer], sizes[layer + 1])
            column += sizes[layer]
        in_order(value, columns[k], position, full, sizes, ordered, value_sums, 0, 1)
        into_tiles(grad[k], below_grad[k, :, last:])
        for tile in range(tiles):
            head_backward(
                sizes, full, value, columns[k], source, ordered, value_sums[0], bias_sums[k, tile],
                first[tile], hidden[k, tile], below_grad[k, tile], grad_first[tile],
                weights, wanted,
            )  # fmt: skip
        if weights:
            head_gradients(
                sizes, full, columns[k], position, value_sums,
                first, hidden[k], below_grad[k], value_grad, 0, 1,
            )  # fmt: skip
            bias_grad[k] = np.float32(0.0)
            for tile in range(tiles):
                for r in range(last, neurons):
                    bias_sums[k, tile, r] = below_grad[k, tile, r].sum()
                for r in range(neurons):
                    bias_grad[k, r] += bias_sums[k, tile, r]


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
_LEVELS = ((20, 11), (10, 10), (0, 10))
"""Lowest bit and number of bits, from the highest ones of a non-negative float on."""


@inner
def smallest(magnitudes: Array, k: int) -> Float:
    """Return the k-th smallest (from 0) of non-negative floats.

    Their bits, read as integers, have the same order: count them in buckets by their highest bits,
    go on with the one bucket in which the k-th lies, and so on with the bits below.
    """
    left, below = magnitudes, k
    for shift, width in _LEVELS:
        bits, mask = left.view(np.uint32), (1 << width) - 1
        counts = np.zeros(1 << width, np.int64)
        for i in range(bits.shape[0]):
            counts[(bits[i] >> shift) & mask] += 1
        bucket = 0
        while counts[bucket] <= below:
            below -= counts[bucket]
            bucket += 1
        inside = np.empty(counts[bucket], np.float32)
        found = 0
        for i in range(bits.shape[0]):
            if (bits[i] >> shift) & mask == bucket:
                inside[found] = left[i]
                found += 1
        left = inside
    return left[0]  # all that are left are equal


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


FUNCTIONS = (forward, backward, out_of_tiles, adam, blend)
SOURCES = (__file__, *LAYER_SOURCES)

discard_stale(forward, SOURCES)


def compile_all() -> None:
    """Compile what most runs need, or load it from disk; the rest is compiled at its first use."""
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
    blend(floats, floats, one)
