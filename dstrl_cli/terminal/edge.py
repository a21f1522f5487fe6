"""The edge of the command line: exit codes, interruptions, messages, and what nobody expected."""

from __future__ import annotations

import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dstrl_cli.errors import DstrlError, InputError, described
from dstrl_cli.machine import leave_terminal
from dstrl_cli.terminal.streams import patient_streams

INTERRUPTED = 130


SIGNALS = [signal.SIGTERM, signal.SIGHUP]
"""What is treated as Ctrl-C: a job's time is up, or the terminal has gone."""


def run_app(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """Run a command line; return the exit code (0 done, 1 failed, 2 wrong input, 130)."""
    with patient_streams() as output:
        code = _run(app, arguments)
        if output is not None:
            output.flush()
            if output.problem and not code:
                say(f"standard output cannot be written: {output.problem}", heading="error: ")
                return 1
        return code


def _run(app: Callable[..., Any], arguments: Sequence[str] | None) -> int:
    """Run a command and say what stopped it; return the exit code."""
    try:
        app(None if arguments is None else list(arguments), prog_name="dstrl")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except DstrlError as error:
        say(str(error), heading="error: ")
        return 2 if isinstance(error, InputError) else 1
    except OSError as error:  # a full disk, a folder that somebody removed
        if error.filename is None or error.strerror is None:
            say_unexpected(error)
        else:
            say(f"{error.filename}: {error.strerror}", heading="error: ")
        return 1
    except Exception as error:
        say_unexpected(error)
        return 1
    return 0


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
    from rich.text import Text

    from dstrl_cli.terminal.screen import screen

    console = screen(stderr=True)
    message = Text.assemble((heading, "bold red"), text)
    console.print(message, soft_wrap=not console.is_terminal)


def say_unexpected(error: Exception) -> None:
    """Print in one line what went wrong unforeseen, and where its traceback is."""
    say(
        f"{described(error, longest=300)}; this should not happen: {_keep(error)}",
        heading="error: ",
    )


def _keep(error: Exception) -> str:
    """Write the traceback to a new file; return a sentence that says where, or why it is not."""
    try:
        descriptor, name = tempfile.mkstemp(prefix="dstrl-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    except OSError as problem:
        return f"its traceback could not be saved ({problem.strerror})"
    return f"please report it with its traceback, saved in {name}"
