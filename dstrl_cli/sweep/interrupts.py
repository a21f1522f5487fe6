"""Interruptions: holding them back where they would do harm, and what they do in a worker."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from dstrl_cli.training.stop import SIGNALS

ORPHAN_S = 4
"""How long a worker may take to save and end after the process that started it has died."""

PAUSE_S = 0.1
"""Between two signals, so that they are two."""

STOP, AT_ONCE = b"stop", b"at once"
"""What the process that started a worker may order."""


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let interruptions arrive only when the block ends, and never in processes that it starts.

    A new process inherits blocked signals. Only the process that starts the others reacts to
    Ctrl-C or to the end of the terminal, and ends them. Signals are blocked in this thread alone:
    where another thread takes one, Python would call its handler here all the same.
    """
    resource_tracker.ensure_running()  # it would unblock signals if the block started it
    came: list[int] = []
    handled: list[int] = []
    if threading.current_thread() is threading.main_thread():
        handled = [each for each in SIGNALS if callable(signal.getsignal(each))]
    handlers: dict[int, Any] = {
        each: signal.signal(each, lambda number, _: came.append(number)) for each in handled
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            _set_handlers(handlers)
        finally:  # one that is back may raise before the others are
            _set_handlers(handlers)
        for number in came:
            signal.raise_signal(number)


def _set_handlers(handlers: Mapping[int, Any]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)


class WorkerInterrupts:
    """Stops the run of a worker: on SIGTERM, by order, or when the parent process has died.

    Args:
        orders: where the parent sends orders; it closes when the parent ends, however it does.
        ask: asks the training to save and to end; it raises KeyboardInterrupt where there is
            nothing to save, which is then raised in the main thread. It may be called often.
    """

    def __init__(self, orders: Connection, ask: Callable[[], None]) -> None:
        self._orders, self._ask = orders, ask
        self._main = threading.main_thread()
        self._over = False  # whether nothing is left to interrupt
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._watch, daemon=True).start()
        # blocked since the start of the process
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def ignore(self) -> None:
        """Ignore interruptions from now on: the run has ended."""
        self._over = True

    def heed(self) -> None:
        """Heed interruptions again: another run may begin."""
        self._over = False

    def _on_signal(self, *_: object) -> None:
        if not self._over:
            self._over = True  # a second one must not disturb the cleanup
            raise KeyboardInterrupt

    def _watch(self) -> None:
        """Carry out orders; when the parent is gone, let the run save, then end the process."""
        with suppress(EOFError, OSError):
            while True:
                if self._orders.recv_bytes() == STOP:
                    self._stop()
                    continue
                for _ in range(2):  # the first signal may be a request to save
                    self._wake()
                    time.sleep(PAUSE_S)
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):  # nobody reads what is printed: writing would fail
            os.dup2(null, descriptor)
        self._stop()
        signal.alarm(ORPHAN_S)  # ends the process even if no Python code can run
        time.sleep(ORPHAN_S + 0.5)
        os._exit(1)

    def _stop(self) -> None:
        try:
            self._ask()
        except KeyboardInterrupt:
            self._wake()

    def _wake(self) -> None:
        """Interrupt the main thread, whatever it waits for."""
        assert self._main.ident is not None
        signal.pthread_kill(self._main.ident, signal.SIGTERM)
