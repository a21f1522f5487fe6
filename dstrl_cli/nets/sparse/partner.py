"""A second thread for compiled code: it waits there for work, without the interpreter lock.

Handing work over costs a few microseconds, since no Python runs on the second thread: both threads
use two of the interpreter's locks by the addresses of their C functions. A lock's holder may be
another thread than the one that releases it, so a lock says `go` one way and `done` the other.
Whoever hands over work waits until it is done before the next.

The thread that waits for work takes its share of the pieces that the work lays out (`pieces`).
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np
from numba import int64
from numba.extending import register_jitable
from numpy.typing import NDArray

from dstrl_cli.compiler import discard_stale, jit
from dstrl_cli.nets.sparse import pieces, tables
from dstrl_cli.nets.sparse.pieces import OWN, YIELD, pause, read, take_pieces, wait_a_little, write
from dstrl_cli.nets.sparse.tables import call, numbers_at

ACQUIRE, RELEASE, GO, DONE, FUNCTION, ARGUMENT, BUSY, ENDED, WORDS = range(OWN, OWN + 9)
"""Words of a board, after those of `pieces`: two C functions, two locks, what to call with which
number, whether work was handed over that nobody has waited for, and whether it has ended."""
LOOKS = 5000
"""Looks for work before the second thread sleeps: a quarter of a millisecond. To be woken takes
long, and often puts both threads on one processor for a while."""


@register_jitable
def hand_over(board: int, function: int, argument: int) -> None:
    """Let the second thread call the function at an address (`tables.address_of`) with a number."""
    words = numbers_at(board, WORDS)
    words[FUNCTION], words[ARGUMENT], words[BUSY] = function, argument, 1
    write(words, ENDED, 0)
    call(words[RELEASE], words[GO])


@register_jitable
def wait_for(board: int) -> None:
    """Wait until what was handed over is done, if anything was, and take a share of its pieces."""
    words, spins = numbers_at(board, WORDS), 0
    if words[BUSY]:
        while not read(words, ENDED):
            take_pieces(words, 1)
            spins += 1
            wait_a_little(words, spins)
        call(words[ACQUIRE], words[DONE], 1)
        words[BUSY] = 0


@jit
def serve(board: int) -> None:
    """Do what is handed over, on the second thread, until that is nothing."""
    words = numbers_at(board, WORDS)
    while True:
        for _ in range(LOOKS):
            if not read(words, ENDED):
                break
            pause()
        call(words[ACQUIRE], words[GO], 1)
        if words[FUNCTION] == 0:
            return
        call(words[FUNCTION], words[ARGUMENT])
        write(words, ENDED, 1)
        call(words[RELEASE], words[DONE])


@jit
def start(board: int, function: int, argument: int) -> None:
    """Do `hand_over` from Python: nothing, a signal neither, can come in between its parts."""
    hand_over(board, function, argument)


@jit
def wait(board: int) -> None:
    """Do `wait_for` from Python, without the interpreter lock."""
    wait_for(board)


class Partner:
    """The second thread, begun at once: like any thread it takes over how floats are rounded.

    It ends with `close`, or when nobody refers to this object any more.

    Attributes:
        address: of the board, for `hand_over` and `wait_for`.
    """

    def __init__(self) -> None:
        compile_all()
        words = np.zeros(WORDS, np.int64)
        words[[ACQUIRE, RELEASE]] = _address("PyThread_acquire_lock"), _address(_RELEASE)
        words[YIELD] = _address("sched_yield")
        words[[GO, DONE]] = _held_lock(), _held_lock()
        words[ENDED] = 1
        self.words = words  # kept, so that waiting is allowed when the thread has ended
        self.address: int = words.ctypes.data
        thread = threading.Thread(target=serve, args=(self.address,), daemon=True)
        self.close = weakref.finalize(self, _end, words, thread, os.getpid())
        thread.start()

    def start(self, function: int, argument: int) -> None:
        """Hand over a call; see `hand_over`."""
        start(self.address, function, argument)

    def wait(self) -> None:
        """Wait for what was handed over."""
        wait(self.address)


_RELEASE = "PyThread_release_lock"


def _end(words: NDArray[np.int64], thread: threading.Thread, process: int) -> None:
    """End the second thread, and free its locks; not in a forked process, which has only one."""
    if os.getpid() != process:
        return
    wait(words.ctypes.data)
    start(words.ctypes.data, 0, 0)
    thread.join()
    words[BUSY] = 0  # the thread does not say that it has ended
    for lock in words[[GO, DONE]].tolist():
        ctypes.pythonapi.PyThread_free_lock(ctypes.c_void_p(lock))


def _address(name: str) -> int:
    """Return the address of a C function of the interpreter, or of the C library."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


def _held_lock() -> int:
    """Return the address of a new lock, held; it is Python's own, on whatever system."""
    make: Any = ctypes.pythonapi.PyThread_allocate_lock
    make.restype = ctypes.c_void_p
    lock: int = make()
    ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(lock), ctypes.c_int(1))
    return lock


FUNCTIONS = (serve, start, wait)
SOURCES = (__file__, pieces.__file__, tables.__file__)

discard_stale(serve, SOURCES)


@cache
def compile_all() -> None:
    """Compile every function, or load it from disk."""
    serve.compile((int64,))
    start.compile((int64, int64, int64))
    wait.compile((int64,))
