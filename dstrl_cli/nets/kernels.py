"""Compiled kernels of the sparse engine: products that run over active connections only.

A network of K heads keeps the rows (output neurons) of all its layers one after the other: row r
of head k owns the connections `rows[k, r]` to `rows[k, r + 1]` of `index` (input neuron) and
`value`. Activations are stored feature-major, `[neuron, batch]`, so that one connection is one
pass over contiguous memory; several connections share each pass. One call serves a whole network
and direction. Single-threaded; releases the interpreter lock; compiled once and cached on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars
_jit: Any = numba.njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    # Sums may be reassociated, so that they vectorise; NaN and infinity keep their meaning.
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)


@_jit
def layer_forward(
    rows: Array, row: int, index: Array, value: Array, bias: Array, x: Array, y: Array, relu: bool
) -> None:
    """Write y [out, B] = bias + sum of value * x[index], for the neurons from `row` on.

    x is [in, B]; rows and bias are one head's. `relu` clamps the result at zero.
    """
    batch = x.shape[1]
    zero = np.float32(0.0)
    for o in range(y.shape[0]):
        k, end, b = rows[row + o], rows[row + o + 1], bias[row + o]
        for j in range(batch):
            y[o, j] = b
        while k + 8 <= end:
            v0, v1, v2, v3 = value[k], value[k + 1], value[k + 2], value[k + 3]
            v4, v5, v6, v7 = value[k + 4], value[k + 5], value[k + 6], value[k + 7]
            i0, i1, i2, i3 = index[k], index[k + 1], index[k + 2], index[k + 3]
            i4, i5, i6, i7 = index[k + 4], index[k + 5], index[k + 6], index[k + 7]
            for j in range(batch):
                y[o, j] += (
                    v0 * x[i0, j] + v1 * x[i1, j] + v2 * x[i2, j] + v3 * x[i3, j]
                    + v4 * x[i4, j] + v5 * x[i5, j] + v6 * x[i6, j] + v7 * x[i7, j]
                )  # fmt: skip
            k += 8
        if k + 4 <= end:
            v0, v1, v2, v3 = value[k], value[k + 1], value[k + 2], value[k + 3]
            i0, i1, i2, i3 = index[k], index[k + 1], index[k + 2], index[k + 3]
            for j in range(batch):
                y[o, j] += v0 * x[i0, j] + v1 * x[i1, j] + v2 * x[i2, j] + v3 * x[i3, j]
            k += 4
        if k + 2 <= end:
            v0, v1, i0, i1 = value[k], value[k + 1], index[k], index[k + 1]
            for j in range(batch):
                y[o, j] += v0 * x[i0, j] + v1 * x[i1, j]
            k += 2
        if k < end:
            v0, i0 = value[k], index[k]
            for j in range(batch):
                y[o, j] += v0 * x[i0, j]
        if relu:
            for j in range(batch):
                y[o, j] = max(y[o, j], zero)


@_jit
def transposed(x: Array, out: Array) -> None:
    """Write x [batch, n] into out [n, batch]."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j, i] = x[i, j]


@_jit
def forward(
    x: Array, sizes: Array, rows: Array, index: Array, value: Array, bias: Array,
    first: Array, hidden: Array, out: Array,
) -> None:  # fmt: skip
    """Run K heads of a ReLU network on one batch.

    x [B, in] is transposed into first [in, B]; hidden [K, R, B] takes every neuron's activation
    (or [1, R, B], which the heads fill in turn), out [K, B, outputs] the last layer. sizes are
    input, hidden and output sizes; bias is [K, R].
    """
    transposed(x, first)
    layers = sizes.shape[0] - 1
    for k in range(out.shape[0]):
        below = first
        row = 0
        for layer in range(layers):
            width = sizes[layer + 1]
            here = hidden[k % hidden.shape[0], row : row + width]
            layer_forward(rows[k], row, index, value, bias[k], below, here, layer < layers - 1)
            below = here
            row += width
        transposed(below, out[k])


@_jit
def layer_gradients(
    rows: Array, row: int, index: Array, x: Array, g: Array, value_grad: Array, bias_grad: Array
) -> None:
    """Write value_grad[e] = <x[index[e]], g[neuron of e]> and bias_grad = sum of g, over the batch.

    x is [in, B], g [out, B]; rows and bias_grad are one head's.
    """
    batch = x.shape[1]
    zero = np.float32(0.0)
    for o in range(g.shape[0]):
        k, end = rows[row + o], rows[row + o + 1]
        total = zero
        for j in range(batch):
            total += g[o, j]
        bias_grad[row + o] = total
        while k + 4 <= end:
            i0, i1, i2, i3 = index[k], index[k + 1], index[k + 2], index[k + 3]
            a0, a1, a2, a3 = zero, zero, zero, zero
            for j in range(batch):
                t = g[o, j]
                a0 += t * x[i0, j]
                a1 += t * x[i1, j]
                a2 += t * x[i2, j]
                a3 += t * x[i3, j]
            value_grad[k], value_grad[k + 1] = a0, a1
            value_grad[k + 2], value_grad[k + 3] = a2, a3
            k += 4
        while k < end:
            i0, a0 = index[k], zero
            for j in range(batch):
                a0 += g[o, j] * x[i0, j]
            value_grad[k] = a0
            k += 1


@_jit
def layer_backward(
    columns: Array, column: int, source: Array, position: Array, value: Array, g: Array, y: Array
) -> None:
    """Add to y [in, B] the sum of value * g[source], for the input neurons from `column` on.

    g is [out, B]; columns is one head's.
    """
    batch = g.shape[1]
    for i in range(y.shape[0]):
        k, end = columns[column + i], columns[column + i + 1]
        while k + 4 <= end:
            v0, v1 = value[position[k]], value[position[k + 1]]
            v2, v3 = value[position[k + 2]], value[position[k + 3]]
            s0, s1, s2, s3 = source[k], source[k + 1], source[k + 2], source[k + 3]
            for j in range(batch):
                y[i, j] += v0 * g[s0, j] + v1 * g[s1, j] + v2 * g[s2, j] + v3 * g[s3, j]
            k += 4
        while k < end:
            v0, s0 = value[position[k]], source[k]
            for j in range(batch):
                y[i, j] += v0 * g[s0, j]
            k += 1


@_jit
def relu_backward(activation: Array, g: Array) -> None:
    """Zero g where the activation is zero, both [neurons, B], in place."""
    zero = np.float32(0.0)
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            g[i, j] = g[i, j] if activation[i, j] > zero else zero


@_jit
def backward(
    grad: Array, sizes: Array, rows: Array, index: Array, value: Array,
    columns: Array, source: Array, position: Array,
    first: Array, hidden: Array, below_grad: Array, value_grad: Array, bias_grad: Array,
    grad_first: Array, weights: bool, inputs: bool,
) -> None:  # fmt: skip
    """Backpropagate grad [K, B, outputs] through the last `forward`.

    below_grad [K, R, B] takes the gradient at every neuron. With `weights`, value_grad and
    bias_grad [K, R] take the parameters' gradients; with `inputs`, grad_first [in, B] the input's,
    summed over the heads. columns, source and position list the same connections by input neuron.
    """
    layers = sizes.shape[0] - 1
    if inputs:
        grad_first[:] = np.float32(0.0)
    for k in range(grad.shape[0]):
        row = hidden.shape[1]
        column = columns.shape[1] - 1
        transposed(grad[k], below_grad[k, row - sizes[layers] : row])
        for layer in range(layers - 1, -1, -1):
            width, fan_in = sizes[layer + 1], sizes[layer]
            row -= width
            column -= fan_in
            here = below_grad[k, row : row + width]
            if weights:
                x = first if layer == 0 else hidden[k, row - fan_in : row]
                layer_gradients(rows[k], row, index, x, here, value_grad, bias_grad[k])
            if layer > 0:
                y = below_grad[k, row - fan_in : row]
                y[:] = np.float32(0.0)
                layer_backward(columns[k], column, source, position, value, here, y)
                relu_backward(hidden[k, row - fan_in : row], y)
            elif inputs:
                layer_backward(columns[k], column, source, position, value, here, grad_first)


@_jit
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


@_jit
def blend(target: Array, online: Array, tau: Float) -> None:
    """Move target by tau towards online, in place."""
    for i in range(target.shape[0]):
        target[i] += tau * (online[i] - target[i])


@_jit
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
    stay = np.float32(1.0) - tau
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
                    if b >= b_end or (a < a_end and index[a] < online_index[b]):
                        union_index[count] = index[a]
                        union_value[count] = stay * value[a]
                        a += 1
                    elif a >= a_end or online_index[b] < index[a]:
                        union_index[count] = online_index[b]
                        union_value[count] = tau * online_value[b]
                        b += 1
                    else:
                        union_index[count] = index[a]
                        union_value[count] = value[a] + tau * (online_value[b] - value[a])
                        a += 1
                        b += 1
                    count += 1
            union_rows[end_row - begin_row] = count
            budget = budgets[k, layer]
            threshold = np.float32(-1.0)
            spare = 0  # entries of exactly the threshold that stay
            if count > budget:
                magnitudes = np.abs(union_value[:count])
                threshold = np.partition(magnitudes, count - budget)[count - budget]
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


def is_cached() -> bool:
    """Return whether this version of the kernels was compiled before and is on disk."""
    source = Path(__file__)
    folder = Path(forward.stats.cache_path)
    changed = source.stat().st_mtime
    return all(
        any(
            index.stat().st_mtime >= changed for index in folder.glob(f"{source.stem}.{name}-*.nbi")
        )
        for name in ("forward", "backward", "adam", "blend_union")
    )


def prepare(tell: Callable[[str], None]) -> None:
    """Compile every kernel, or load it from disk; say so where it takes long."""
    if not is_cached():
        tell("compiling the sparse kernels, once for this installation")
    floats, one = np.zeros(2, np.float32), np.float32(1.0)
    sizes, rows = np.array([1, 1, 1]), np.array([[0, 1, 2]], np.int32)
    index, bias = np.zeros(2, np.int32), np.zeros((1, 2), np.float32)
    first, hidden = np.zeros((1, 1), np.float32), np.zeros((1, 2, 1), np.float32)
    out = np.zeros((1, 1, 1), np.float32)
    forward(first, sizes, rows, index, floats, bias, first, hidden, out)
    backward(
        out, sizes, rows, index, floats, rows, index, index, first, hidden, hidden.copy(),
        floats, bias, first, True, True,
    )  # fmt: skip
    adam(floats, floats, floats, floats, one, one, one, one, one, one)
    blend(floats, floats, one)
    blend_union(
        rows, index, floats, rows, index, floats, one, np.ones((1, 2), np.int64),
        np.array([0, 1, 2]), rows.copy(), index.copy(), floats.copy(),
        np.zeros(3, np.int64), np.zeros(4, np.int32), np.zeros(4, np.float32),
    )  # fmt: skip
