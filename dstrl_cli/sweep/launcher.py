"""Trains what a placement says: the loop that keeps every queue busy and gathers how runs ended.

A `Launcher` starts the populations: that of `local` starts processes on this machine. A population
that fails stops the others only if the user wishes so. A run that another process trains is waited
for, after everything else is done.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from dstrl_cli.machine import WORKER_KILLED
from dstrl_cli.report.words import counted
from dstrl_cli.runs import lock
from dstrl_cli.runs.status import FAILED, INTERRUPTED
from dstrl_cli.runs.summary import mark_ended
from dstrl_cli.sweep import shared
from dstrl_cli.sweep.display import Display
from dstrl_cli.sweep.interrupts import interrupts_held
from dstrl_cli.sweep.output import RunLogs
from dstrl_cli.sweep.packing import PlannedPopulation, groups
from dstrl_cli.sweep.place import Placement
from dstrl_cli.sweep.shared import Ended, Held
from dstrl_cli.training.run import Outcome, Run

Summary = Mapping[str, Any]

GRACE_S = 30.0
"""How long interrupted populations may take to save and to write their summaries."""

AT_ONCE_S = 5.0
"""How long they may take after a second interruption."""

LOOK_EVERY_S = 1.0
"""How often the runs that other processes hold are looked at."""

NOT_STARTED: Summary = {"status": "not started", "error": None}

# --- what a launcher does, and what it says -----------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """A population has a machine, where the launcher chooses among several."""

    node: str


@dataclass(frozen=True)
class Progress:
    """How far a population has come."""

    step: int
    total: int
    steps_per_s: float


@dataclass(frozen=True)
class Episodes:
    """How many episodes a population has had, where episodes end the training."""

    done: int
    total: int


@dataclass(frozen=True)
class Evaluation:
    """A new row of `progress.csv` of a member."""

    member: int
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Note:
    """Something that the user should read."""

    text: str


@dataclass(frozen=True)
class Printed:
    """Something that a population's process printed, to be kept in the runs' logs."""

    data: bytes


@dataclass(frozen=True)
class End:
    """A population has ended; nothing more comes from it.

    `status`: `done` (its members left summaries), `refused` (the input was wrong: nothing was
    written), `held` (another process has the folder of a member, or had it since the start),
    `lost` (it died of an outside cause), `interrupted` or `failed`; with the `error`, if any.
    """

    status: str
    error: str | None = None


Message = Placed | Progress | Episodes | Evaluation | Note | Printed | End


class Launcher(ABC):
    """Starts populations somewhere and passes on what they say; they are known by number."""

    @abstractmethod
    def start(self, number: int, population: PlannedPopulation) -> None:
        """Start a population."""

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> Sequence[tuple[int, Message]]:
        """Wait until populations have said something; return it, each with its number.

        After `timeout_s` it returns in any case. Every population that was started says `End`
        once, however it ended.
        """

    @abstractmethod
    def stop(self, at_once: bool = False) -> None:
        """Ask all populations to save and to end; `at_once`: to end without saving."""

    @abstractmethod
    def busy(self) -> bool:
        """Whether populations run that have not said `End` yet."""

    @abstractmethod
    def kill(self) -> None:
        """End all populations that still run; return when none does any more."""

    def close(self) -> None:  # noqa: B027  # most keep nothing
        """Let go of what is kept for further populations; none runs any more."""


@dataclass(frozen=True)
class OnFailure:
    """What happens when a run does not finish.

    Attributes:
        fail_fast: whether all others are then stopped.
        retries: how often a run is tried again that died of an outside cause.
    """

    fail_fast: bool = False
    retries: int = 0


# --- the loop -----------------------------------------------------------------------------------


def execute(
    placement: Placement,
    launcher: Launcher,
    display: Display,
    on_failure: OnFailure = OnFailure(),
) -> list[Outcome]:
    """Train all runs and return how each ended, in the order of the plan.

    KeyboardInterrupt passes through once every run has ended as `interrupted`.
    """
    sweep = _Sweep(placement, launcher, display, on_failure)
    with closing(launcher):
        try:
            sweep.train()
        except BaseException:
            sweep.interrupt()
            raise
        if sweep.stopping:
            display.message("a run did not finish: all others are stopped (--fail-fast)")
            sweep.interrupt()
    ended = sweep.outcomes
    return [ended.get(run.label, Outcome(run, NOT_STARTED)) for run in placement.runs]


class _Sweep:
    """Which populations run, which wait, and how runs ended."""

    def __init__(
        self, placement: Placement, launcher: Launcher, display: Display, on_failure: OnFailure
    ) -> None:
        self.launcher, self.display, self.on_failure = launcher, display, on_failure
        self.queues = placement.queues()
        self.running: dict[int, PlannedPopulation] = {}
        self.queue_of: dict[int, int] = {}
        self.logs: dict[int, RunLogs] = {}
        self.held: list[tuple[int, PlannedPopulation]] = []  # with their queues
        self.numbers = itertools.count(len(placement.populations))
        self.retried: Counter[str] = Counter()
        self.lost: set[str] = set()  # runs that are tried again, and have not started yet
        self.outcomes: dict[str, Outcome] = {}
        self.stopping = self.said_waiting = False
        self.next_look = 0.0

    def train(self) -> None:
        """Train until nothing is left to do, or until a failure stops the sweep."""
        while (self.running or any(self.queues) or self.held) and not self.stopping:
            self.look_again()
            self.fill()
            if self.running:
                self.receive(LOOK_EVERY_S if self.held else None)
            elif self.held and not self.stopping:
                self.wait_for_others()

    def receive(self, timeout_s: float | None) -> None:
        """Wait for what populations say, and take it in."""
        for number, message in self.launcher.receive(timeout_s):
            if isinstance(message, End):
                self.finish(number, message)
            else:
                self.show(number, message)

    # Starting.

    def fill(self) -> None:
        """Start the next population of every queue from which none runs."""
        busy = set(self.queue_of.values())
        for queue, waiting in enumerate(self.queues):
            # on the CPU all queues are the same object
            while waiting and queue not in busy and not self.stopping:
                number, population = waiting.popleft()
                # members that go on from different steps train one after the other
                first, *others = groups(self.free(queue, population)) or [[]]
                for each in others:
                    waiting.appendleft((next(self.numbers), replace(population, runs=each)))
                if first:
                    self.start(number, queue, replace(population, runs=first))
                    busy.add(queue)

    def free(self, queue: int, population: PlannedPopulation) -> list[Run]:
        """Return the members that can be started now; the others are held, or have ended."""
        free, held = [], []
        for run in population.runs:
            match shared.look(run):
                case Held(holder):
                    held.append(run)
                    self.display.state(run.label, f"held by {holder}")
                case Ended(summary):
                    self.end(run, summary)
                case startable:
                    free.append(startable)
        if held:
            self.held.append((queue, replace(population, runs=held)))
        return free

    def start(self, number: int, queue: int, population: PlannedPopulation) -> None:
        """Start a population."""
        config, labels = population.runs[0].config, [run.label for run in population.runs]
        self.display.start(number, population.title, config.steps, config.learning_starts, labels)
        self.logs[number] = RunLogs(population.runs)
        for run in population.runs:
            self.say_again(run)
        with interrupts_held():
            self.launcher.start(number, population)
            self.running[number], self.queue_of[number] = population, queue

    def say_again(self, run: Run) -> None:
        """Say from where a run goes on that is tried again."""
        if run.label in self.lost:
            self.lost.remove(run.label)
            resumes = f"resumes at step {run.step:,}"
            over = "starts again from step 0: it left no checkpoint"
            self.display.message(f"{run.label} {resumes if run.start == 'resume' else over}")

    # Runs that other processes hold.

    def look_again(self) -> None:
        """Look at all held runs from time to time, and queue those that are free now."""
        if not self.held or time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + LOOK_EVERY_S
        before, self.held = self.held, []
        held = lock.holders(run.path for _, population in before for run in population.runs)
        for queue, population in before:
            if free := [run for run in population.runs if run.path not in held]:
                self.queues[queue].append((next(self.numbers), replace(population, runs=free)))
            if others := [run for run in population.runs if run.path in held]:
                self.held.append((queue, replace(population, runs=others)))
            for run in others:
                self.display.state(run.label, f"held by {held[run.path]}")

    def wait_for_others(self) -> None:
        """Wait a while for the runs that other processes hold; say so the first time."""
        if not self.said_waiting:
            self.said_waiting = True
            labels = [run.label for _, population in self.held for run in population.runs]
            self.display.message(
                f"waiting for {counted(len(labels), 'run')} that another dstrl trains: "
                + ", ".join(labels[:5])
                + (", ..." if len(labels) > 5 else "")
            )
        time.sleep(LOOK_EVERY_S)

    # What populations say.

    def show(self, number: int, message: Message) -> None:
        """Show what a population said, and keep it in the logs of its runs."""
        population, logs = self.running[number], self.logs[number]
        match message:
            case Placed(node):
                self.display.placed(number, population.title, node)
            case Progress(step, total, steps_per_s):
                logs.opened()
                self.display.progress(number, step, total, steps_per_s)
            case Episodes(done, total):
                self.display.episodes(number, done, total)
            case Evaluation(member, row):
                logs.opened()
                self.display.evaluation(number, population.runs[member].label, row)
            case Note(text):
                logs.line(text)
                self.display.message(f"{population.title}: {text}")
            case Printed(data):
                logs.write(data)

    def finish(self, number: int, end: End) -> None:
        """Take in that a population has ended; some of its runs may be tried again."""
        population, queue = self.running.pop(number), self.queue_of.pop(number)
        logs = self.logs.pop(number)
        if end.status == "held":
            self.queues[queue].appendleft((next(self.numbers), population))
            return
        if end.status != "refused":  # the folders are not these runs' to write
            logs.end(end.error)
        again = []
        for run in population.runs:
            left = shared.new_summary(run)
            if self.tries_again(run, end, left):
                match shared.again(run):
                    case Held():
                        again.append(run)
                    case Ended(summary):
                        self.end(run, summary)
                    case startable:
                        again.append(startable)
            else:
                self.end(run, summary_of(run, end, left))
        if again:
            retry = replace(population, runs=again)
            self.queues[queue].appendleft((next(self.numbers), retry))

    def tries_again(self, run: Run, end: End, left: Summary | None) -> bool:
        """Whether a run is tried again; count and say it."""
        cause = outside_cause(end, left)
        if cause is None or self.stopping or self.retried[run.label] >= self.on_failure.retries:
            return False
        self.retried[run.label] += 1
        self.lost.add(run.label)
        count = f"{self.retried[run.label]} of {self.on_failure.retries}"
        self.display.message(f"{run.label}: {cause}; trying again ({count})")
        self.display.state(run.label, "waiting")
        return True

    def end(self, run: Run, summary: Summary) -> None:
        """Take in and show how a run ended."""
        outcome = self.outcomes[run.label] = Outcome(run, summary)
        self.display.finish(run.label, summary)
        if self.on_failure.fail_fast and not outcome.finished:
            self.stopping = True

    # Interruptions.

    def interrupt(self) -> None:
        """Let everything that runs save and end; a second interruption ends it at once."""
        self.stopping = True
        try:
            self.launcher.stop()
            self.drain(GRACE_S)
        except KeyboardInterrupt:
            with interrupts_held():
                self.launcher.stop(at_once=True)
                self.drain(AT_ONCE_S)
        with interrupts_held():
            self.launcher.kill()
            self.mark_interrupted()

    def drain(self, grace_s: float) -> None:
        """Take in what populations say until all have ended, for at most `grace_s`."""
        deadline = time.monotonic() + grace_s
        while self.launcher.busy() and (left := deadline - time.monotonic()) > 0:
            self.receive(left)

    def mark_interrupted(self) -> None:
        """Mark the runs that could not write themselves that they were interrupted."""
        end = End(INTERRUPTED)
        for population in self.running.values():
            for run in population.runs:
                self.end(run, summary_of(run, end, shared.new_summary(run)))


# --- how a run ended ----------------------------------------------------------------------------


def summary_of(run: Run, end: End, left: Summary | None) -> Summary:
    """Return the summary that a run left before its population ended, or mark how that did."""
    if end.status == "refused":  # the folder is not this run's to write
        return {"status": FAILED, "error": end.error}
    if left:
        return left
    if end.status == "done":
        return mark_ended(run.path, FAILED, "it left no summary", run.config)
    status = FAILED if end.status == "lost" else end.status
    return mark_ended(run.path, status, end.error, run.config)


def outside_cause(end: End, left: Summary | None) -> str | None:
    """Return what killed a run if that was not an error of its own, else None.

    That is the death of its process, or of a process that stepped its environments. `left` is the
    summary that the run left.
    """
    if left:
        error = str(left.get("error"))
        return error if left.get("status") == FAILED and WORKER_KILLED in error else None
    return end.error if end.status == "lost" else None
