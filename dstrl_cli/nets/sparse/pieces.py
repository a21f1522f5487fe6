"""Numbered pieces of work for two threads: compiled code lays them out, whoever is free takes one.

Who takes which piece is left to chance, so a piece must write only what no other piece touches;
then the numbers are the same however many threads take part.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import register_jitable

from dstrl_cli.nets.sparse.tables import call, numbers_at

PIECES, FINISHED, CALLED, GIVEN, YIELD, OWN = range(6)
"""Words of a board: how many pieces there are, in the upper half of the word, and the number of
the next one; how many are finished; what to call with which number for each; and a C function that
gives the rest of a thread's turn to others, or 0. From `OWN` on they are the board's maker's."""

_HALF = 32
_SPINS = 64
"""Looks at a word before the rest of a thread's turn is given to others."""

intrinsic: Any = extending.intrinsic


def _atomic(build: Callable[..., Any], result: Any, arguments: int) -> Any:
    """Return what `build(builder, pointer, *args)` makes, as f(words, place, *args)."""

    @intrinsic
    def f(typing, words, place, *args):  # type: ignore[no-untyped-def]
        def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, value=given[0]).data
            more = cgutils.unpack_tuple(builder, given[2])
            found = build(builder, builder.gep(data, [given[1]]), *more)
            return found if result is not types.void else context.get_dummy_value()

        return result(words, types.int64, types.StarArgTuple([types.int64] * arguments)), code

    return f


def _added(builder: Any, pointer: Any, amount: Any) -> Any:
    return builder.atomic_rmw("add", pointer, amount, "seq_cst")


def _loaded(builder: Any, pointer: Any) -> Any:
    return builder.load_atomic(pointer, "seq_cst", 8)


def _stored(builder: Any, pointer: Any, value: Any) -> Any:
    return builder.store_atomic(value, pointer, "seq_cst", 8)


add, read = _atomic(_added, types.int64, 1), _atomic(_loaded, types.int64, 0)
write = _atomic(_stored, types.void, 1)


@intrinsic
def pause(typing):  # type: ignore[no-untyped-def]
    """Tell the processor that a loop waits."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            name = "llvm.x86.sse2.pause"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), code


@register_jitable
def wait_a_little(words: Any, spins: int) -> None:
    """Wait for the other thread, which may need this one's processor."""
    pause()
    if spins % _SPINS == 0 and words[YIELD]:
        call(words[YIELD])


@register_jitable
def take_pieces(words: Any, worker: int) -> None:
    """Take the pieces that nobody has taken."""
    while True:
        laid_out = read(words, PIECES)
        if laid_out & (2**_HALF - 1) >= laid_out >> _HALF:
            return
        laid_out = add(words, PIECES, 1)
        piece = laid_out & (2**_HALF - 1)
        if piece < laid_out >> _HALF:
            call(words[CALLED], words[GIVEN], piece, worker)
            add(words, FINISHED, 1)


@register_jitable
def share(board: int, function: int, argument: int, count: int) -> None:
    """Call a function by its address with (argument, piece, worker) for every piece from 0 on.

    A thread that waits for the caller takes pieces too: it is worker 1, the caller worker 0. This
    returns when all are done. Without a board the caller does it alone.
    """
    if board == 0 or count == 1:
        for piece in range(count):
            call(function, argument, piece, 0)
        return
    words = numbers_at(board, OWN)
    words[CALLED], words[GIVEN] = function, argument
    write(words, FINISHED, 0)
    write(words, PIECES, count << _HALF)
    take_pieces(words, 0)
    spins = 0
    while read(words, FINISHED) < count:
        spins += 1
        wait_a_little(words, spins)
