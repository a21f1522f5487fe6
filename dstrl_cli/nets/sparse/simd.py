"""Inner loops of the sparse kernels, written as LLVM code on whole vector registers.

Numba cannot express them from Python: a tile, which is T numbers of one neuron, one per row of the
batch, must stay in registers while the loop runs over the neuron's connections. Each function here
is a Numba intrinsic, LLVM code that replaces its call. LLVM maps its vectors to the instructions of
the processor (AVX-512, AVX2, NEON).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
"""Numbers of one vector; a tile is one vector or more."""

Value = Any  # an LLVM value, or the Numba type of one
Builder = Any

_int, _lane = ir.IntType(64), ir.IntType(32)
_vector = ir.VectorType(ir.FloatType(), LANES)
_zeros = ir.Constant(_vector, [0.0] * LANES)
# as in `kernels`: sums may be reassociated, NaN and infinity keep their meaning
_FAST = ("contract", "reassoc", "nsz", "arcp")


def _number(value: int) -> Value:
    return ir.Constant(_int, value)


def _array(context: Any, builder: Builder, kind: Value, value: Value) -> Value:
    return context.make_array(kind)(context, builder, value=value)


def _shuffle(builder: Builder, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_lane, len(lanes)), list(lanes)))


def _splat(builder: Builder, number: Value) -> Value:
    """Return a vector with `number` in every lane."""
    empty = ir.Constant(_vector, ir.Undefined)
    first = builder.insert_element(empty, number, ir.Constant(_lane, 0))
    return _shuffle(builder, first, empty, [0] * LANES)


def _address(builder: Builder, data: Value, start: Value, vector: int) -> Value:
    offset = builder.add(start, _number(vector * LANES))
    return builder.bitcast(builder.gep(data, [offset]), _vector.as_pointer())


def _load(builder: Builder, data: Value, start: Value, vector: int) -> Value:
    return builder.load(_address(builder, data, start, vector), align=4)


def _plus_product(builder: Builder, total: Value, a: Value, b: Value) -> Value:
    return builder.fadd(total, builder.fmul(a, b, flags=_FAST), flags=_FAST)


def _index(builder: Builder, data: Value, k: Value) -> Value:
    return builder.sext(builder.load(builder.gep(data, [k])), _int)


def _loop(
    builder: Builder, begin: Value, end: Value, step: int, start: Sequence[Value],
    body: Callable[[Value, Sequence[Value]], Sequence[Value]],
) -> list[Value]:  # fmt: skip
    """Run totals = body(i, totals) for i from begin to end in steps; return the totals."""
    before = builder.block
    loop = builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", begin, end), loop, done)
    builder.position_at_end(loop)
    i = builder.phi(_int)
    totals = [builder.phi(_vector) for _ in start]
    after = body(i, totals)
    following = builder.add(i, _number(step))
    for phi, first, next_ in zip([i, *totals], [begin, *start], [following, *after], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(next_, loop)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, done)
    builder.position_at_end(done)
    ends = []
    for first, next_ in zip(start, after, strict=True):
        end_phi = builder.phi(_vector)
        end_phi.add_incoming(first, before)
        end_phi.add_incoming(next_, loop)
        ends.append(end_phi)
    return ends


def weighted_sum(vectors: int, finish: str, rows: int = 1) -> Any:
    """Return the intrinsic f(value, index, begin, end, bias, x, gate, y, row), for tiles [*, T].

    y[row] = bias[row] + sum over k in [begin, end) of value[k] * x[index[k]], T = 16 * vectors;
    then, by `finish`: "plain" as it is, "relu" clamped at zero, "gate" zero where gate[row] is not
    positive, "add" added to what is in y.

    With several `rows`, the neurons `row`, `row + 1`, ... are computed at once; all of them must
    have every connection. Their values follow each other, so that no index is read, and each number
    of x is loaded once for all of them.
    """

    @intrinsic
    def f(  # type: ignore[no-untyped-def]
        typing, value, index, begin, end, bias, x, gate, y, row
    ):
        signature = types.void(
            value, index, types.int64, types.int64, bias, x, gate, y, types.int64
        )

        def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
            kinds = signature.args
            values, indices, biases, xs, gates, ys = (
                _array(context, builder, kinds[n], args[n]).data for n in (0, 1, 4, 5, 6, 7)
            )
            size, begin, end, row = _number(vectors * LANES), args[2], args[3], args[8]
            every = [builder.add(row, _number(r)) for r in range(rows)]
            starts = [_splat(builder, builder.load(builder.gep(biases, [r]))) for r in every]
            width = builder.sub(end, begin)

            def body(k: Value, totals: Sequence[Value]) -> list[Value]:
                neuron = _index(builder, indices, k) if rows == 1 else builder.sub(k, begin)
                source = builder.mul(neuron, size)
                below = [_load(builder, xs, source, vector) for vector in range(vectors)]
                found = []
                for r in range(rows):
                    at = builder.add(k, builder.mul(width, _number(r)))
                    weight = _splat(builder, builder.load(builder.gep(values, [at])))
                    mine = totals[r * vectors : (r + 1) * vectors]
                    found += [
                        _plus_product(builder, total, weight, number)
                        for total, number in zip(mine, below, strict=True)
                    ]
                return found

            start = [each for each in starts for _ in range(vectors)]
            totals = _loop(builder, begin, end, 1, start, body)
            for number, total in enumerate(totals):
                r, vector = divmod(number, vectors)
                target = builder.mul(every[r], size)
                if finish == "relu":
                    positive = builder.fcmp_unordered(">", total, _zeros)  # NaN stays
                    total = builder.select(positive, total, _zeros)
                elif finish == "gate":
                    open_ = builder.fcmp_ordered(">", _load(builder, gates, target, vector), _zeros)
                    total = builder.select(open_, total, _zeros)
                elif finish == "add":
                    total = builder.fadd(total, _load(builder, ys, target, vector), flags=_FAST)
                builder.store(total, _address(builder, ys, target, vector), align=4)
            return context.get_dummy_value()

        return signature, code

    return f


def products(vectors: int, gated: bool) -> Any:
    """Return the intrinsic f(value, index, begin, end, g, x, row, y, out, sums), for tiles [*, T].

    out[k] = <x[row], g[index[k]]> over the tile, for k in [begin, end). If `gated`, also
    y[row] = sum of value[k] * g[index[k]], or zero where x[row] is not positive, and sums[row] is
    its sum over the tile: all gradients of a ReLU neuron in one pass over the neurons it feeds.
    """

    @intrinsic
    def f(  # type: ignore[no-untyped-def]
        typing, value, index, begin, end, g, x, row, y, out, sums
    ):
        signature = types.void(
            value, index, types.int64, types.int64, g, x, types.int64, y, out, sums
        )

        def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
            kinds = signature.args
            values, indices, gs, xs, ys, outs, overall = (
                _array(context, builder, kinds[n], args[n]).data for n in (0, 1, 4, 5, 7, 8, 9)
            )
            size = _number(vectors * LANES)
            begin, end, here = args[2], args[3], builder.mul(args[6], size)
            own = [_load(builder, xs, here, vector) for vector in range(vectors)]

            def several(count: int, k: Value, totals: Sequence[Value]) -> Sequence[Value]:
                sums = []
                for c in range(count):
                    at = builder.add(k, _number(c))
                    weight = _splat(builder, builder.load(builder.gep(values, [at])))
                    source = builder.mul(_index(builder, indices, at), size)
                    slopes = [_load(builder, gs, source, vector) for vector in range(vectors)]
                    if gated:
                        totals = [
                            _plus_product(builder, total, weight, slope)
                            for total, slope in zip(totals, slopes, strict=True)
                        ]
                    sum_ = builder.fmul(own[0], slopes[0], flags=_FAST)
                    for mine, slope in zip(own[1:], slopes[1:], strict=True):
                        sum_ = _plus_product(builder, sum_, mine, slope)
                    sums.append(sum_)
                _store_sums(builder, sums, outs, k)
                return totals

            fours = builder.add(begin, builder.and_(builder.sub(end, begin), _number(-4)))
            totals: Sequence[Value] = [_zeros] * (vectors if gated else 0)
            totals = _loop(builder, begin, fours, 4, totals, functools.partial(several, 4))
            totals = _loop(builder, fours, end, 1, totals, functools.partial(several, 1))
            sum_ = _zeros
            for vector, total in enumerate(totals):
                open_ = builder.fcmp_ordered(">", own[vector], _zeros)
                total = builder.select(open_, total, _zeros)
                builder.store(total, _address(builder, ys, here, vector), align=4)
                sum_ = builder.fadd(sum_, total, flags=_FAST)
            if gated:
                _store_sums(builder, [sum_], overall, args[6])
            return context.get_dummy_value()

        return signature, code

    return f


def _store_sums(builder: Builder, vectors: Sequence[Value], data: Value, at: Value) -> None:
    """Store the sum over the lanes of each of `vectors` from data[at] on."""
    sums = _folded(builder, vectors)
    address = builder.bitcast(builder.gep(data, [at]), sums.type.as_pointer())
    builder.store(sums, address, align=4)


def _folded(builder: Builder, vectors: Sequence[Value]) -> Value:
    """Return one vector with the sum over the lanes of each of `vectors`, a power of two of them.

    In every step two vectors are joined into one of half sums of both, so that every lane is used.
    """
    part = LANES  # lanes that still belong to one sum
    while len(vectors) > 1:
        part //= 2
        low = [start + lane for start in range(0, 2 * LANES, 2 * part) for lane in range(part)]
        high = [lane + part for lane in low]
        vectors = [
            builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high), flags=_FAST)
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    (vector,) = vectors
    lanes = LANES
    while part > 1:
        part //= 2
        low = [start + lane for start in range(0, lanes, 2 * part) for lane in range(part)]
        high = [lane + part for lane in low]
        vector = builder.fadd(
            _shuffle(builder, vector, vector, low), _shuffle(builder, vector, vector, high),
            flags=_FAST,
        )  # fmt: skip
        lanes //= 2
    return vector
