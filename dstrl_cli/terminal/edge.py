"""Interruptions and error messages of the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from dstrl_cli.machine import leave_terminal

INTERRUPTED = 130


SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What is treated as Ctrl-C: a job's time is up, or the terminal has gone."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C, and end with exit code 130 on any of them.

    A signal that is ignored, as SIGHUP is under `nohup`, stays ignored.
    """

    def interrupt(number: int, _: object) -> None:
        if number not in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it may come from the terminal and the shell
            leave_terminal()
        raise KeyboardInterrupt

    heeded = [each for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    before = {each: signal.signal(each, interrupt) for each in heeded}
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted")
        raise SystemExit(INTERRUPTED) from None
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def say(text: str, heading: str = "") -> None:
    """Print a message on standard error; a terminal's is wrapped at words."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    message = Text.assemble((heading, "bold red"), text)
    console.print(message, soft_wrap=not console.is_terminal)
