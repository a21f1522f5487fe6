"""Trains what a placement says: the loop that keeps every queue busy and gathers how runs ended.

A `Launcher` starts the populations: that of `local` starts processes on this machine. A population
that fails does not stop the others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dstrl_cli.runs.summary import mark_ended, read_summary
from dstrl_cli.sweep.display import Display
from dstrl_cli.sweep.interrupts import interrupts_held
from dstrl_cli.sweep.packing import PlannedPopulation
from dstrl_cli.sweep.place import Placement
from dstrl_cli.training.run import Outcome, Run

Summary = Mapping[str, Any]

# --- what a launcher does, and what it says -----------------------------------------------------


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
class End:
    """A population has ended; nothing more comes from it.

    `status`: `done` (its members left summaries), `refused` (the input was wrong: nothing was
    written), `interrupted` or `failed`; with the `error`, if any.
    """

    status: str
    error: str | None = None


Message = Progress | Episodes | Evaluation | Note | End


class Launcher(ABC):
    """Starts populations somewhere and passes on what they say; they are known by number."""

    @abstractmethod
    def start(self, number: int, population: PlannedPopulation) -> None:
        """Start a population."""

    @abstractmethod
    def receive(self) -> Sequence[tuple[int, Message]]:
        """Wait until populations have said something; return it, each with its number.

        Every population that was started says `End` once, however it ended.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """End all populations that run; return when none does any more.

        They write that they were interrupted as far as they can.
        """


# --- the loop -----------------------------------------------------------------------------------


def execute(placement: Placement, launcher: Launcher, display: Display) -> list[Outcome]:
    """Train all runs and return how each ended, in the order of the plan.

    KeyboardInterrupt passes through once every run has ended as `interrupted`.
    """
    queues = placement.queues()
    running = _Running(launcher, display)
    outcomes: dict[str, Outcome] = {}
    try:
        while running.populations or any(queues):
            running.fill(queues)
            for number, message in launcher.receive():
                if isinstance(message, End):
                    outcomes |= {end.run.label: end for end in running.finish(number, message)}
                else:
                    running.show(number, message)
    except BaseException:
        with interrupts_held():  # a second Ctrl-C waits until all have ended
            launcher.interrupt()
            running.mark_interrupted()
        raise
    return [outcomes[run.label] for run in placement.runs]


class _Running:
    """The populations that run now: which queue each is from, and what its folders held before."""

    def __init__(self, launcher: Launcher, display: Display) -> None:
        self.launcher, self.display = launcher, display
        self.populations: dict[int, PlannedPopulation] = {}
        self.queue_of: dict[int, int] = {}
        self.before: dict[int, dict[str, Summary | None]] = {}

    def fill(self, queues: Sequence[deque[tuple[int, PlannedPopulation]]]) -> None:
        """Start the next population of every queue from which none runs."""
        busy = set(self.queue_of.values())
        for queue, waiting in enumerate(queues):
            if queue in busy or not waiting:  # on the CPU all queues are the same object
                continue
            number, population = waiting.popleft()
            config = population.runs[0].config
            self.display.start(number, population.title, config.steps, config.learning_starts)
            self.before[number] = {run.label: read_summary(run.path) for run in population.runs}
            self.populations[number], self.queue_of[number] = population, queue
            self.launcher.start(number, population)

    def show(self, number: int, message: Message) -> None:
        """Show what a population said."""
        population = self.populations[number]
        match message:
            case Progress(step, total, steps_per_s):
                self.display.progress(number, step, total, steps_per_s)
            case Episodes(done, total):
                self.display.episodes(number, done, total)
            case Evaluation(member, row):
                self.display.evaluation(number, population.runs[member].label, row)
            case Note(text):
                self.display.message(f"{population.title}: {text}")

    def finish(self, number: int, end: End) -> list[Outcome]:
        """Return and show how the runs of a population ended, which then runs no more."""
        population, before = self.populations.pop(number), self.before.pop(number)
        del self.queue_of[number]
        outcomes = [
            Outcome(run, summary_of(run, end, before[run.label])) for run in population.runs
        ]
        for outcome in outcomes:
            self.display.finish(number, outcome.run.label, outcome.summary)
        return outcomes

    def mark_interrupted(self) -> None:
        """Mark the runs that could not write themselves that they were interrupted."""
        for population in self.populations.values():
            for run in population.runs:
                if read_summary(run.path) is None:
                    mark_ended(run.path, "interrupted", None, run.config)


def summary_of(run: Run, end: End, before: Summary | None) -> Summary:
    """Return the summary that a run left before its population ended, or mark how that did.

    `before` is the summary of an earlier attempt, which is not this one's.
    """
    if end.status == "refused":  # the folder is not this run's to write
        return {"status": "failed", "error": end.error}
    left = read_summary(run.path)
    if left and left != before:
        return left
    if end.status == "done":
        return mark_ended(run.path, "failed", "it left no summary", run.config)
    return mark_ended(run.path, end.status, end.error, run.config)
