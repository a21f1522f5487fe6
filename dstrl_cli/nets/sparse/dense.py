"""Inner loops for layers that have every connection, as LLVM code (see `simd`).

No index is read, and several neurons are taken at once, so that each number that is loaded serves
all of them: two or more multiplications for one load, where a sparse layer has one.
Weights lie row by row: value[begin + o * inputs + i].
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from numba import types
from numba.extending import intrinsic

from dstrl_cli.nets.sparse import simd
from dstrl_cli.nets.sparse.registers import HERE, TILE, VECTORS
from dstrl_cli.nets.sparse.simd import Builder, Value, number

ROWS = HERE.rows
"""Neurons whose sums are kept in registers at once."""
BLOCK = HERE.block
"""Neurons above and below whose weights' gradients are kept in registers at once."""


def _several_sums(
    builder: Builder, weights: Value, row_stride: Value, step: Value, begin: Value, end: Value,
    x: Value, start: Sequence[Sequence[Value]],
) -> list[Sequence[Value]]:  # fmt: skip
    """Return the tiles start[r] + sum of weights[r * row_stride + k * step] * x[k]."""
    rows = len(start)

    def body(k: Value, totals: Sequence[Value]) -> list[Value]:
        weights_k = builder.gep(weights, [builder.mul(k, step)])
        each = [
            simd.splat(builder, simd.scalar(builder, weights_k, builder.mul(row_stride, number(r))))
            for r in range(rows)
        ]
        place = builder.mul(k, number(TILE))
        found = list(totals)
        for vector in range(VECTORS):
            below = simd.load_vector(builder, x, place, vector)
            for r, weight in enumerate(each):
                at = r * VECTORS + vector
                found[at] = simd.plus_product(builder, found[at], weight, below)
        return found

    flat = [vector for tile in start for vector in tile]
    found = simd.sums(builder, begin, end, max(1, ROWS // rows), flat, body)
    return [found[r * VECTORS : (r + 1) * VECTORS] for r in range(rows)]


def _tiles_from(builder: Builder, start: Value, row: Value, rows: int) -> list[Value]:
    """Return where the tiles of the neurons from `row` on begin, those of all at `start`."""
    every = _rows_from(builder, row, rows)
    return [builder.add(start, builder.mul(r, number(TILE))) for r in every]


def _rows_from(builder: Builder, row: Value, rows: int) -> list[Value]:
    return [builder.add(row, number(r)) for r in range(rows)]


def weighted_sums(rows: int) -> Any:
    """Return the intrinsic f(value, begin, inputs, x, y, row, bias, floor), for tiles [*, T].

    For `rows` neurons from `row` on, whose weights begin at value[begin]: y = bias + weights * x,
    and what is below `floor` becomes the floor.
    """

    @intrinsic
    def f(  # type: ignore[no-untyped-def]
        typing, value, begin, inputs, x, y, row, bias, floor
    ):
        whole = types.int64
        signature = types.void(value, whole, whole, x, y, whole, bias, types.float32)

        def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
            values, xs, ys, biases = simd.data(context, builder, signature, args, 0, 3, 4, 6)
            begin, inputs, row, floor = args[1], args[2], args[5], args[7]
            every = _rows_from(builder, row, rows)
            start = [
                [simd.splat(builder, simd.scalar(builder, biases, r))] * VECTORS for r in every
            ]
            weights = builder.gep(values, [begin])
            found = _several_sums(builder, weights, inputs, number(1), number(0), inputs, xs, start)
            least = simd.splat(builder, floor)
            for r, total in zip(every, found, strict=True):
                total = simd.over_floor(builder, total, least)
                simd.store(builder, total, ys, builder.mul(r, number(TILE)))
            return context.get_dummy_value()

        return signature, code

    return f


def weighted_gradients(rows: int, gated: bool) -> Any:
    """Return the intrinsic f(value, begin, inputs, outputs, g, y, row, gate, sums, first, last).

    For `rows` inputs from `row` on: y = weights * g, for tiles g [outputs, T] and y [inputs, T].
    If `gated` it is zero where the gate is not positive, and sums takes its sums over the tile;
    else it is added to what is in y. Only the outputs from `first` up to `last` are added; all but
    the first of them to what is in y.
    """

    @intrinsic
    def f(  # type: ignore[no-untyped-def]
        typing, value, begin, inputs, outputs, g, y, row, gate, sums, first, last
    ):
        whole = types.int64
        signature = types.void(
            value, whole, whole, whole, g, y, whole, gate, sums, whole, whole
        )  # fmt: skip

        def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
            values, gs, ys, gates, overall = simd.data(
                context, builder, signature, args, 0, 4, 5, 7, 8
            )
            begin, inputs, row, first, last = (args[n] for n in (1, 2, 6, 9, 10))
            places = _tiles_from(builder, number(0), row, rows)
            start = [simd.load(builder, ys, place) for place in places]
            if gated:
                begins = builder.icmp_signed("==", first, number(0))
                start = [[builder.select(begins, simd.ZEROS, v) for v in y] for y in start]
            weights = builder.gep(values, [builder.add(begin, row)])
            found = _several_sums(builder, weights, number(1), inputs, first, last, gs, start)
            if gated:
                gate = [simd.load(builder, gates, place) for place in places]
                found = [
                    simd.where_positive(builder, *pair) for pair in zip(gate, found, strict=True)
                ]
                vectors = [simd.total_of(builder, total) for total in found]
                simd.store_sums(builder, vectors, overall, row)
            for total, place in zip(found, places, strict=True):
                simd.store(builder, total, ys, place)
            return context.get_dummy_value()

        return signature, code

    return f


def inner_products(above: int, below: int) -> Any:
    """Return the intrinsic f(g, g_stride, o, x, x_stride, i, tiles, out, at, out_stride).

    out[at + a * out_stride + b] = <g[o + a], x[i + b]> over the whole batch, for `above` neurons
    times `below`. g and x are their tiles [*, T] of the first T rows of the batch; the following
    ones lie `stride` numbers further. The sums stay in registers until the batch is through.
    """

    @intrinsic
    def f(  # type: ignore[no-untyped-def]
        typing, g, g_stride, o, x, x_stride, i, tiles, out, at, out_stride
    ):
        whole = types.int64
        signature = types.void(g, whole, whole, x, whole, whole, whole, out, whole, whole)

        def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
            gs, xs, outs = simd.data(context, builder, signature, args, 0, 3, 7)
            g_stride, o, x_stride, i, tiles, at, out_stride = (
                args[n] for n in (1, 2, 4, 5, 6, 8, 9)
            )

            def body(tile: Value, totals: Sequence[Value]) -> list[Value]:
                high = _tiles_from(builder, builder.mul(g_stride, tile), o, above)
                low = _tiles_from(builder, builder.mul(x_stride, tile), i, below)
                for vector in range(VECTORS):
                    slopes = [simd.load_vector(builder, gs, place, vector) for place in high]
                    inputs = [simd.load_vector(builder, xs, place, vector) for place in low]
                    pairs = itertools.product(slopes, inputs)
                    totals = [
                        simd.plus_product(builder, total, slope, x)
                        for total, (slope, x) in zip(totals, pairs, strict=True)
                    ]
                return list(totals)

            start = [simd.ZEROS] * (above * below)
            found = simd.loop(builder, number(0), tiles, 1, start, body)
            for a in range(above):
                place = builder.add(at, builder.mul(out_stride, number(a)))
                simd.store_sums(builder, found[a * below : (a + 1) * below], outs, place)
            return context.get_dummy_value()

        return signature, code

    return f
