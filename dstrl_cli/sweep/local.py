"""Trains on this machine: one run in this process, or populations in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from typing_extensions import override

from dstrl_cli.machine import how_it_ended
from dstrl_cli.sweep import worker
from dstrl_cli.sweep.display import Display, DisplayReporter
from dstrl_cli.sweep.interrupts import AT_ONCE, STOP, interrupts_held
from dstrl_cli.sweep.kept import may_share
from dstrl_cli.sweep.launcher import End, Launcher, Message, Printed
from dstrl_cli.sweep.packing import PlannedPopulation
from dstrl_cli.sweep.place import Placement
from dstrl_cli.training.run import Outcome, train

CHUNK = 1 << 16
"""Bytes of a process's output that are read at once."""

Main = Callable[[worker.Work, worker.Pipes], None]
"""The program of a process that trains."""

EXIT_S = 5.0
"""How long a process that waits for work may take to end."""


def train_here(placement: Placement, display: Display) -> Outcome:
    """Train the only run of a placement in this process; exceptions pass through."""
    (population,) = placement.populations
    (run,) = population.runs
    config, label = run.config, run.label
    display.start(0, label, config.steps, config.learning_starts, [label])
    reporter = DisplayReporter(display, 0, [label])
    (summary,) = train([run], population.device.name, reporter)
    display.finish(label, summary)
    return Outcome(run, summary)


@dataclass
class _Job:
    """A population's process, this end of the pipes to it, and what it said about its end."""

    number: int
    process: BaseProcess
    messages: Connection | None
    output: Connection | None
    orders: Connection
    work: Connection
    end: End | None = None
    waiting: bool = False  # whether the process waits for another population
    given: worker.Work | None = None  # what it got while it waited, and has not begun yet

    def sources(self) -> list[Any]:
        """Return what may have news."""
        return [each for each in (self.messages, self.output) if each] + [self.process.sentinel]

    def read_message(self) -> Iterator[tuple[int, Message]]:
        """Yield the next message, unless it is about the end."""
        assert self.messages is not None
        try:
            with interrupts_held():  # half a message would make the next ones unreadable
                message = self.messages.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.messages.close()
            self.messages = None
            return
        if isinstance(message, End):
            self.end = message  # passed on when the process is gone, or waits
        elif isinstance(message, worker.Waiting):
            self.waiting = True
        elif isinstance(message, worker.Began):
            self.given = None
        else:
            yield self.number, message

    def read_output(self) -> Iterator[tuple[int, Message]]:
        """Yield what was printed."""
        assert self.output is not None
        try:
            data = os.read(self.output.fileno(), CHUNK)
        except BlockingIOError:
            return
        if data:
            yield self.number, Printed(data)
        else:
            self.output.close()
            self.output = None

    def last_words(self) -> Iterator[tuple[int, Message]]:
        """Yield what is left to read of a process that has ended, and how it ended."""
        while self.messages is not None and self.messages.poll():
            yield from self.read_message()
        yield from self.rest_of_output()
        self.process.join()
        self.close()
        yield (
            self.number,
            self.end or End("lost", how_it_ended("its process", self.process.exitcode)),
        )

    def rest_of_output(self) -> Iterator[tuple[int, Message]]:
        """Yield what was printed and not read yet."""
        while self.output is not None and wait([self.output], 0):
            yield from self.read_output()

    def population_ended(self) -> Iterator[tuple[int, Message]]:
        """Yield what is left to read of a population, whose process waits, and how it ended."""
        yield from self.rest_of_output()
        assert self.end is not None
        yield self.number, self.end

    def give(self, number: int, work: worker.Work) -> None:
        """Give another population to the process, which waits, or has died without a word."""
        self.number, self.end, self.waiting, self.given = number, None, False, work
        with suppress(OSError):
            self.work.send(work)

    def dismiss(self) -> None:
        """End a process that waits."""
        with suppress(OSError):
            self.work.send(None)
        self.process.join(EXIT_S)
        self.process.kill()  # does nothing where it has ended
        self.process.join()
        self.close()

    def order(self, order: bytes) -> None:
        """Send an order; nothing happens where the process has ended."""
        with suppress(OSError):
            self.orders.send_bytes(order)

    def close(self) -> None:
        """Close the pipes."""
        for each in (self.messages, self.output, self.orders, self.work):
            if each is not None:
                each.close()


class LocalLauncher(Launcher):
    """Starts every population in a process of this machine: a new one, or one that waits.

    `main` is the program of a process.
    """

    def __init__(self, main: Main = worker.main) -> None:
        self._main = main
        self._jobs: dict[int, _Job] = {}
        self._waiting: list[_Job] = []
        self._stopping = False

    @override
    def start(self, number: int, population: PlannedPopulation) -> None:
        self.begin(number, work_of(population))

    def begin(self, number: int, work: worker.Work) -> None:
        """Start a population of which only the work is known."""
        with interrupts_held():
            while self._waiting:
                job = self._waiting.pop()
                if work.kept:
                    job.give(number, work)
                    self._jobs[number] = job
                    return
                job.dismiss()  # no more processes than populations that train
            self._jobs[number] = _start_process(number, work, self._main)

    @override
    def receive(self, timeout_s: float | None = None) -> list[tuple[int, Message]]:
        of = {source: job for job in self._jobs.values() for source in job.sources()}
        said: list[tuple[int, Message]] = []
        for ready in wait(list(of), timeout_s):
            job = of[ready]
            if job.number not in self._jobs:
                continue
            if ready is job.messages:
                said += job.read_message()
            elif ready is job.output:
                said += job.read_output()
            else:
                said += self._after_death(self._jobs.pop(job.number))
                continue
            if job.waiting:
                said += job.population_ended()
                self._waiting.append(self._jobs.pop(job.number))
        return said

    def _after_death(self, job: _Job) -> list[tuple[int, Message]]:
        """Return what a process left to say; where it had not begun its work, another does it."""
        said = list(job.last_words())
        if job.given is None or job.end is not None or self._stopping:
            return said
        with interrupts_held():
            self._jobs[job.number] = _start_process(job.number, job.given, self._main)
        return []

    @override
    def stop(self, at_once: bool = False) -> None:
        self._stopping = True
        for job in self._jobs.values():
            job.order(AT_ONCE if at_once else STOP)

    @override
    def busy(self) -> bool:
        return bool(self._jobs)

    @override
    def kill(self) -> None:
        for job in [*self._jobs.values(), *self._waiting]:
            job.process.kill()
            job.process.join()
            job.close()
        self._jobs.clear()
        self._waiting.clear()

    @override
    def close(self) -> None:
        while self._waiting:
            self._waiting.pop().dismiss()


def work_of(population: PlannedPopulation) -> worker.Work:
    """Return what a process needs to know of a population."""
    return worker.Work(population.runs, population.device.name, may_share(population))


def _start_process(number: int, work: worker.Work, main: Main) -> _Job:
    """Start a process that trains a population first."""
    context = multiprocessing.get_context("spawn")
    messages, output, orders, further = (context.Pipe(duplex=False) for _ in range(4))
    theirs = worker.Pipes(messages[1], output[1], orders[0], further[0])
    # not a daemon: daemons may not start processes, and environments may need them
    process = context.Process(target=main, args=(work, theirs), daemon=False)
    process.start()
    for each in (theirs.messages, theirs.output, theirs.orders, theirs.work):
        each.close()  # the process holds the only other ends: pipes close when it dies
    return _Job(number, process, messages[0], output[0], orders[1], further[1])
