"""Stopping a training where it can go on later: at the next step, after a signal.

Ctrl-C, SIGTERM (which job schedulers send) and SIGHUP (a terminal that closes) are requests to
stop. A second one ends the training at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dstrl_cli.machine import leave_terminal

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Stopped(Exception):
    """A training was asked to stop, and is between two steps."""


class Stop:
    """Whether a training was asked to stop."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise Stopped where a stop was asked for."""
        if self.requested:
            raise Stopped


_listening: list[Stop] = []
"""The training that listens now, if one does."""


def ask() -> None:
    """Ask the training that runs in this process to stop; once is enough.

    Raises KeyboardInterrupt where none has begun yet.
    """
    if not _listening:
        raise KeyboardInterrupt
    _listening[-1].requested = True


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Turn the first signal into a request to stop, and the next one into KeyboardInterrupt.

    A signal that the process ignores, as SIGHUP under `nohup`, stays ignored. Outside the main
    thread, where Python handles no signals, only `ask` asks for a stop.
    """
    signals = 0  # `ask` does not count: who asks may also have sent the first signal

    def handle(number: int, _: object) -> None:
        nonlocal signals
        signals += 1
        if number not in (signal.SIGINT, signal.SIGTERM):
            # It may come from the terminal and from the shell.
            signal.signal(number, signal.SIG_IGN)
            leave_terminal()
        if signals > 1:
            raise KeyboardInterrupt
        stop.requested = True

    before = {}
    if threading.current_thread() is threading.main_thread():
        heeded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, handle) for each in heeded}
    _listening.append(stop)
    try:
        yield
    finally:
        _listening.pop()
        for each, handler in before.items():
            signal.signal(each, handler)
