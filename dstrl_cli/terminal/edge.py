"""Interruptions and error messages of the command line."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def interruptible() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, and end with exit code 130 on either."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted")
        raise SystemExit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def say(text: str, heading: str = "") -> None:
    """Print a message on standard error; a terminal's is wrapped at words."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    message = Text.assemble((heading, "bold red"), text)
    console.print(message, soft_wrap=not console.is_terminal)
