"""The program of a process that trains populations, one after the other; `local` starts it."""

from __future__ import annotations

import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.runs.lock import InUse
from dstrl_cli.runs.status import FAILED, INTERRUPTED
from dstrl_cli.sweep.interrupts import WorkerInterrupts
from dstrl_cli.sweep.kept import all_finished, flush_output, put_back
from dstrl_cli.sweep.launcher import End, Episodes, Evaluation, Message, Note, Progress
from dstrl_cli.sweep.shared import look
from dstrl_cli.training import stop
from dstrl_cli.training.run import Run, explain, quiet, train

REPORT_EVERY_S = 0.2


@dataclass(frozen=True)
class Pipes:
    """A process's ends of the pipes to the one that started it.

    Attributes:
        messages: what the population says.
        output: what the process prints.
        orders: what the process that started it orders; see `WorkerInterrupts`.
        work: further populations (`Work`), or None where there are none.
    """

    messages: Connection
    output: Connection
    orders: Connection
    work: Connection


@dataclass(frozen=True)
class Work:
    """What a process trains.

    Attributes:
        runs: the members of a population.
        device: the device to train on.
        kept: whether the process waits for further work when all of them have finished.
    """

    runs: Sequence[Run]
    device: str
    kept: bool = False

    def is_taken(self) -> bool:
        """Whether another process trains a member, or did so since it was planned."""
        return any(look(run) is not run for run in self.runs)


@dataclass(frozen=True)
class Began:
    """The process has got its work."""


@dataclass(frozen=True)
class Waiting:
    """After `End`: the process waits for further work, and all that it printed is in its pipe."""


def main(work: Work, pipes: Pipes) -> None:
    """Train one population, and others as long as they may share a process: its whole life."""
    _print_to(pipes.output)
    interrupts = WorkerInterrupts(pipes.orders, stop.ask)
    with suppress(OSError, EOFError):  # the process that started this one is gone
        _train_all(work, pipes, interrupts)
    pipes.messages.close()


def _train_all(first: Work, pipes: Pipes, interrupts: WorkerInterrupts) -> None:
    """Train populations until there is no other, or one must be the last of its process."""
    work: Work | None = first
    while work is not None:
        kept = False
        try:
            pipes.messages.send(Began())
            end = _train(work, pipes.messages)
            interrupts.ignore()
            kept = work.kept and end.status == "done" and all_finished(work.runs)
        except KeyboardInterrupt:
            end = End(INTERRUPTED)
        flush_output()
        pipes.messages.send(end)
        if not kept:
            return
        put_back()
        pipes.messages.send(Waiting())
        try:
            interrupts.heed()
            work = pipes.work.recv()
        except KeyboardInterrupt:
            pipes.messages.send(End(INTERRUPTED))  # of work that was on its way, if there was any
            return


def _train(work: Work, messages: Connection) -> End:
    """Train, and return how that ended."""
    quiet()
    try:
        import torch  # noqa: F401  # takes seconds, in which others may have taken a folder

        if work.is_taken():
            return End("held")
        train(work.runs, work.device, PipeReporter(messages))
    except InUse:
        return End("held")
    except InputError as error:
        if work.is_taken():  # another process was faster, and may have finished already
            return End("held")
        return End("refused", str(error))
    except Exception as error:  # becomes the runs' outcome
        if not isinstance(error, DstrlError) or error.__cause__ is not None:
            traceback.print_exception(error)
        return End(FAILED, explain(error))
    return End("done")


def _print_to(output: Connection) -> None:
    """Let everything print to a pipe, what is not written in Python as well."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in (1, 2):
        os.dup2(output.fileno(), descriptor)
    output.close()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()  # says in which line a process was that crashes


class PipeReporter:
    """Sends what the trainer reports to the process that shows it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next = 0.0
        self._episodes: Episodes | None = None  # the latest count, if there is one

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        """Send how far the training is, a few times a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_EVERY_S
            self._send(Progress(step, total, steps_per_s))

    def episodes(self, done: int, total: int) -> None:
        """Send how many episodes were had; the latest number comes with every evaluation."""
        self._episodes = Episodes(done, total)
        if time.monotonic() >= self._next:  # `progress`, which follows, sets the next time
            self._send(self._episodes)

    def evaluation(self, member: int, row: Mapping[str, Any]) -> None:
        """Send an evaluation's row."""
        if self._episodes is not None:
            self._send(self._episodes)
        self._send(Evaluation(member, dict(row)))

    def message(self, text: str) -> None:
        """Send a line for the user."""
        self._send(Note(text))

    def _send(self, message: Message) -> None:
        with suppress(BrokenPipeError, ConnectionError):  # the process that started this is gone
            self._connection.send(message)
