"""Trains on this machine: one run in this process, or every population in a process of its own."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from typing_extensions import override

from dstrl_cli.errors import InputError
from dstrl_cli.sweep.display import Display, DisplayReporter
from dstrl_cli.sweep.interrupts import interrupts_held
from dstrl_cli.sweep.launcher import End, Episodes, Evaluation, Launcher, Message, Note, Progress
from dstrl_cli.sweep.packing import PlannedPopulation
from dstrl_cli.sweep.place import Placement
from dstrl_cli.training.run import Outcome, Run, explain, quiet, train

GRACE_S = 30.0
"""How long interrupted processes may take to write their summaries."""

REPORT_EVERY_S = 0.2


def train_here(placement: Placement, display: Display) -> Outcome:
    """Train the only run of a placement in this process; exceptions pass through."""
    (population,) = placement.populations
    (run,) = population.runs
    display.start(0, run.label, run.config.steps, run.config.learning_starts)
    reporter = DisplayReporter(display, 0, [run.label])
    (summary,) = train([run], population.device.name, reporter)
    display.finish(0, run.label, summary)
    return Outcome(run, summary)


# --- in a population's process ------------------------------------------------------------------


class _PipeReporter:
    """Sends what the trainer reports to the process that shows it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next = 0.0

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_EVERY_S
            self._send(Progress(step, total, steps_per_s))

    def episodes(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next:  # `progress`, which follows, sets the next time
            self._send(Episodes(done, total))

    def evaluation(self, member: int, row: Mapping[str, Any]) -> None:
        self._send(Evaluation(member, dict(row)))

    def message(self, text: str) -> None:
        self._send(Note(text))

    def _send(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionError):
            raise KeyboardInterrupt from None  # the process that started this one is gone


def _work(runs: Sequence[Run], device: str, connection: Connection) -> None:
    """Train one population: the whole life of a process."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb the cleanup
        raise KeyboardInterrupt

    import torch  # noqa: F401  # before SIGTERM is handled: interrupting the import prints stacks

    signal.signal(signal.SIGTERM, interrupt)
    quiet()
    end = End("done")
    try:
        train(runs, device, _PipeReporter(connection))
    except KeyboardInterrupt:
        end = End("interrupted")
    except InputError as error:
        end = End("refused", str(error))
    except Exception as error:  # becomes the runs' outcome
        end = End("failed", explain(error))
    with suppress(OSError):  # the other end may be gone
        connection.send(end)
    connection.close()


# --- in the process that waits for them ---------------------------------------------------------


@dataclass
class _Job:
    """A population's process, and what it has said about its end."""

    number: int
    process: BaseProcess
    end: End | None = None


class LocalLauncher(Launcher):
    """Starts every population in a process of this machine."""

    def __init__(self) -> None:
        self._jobs: dict[Connection, _Job] = {}

    @override
    def start(self, number: int, population: PlannedPopulation) -> None:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        # not a daemon: daemons may not start processes, and environments may need them
        process = context.Process(
            target=_work, args=(population.runs, population.device.name, sender), daemon=False
        )
        with interrupts_held():
            process.start()
            self._jobs[receiver] = _Job(number, process)
        sender.close()  # the process holds the only other end: the pipe closes when it dies

    @override
    def receive(self) -> list[tuple[int, Message]]:
        said: list[tuple[int, Message]] = []
        for ready in wait(list(self._jobs)):
            assert isinstance(ready, Connection)
            job = self._jobs[ready]
            try:
                message = ready.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                del self._jobs[ready]
                said.append((job.number, _ended(ready, job)))
                continue
            if isinstance(message, End):
                job.end = message  # passed on when the process is gone
            else:
                said.append((job.number, message))
        return said

    @override
    def interrupt(self) -> None:
        """End all processes; one that takes longer than `GRACE_S` is killed."""
        for connection, job in self._jobs.items():
            job.process.terminate()
            connection.close()  # a process that waits for a reader gets an error instead
        deadline = time.monotonic() + GRACE_S
        for job in self._jobs.values():
            job.process.join(max(0.0, deadline - time.monotonic()))
            if job.process.is_alive():
                job.process.kill()
                job.process.join()


def _ended(connection: Connection, job: _Job) -> End:
    """Return how a process ended whose pipe has closed."""
    connection.close()
    job.process.join()
    return job.end or End("failed", _death(job.process.exitcode))


def _death(exit_code: int | None) -> str:
    """Return in words how a process ended that said nothing about it."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"its process was killed by {name}" + (
            " (out of memory?)" if name == "SIGKILL" else ""
        )
    return f"its process ended unexpectedly with exit code {exit_code}"
