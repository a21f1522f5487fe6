"""Notices an environment that does not return from a call of `step` or `reset`.

A call that hangs cannot be interrupted, in C code least of all. So a thread looks from time to time
which call is under way, and ends the process if it is the same one for too long. On the path of a
step nothing but a counter changes.

C code that hangs while it holds the interpreter lock stops this thread too. Of worker processes the
parent notices that (`workers.process`).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn, Self

from dstrl_cli.envs.calls import real_exit

LOOK_EVERY_S = 1.0
"""How often the thread looks; more often where the limit is short."""

Hung = Callable[[str, str], None]
"""Is told, on the thread, which environment hangs and in what, before the process ends."""


def say(who: str, cause: str) -> None:
    """Print the error that ends the program."""
    print(f"error: {who} failed: {cause}", file=sys.stderr, flush=True)


def too_long(what: str, limit: float) -> str:
    """Return in words that a call of `what`, `step` or `reset`, took longer than the limit."""
    return f"a call of {what} took longer than env.timeout = {limit:g} s"


class Watch:
    """Ends the process if one call of an environment takes too long; a context that watches.

    Args:
        name: of the environment.
        limit: seconds that a call may take; None: as long as it wants.
        hung: is told what happened before the process ends.
        exit_code: with which the process ends.
    """

    def __init__(
        self, name: str, limit: float | None, hung: Hung = say, exit_code: int = 1
    ) -> None:
        self._name, self._hung, self._exit_code = name, hung, exit_code
        self.calls, self.row, self._what = 0, -1, ""  # row -1: no call is under way
        self._closed = threading.Event()
        self._call = _Call(self)
        if limit is not None:
            threading.Thread(target=self._look, args=(limit,), daemon=True).start()

    def call(self, row: int, what: str) -> _Call:
        """Return the context of one call, of `step` or `reset`, of a row's environment."""
        self.calls += 1
        self.row, self._what = row, what
        return self._call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no more; closing twice is allowed."""
        self._closed.set()

    def _look(self, limit: float) -> None:
        pause = min(LOOK_EVERY_S, limit / 4)
        seen, taken, looked = 0, 0.0, time.monotonic()
        while not self._closed.wait(pause):
            now = time.monotonic()
            same = self.row >= 0 and self.calls == seen
            # Time in which the whole process was stopped (Ctrl-Z, a sleeping laptop) is no delay.
            taken = taken + min(now - looked, 2 * pause) if same else 0.0
            seen, looked = self.calls, now
            if taken >= limit:
                self._end(limit)

    def _end(self, limit: float) -> NoReturn:
        try:
            self._hung(f"environment {self.row} ({self._name})", too_long(self._what, limit))
            sys.stdout.flush()
        finally:
            real_exit(self._exit_code)


class _Call:
    """The context of one call: at its end none is under way."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._watch.row = -1
