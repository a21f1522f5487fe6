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

from dstrl_cli.nets.sparse.registers import LANES, TILE, VECTORS

Value = Any  # an LLVM value, or the Numba type of one
Builder = Any
Body = Callable[[Value, Sequence[Value]], Sequence[Value]]

_int, _lane = ir.IntType(64), ir.IntType(32)
_vector = ir.VectorType(ir.FloatType(), LANES)
ZEROS = ir.Constant(_vector, [0.0] * LANES)
# as in `kernels`: sums may be reassociated, NaN and infinity keep their meaning
FAST = ("contract", "reassoc", "nsz", "arcp")

FOLDED = 4
"""Sums over a tile that are reduced to numbers together."""


def number(value: int) -> Value:
    """Return a whole number of the code."""
    return ir.Constant(_int, value)


def data(context: Any, builder: Builder, signature: Any, args: Sequence[Value], *at: int) -> Any:
    """Return where the numbers of the arguments `at`, which are arrays, begin."""
    kinds = signature.args
    return [context.make_array(kinds[n])(context, builder, value=args[n]).data for n in at]


def _shuffle(builder: Builder, a: Value, b: Value, lanes: Sequence[int]) -> Value:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_lane, len(lanes)), list(lanes)))


def splat(builder: Builder, value: Value) -> Value:
    """Return a vector with `value` in every lane."""
    empty = ir.Constant(_vector, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_lane, 0))
    return _shuffle(builder, first, empty, [0] * LANES)


def scalar(builder: Builder, array: Value, at: Value) -> Value:
    """Return array[at]."""
    return builder.load(builder.gep(array, [at]))


def _address(builder: Builder, array: Value, start: Value, vector: int) -> Value:
    offset = builder.add(start, number(vector * LANES))
    return builder.bitcast(builder.gep(array, [offset]), _vector.as_pointer())


def load_vector(builder: Builder, array: Value, start: Value, vector: int) -> Value:
    """Return one vector of the tile that begins at array[start]."""
    return builder.load(_address(builder, array, start, vector), align=4)


def load(builder: Builder, array: Value, start: Value) -> list[Value]:
    """Return the vectors of the tile that begins at array[start]."""
    return [load_vector(builder, array, start, vector) for vector in range(VECTORS)]


def store(builder: Builder, tile: Sequence[Value], array: Value, start: Value) -> None:
    """Store a tile from array[start] on."""
    for vector, value in enumerate(tile):
        builder.store(value, _address(builder, array, start, vector), align=4)


def plus_product(builder: Builder, total: Value, a: Value, b: Value) -> Value:
    """Return total + a * b."""
    return builder.fadd(total, builder.fmul(a, b, flags=FAST), flags=FAST)


def plus(builder: Builder, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """Return the sum of two tiles."""
    return [builder.fadd(one, two, flags=FAST) for one, two in zip(a, b, strict=True)]


def over_floor(builder: Builder, tile: Sequence[Value], floor: Value) -> list[Value]:
    """Return a tile with `floor` where it is below; NaN stays."""
    over = [builder.fcmp_unordered(">", total, floor) for total in tile]
    return [builder.select(c, total, floor) for c, total in zip(over, tile, strict=True)]


def where_positive(
    builder: Builder, gate: Sequence[Value], tile: Sequence[Value]
) -> list[Value]:  # fmt: skip
    """Return a tile with zero where `gate` is not positive."""
    open_ = [builder.fcmp_ordered(">", value, ZEROS) for value in gate]
    return [builder.select(c, total, ZEROS) for c, total in zip(open_, tile, strict=True)]


def loop(
    builder: Builder, begin: Value, end: Value, step: int, start: Sequence[Value], body: Body
) -> list[Value]:
    """Run totals = body(i, totals) for i from begin to end in steps; return the totals."""
    before = builder.block
    inside = builder.append_basic_block("loop")
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed("<", begin, end), inside, done)
    builder.position_at_end(inside)
    i = builder.phi(_int)
    totals = [builder.phi(total.type) for total in start]
    after = body(i, totals)
    following = builder.add(i, number(step))
    for phi, first, next_ in zip([i, *totals], [begin, *start], [following, *after], strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(next_, builder.block)
    last = builder.block
    builder.cbranch(builder.icmp_signed("<", following, end), inside, done)
    builder.position_at_end(done)
    ends = []
    for first, next_ in zip(start, after, strict=True):
        end_phi = builder.phi(first.type)
        end_phi.add_incoming(first, before)
        end_phi.add_incoming(next_, last)
        ends.append(end_phi)
    return ends


def sums(
    builder: Builder, begin: Value, end: Value, chains: int, start: Sequence[Value], body: Body
) -> list[Value]:
    """Return start plus what body(k, totals) adds to totals for k from begin to end.

    `chains` of them are added up beside each other, so that none waits for the one before.
    """
    size = len(start)

    def several(k: Value, totals: Sequence[Value]) -> list[Value]:
        found: list[Value] = []
        for c in range(chains):
            found += body(builder.add(k, number(c)), totals[c * size : (c + 1) * size])
        return found

    rest = builder.srem(builder.sub(end, begin), number(chains))
    full = builder.sub(end, rest)
    totals = loop(builder, begin, full, chains, [*start, *[ZEROS] * (size * (chains - 1))], several)
    total = totals[:size]
    for c in range(1, chains):
        total = plus(builder, total, totals[c * size : (c + 1) * size])
    return loop(builder, full, end, 1, total, body) if chains > 1 else total


def _row_sum(
    builder: Builder, value: Value, index: Value, begin: Value, end: Value,
    x: Value, start: Sequence[Value],
) -> list[Value]:  # fmt: skip
    """Return the tile start + sum over k in [begin, end) of value[k] * x[index[k]]."""

    def body(k: Value, totals: Sequence[Value]) -> list[Value]:
        weight = splat(builder, scalar(builder, value, k))
        below = load(builder, x, _tile_at(builder, index, k))
        return [plus_product(builder, t, weight, b) for t, b in zip(totals, below, strict=True)]

    return loop(builder, begin, end, 1, start, body)


def _tile_at(builder: Builder, index: Value, k: Value) -> Value:
    neuron = builder.sext(scalar(builder, index, k), _int)
    return builder.mul(neuron, number(TILE))


@intrinsic
def weighted_sum(  # type: ignore[no-untyped-def]
    typing, value, index, begin, end, x, y, row, bias, floor
):
    """Write y[row] = bias[row] + sum over k in [begin, end) of value[k] * x[index[k]].

    x and y are tiles [*, T]; sums below `floor` become the floor.
    """
    signature = types.void(
        value, index, types.int64, types.int64, x, y, types.int64, bias, types.float32
    )

    def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
        values, indices, xs, ys, biases = data(context, builder, signature, args, 0, 1, 4, 5, 7)
        begin, end, row, floor = args[2], args[3], args[6], args[8]
        start = [splat(builder, scalar(builder, biases, row))]
        total = _row_sum(builder, values, indices, begin, end, xs, start * VECTORS)
        total = over_floor(builder, total, splat(builder, floor))
        store(builder, total, ys, builder.mul(row, number(TILE)))
        return context.get_dummy_value()

    return signature, code


def weighted_gradient(gated: bool) -> Any:
    """Return the intrinsic f(value, index, begin, end, g, y, row, gate), for tiles [*, T].

    y[row] = sum over k in [begin, end) of value[k] * g[index[k]]: zero where gate[row] is not
    positive if `gated`, else added to what is in y.
    """

    @intrinsic
    def f(  # type: ignore[no-untyped-def]
        typing, value, index, begin, end, g, y, row, gate
    ):
        signature = types.void(value, index, types.int64, types.int64, g, y, types.int64, gate)

        def code(context: Any, builder: Builder, signature: Any, args: Sequence[Value]) -> Value:
            values, indices, gs, ys, gates = data(context, builder, signature, args, 0, 1, 4, 5, 7)
            here = builder.mul(args[6], number(TILE))
            start = [ZEROS] * VECTORS if gated else load(builder, ys, here)
            total = _row_sum(builder, values, indices, args[2], args[3], gs, start)
            if gated:
                total = where_positive(builder, load(builder, gates, here), total)
            store(builder, total, ys, here)
            return context.get_dummy_value()

        return signature, code

    return f


def products(gated: bool) -> Any:
    """Return the intrinsic f(value, index, begin, end, g, x, row, y, out, sums), for tiles [*, T].

    out[k] += <x[row], g[index[k]]> over the tile, for k in [begin, end). If `gated`, also
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
            values, indices, gs, xs, ys, outs, overall = data(
                context, builder, signature, args, 0, 1, 4, 5, 7, 8, 9
            )
            begin, end, here = args[2], args[3], builder.mul(args[6], number(TILE))
            own = load(builder, xs, here)

            def several(count: int, k: Value, totals: Sequence[Value]) -> Sequence[Value]:
                found = []
                for c in range(count):
                    at = builder.add(k, number(c))
                    slopes = load(builder, gs, _tile_at(builder, indices, at))
                    if gated:
                        weight = splat(builder, scalar(builder, values, at))
                        totals = [
                            plus_product(builder, total, weight, slope)
                            for total, slope in zip(totals, slopes, strict=True)
                        ]
                    found.append(_product(builder, own, slopes))
                store_sums(builder, found, outs, k, add=True)
                return totals

            rest = builder.srem(builder.sub(end, begin), number(FOLDED))
            full = builder.sub(end, rest)
            totals: Sequence[Value] = [ZEROS] * (VECTORS if gated else 0)
            step = functools.partial(several, FOLDED)
            totals = loop(builder, begin, full, FOLDED, totals, step)
            totals = loop(builder, full, end, 1, totals, functools.partial(several, 1))
            if gated:
                totals = where_positive(builder, own, totals)
                store(builder, totals, ys, here)
                store_sums(builder, [total_of(builder, totals)], overall, args[6])
            return context.get_dummy_value()

        return signature, code

    return f


def _product(builder: Builder, a: Sequence[Value], b: Sequence[Value]) -> Value:
    """Return the vector that adds up, over its lanes, to the inner product of two tiles."""
    found = builder.fmul(a[0], b[0], flags=FAST)
    for one, two in zip(a[1:], b[1:], strict=True):
        found = plus_product(builder, found, one, two)
    return found


def total_of(builder: Builder, tile: Sequence[Value]) -> Value:
    """Return the vector that adds up, over its lanes, to the sum of a tile."""
    total = tile[0]
    for vector in tile[1:]:
        total = builder.fadd(total, vector, flags=FAST)
    return total


def store_sums(
    builder: Builder, vectors: Sequence[Value], array: Value, at: Value, add: bool = False
) -> None:
    """Store the sum over the lanes of each of `vectors` from array[at] on, or add it there."""
    found = folded(builder, vectors)
    address = builder.bitcast(builder.gep(array, [at]), found.type.as_pointer())
    if add:
        found = builder.fadd(builder.load(address, align=4), _apart(builder, found))
    builder.store(found, address, align=4)


def _apart(builder: Builder, vector: Value) -> Value:
    """Return a vector that is computed first, whatever it is added to.

    So sums that are kept apart and added later are those that are added up at once.
    """
    kind = ir.FunctionType(vector.type, [vector.type])
    name = f"llvm.arithmetic.fence.v{vector.type.count}f32"
    fence = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(fence, [vector])


def folded(builder: Builder, vectors: Sequence[Value]) -> Value:
    """Return one vector with the sum over the lanes of each of `vectors`.

    In every step two vectors are joined into one of half sums of both, so that every lane is used.
    What is kept stays in its lane, which is cheaper than to move it.
    """
    count, part = len(vectors), LANES  # part: lanes that still belong to one sum
    joins = (count - 1).bit_length()
    vectors = [*vectors, *[ZEROS] * (2**joins - count)]
    lanes = range(LANES)
    while len(vectors) > 1:
        part //= 2
        stay = [lane + LANES if lane & part else lane for lane in lanes]
        move = [lane - part + LANES if lane & part else lane + part for lane in lanes]
        vectors = [
            builder.fadd(_shuffle(builder, a, b, stay), _shuffle(builder, a, b, move), flags=FAST)
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    (vector,) = vectors
    while part > 1:
        part //= 2
        move = [lane ^ part for lane in lanes]
        vector = builder.fadd(vector, _shuffle(builder, vector, vector, move), flags=FAST)
    # bit j of a vector's number chose the half of its lanes in step j
    steps = range(joins)
    order = [sum(((n >> j) & 1) * (LANES >> (j + 1)) for j in steps) for n in range(count)]
    return _shuffle(builder, vector, vector, order)
