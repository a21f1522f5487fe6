"""Starts populations on the machines of a Ray cluster, and hears from them.

Each is trained by a seat (`seat`), which holds the CPUs or the accelerator that it was made with. A
new one says first on which machine it is, which is asked whether it fits unless it was before.
A seat that has nothing to do gets the next population that takes as much. This process asks every
seat for news, and gets what was said since the last answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError
from typing_extensions import override

from dstrl_cli.errors import InputError
from dstrl_cli.runs import lock
from dstrl_cli.runs.left import left_in
from dstrl_cli.runs.lock import InUse
from dstrl_cli.runs.status import INTERRUPTED
from dstrl_cli.sweep.interrupts import interrupts_held
from dstrl_cli.sweep.launcher import End, Launcher, Message, Placed
from dstrl_cli.sweep.local import work_of
from dstrl_cli.sweep.on_ray import collected
from dstrl_cli.sweep.on_ray.nodes import Nodes, in_short, on_node
from dstrl_cli.sweep.on_ray.seat import Driver, Report, Seat
from dstrl_cli.sweep.packing import PlannedPopulation

REPORTS_PER_S = 100
"""Answers a second of all seats together, so that their number does not matter to this process."""

REPORT_EVERY_S = 1.0
"""Time between two answers of a seat, where there are few."""

KILL_S = 5.0
"""How long seats may take to end what they train, before they are ended themselves."""

SAVE_S = 8.0
"""How long a run whose seat has died may take to save and to end on its machine."""


@dataclass
class _Seat:
    """A seat as this process knows it.

    Attributes:
        actor: the seat itself.
        takes: the resources that it holds.
        answer: what it is about to say.
        number: of the population that it trains; None: it has nothing to do.
        population: what it trains.
        node: the machine it is on; None: it has not said so yet, and trains nothing.
        locks: of the folders here, where results are collected.
    """

    actor: Any
    takes: Mapping[str, float]
    answer: Any = None
    number: int | None = None
    population: PlannedPopulation | None = None
    node: str | None = None
    locks: dict[Path, int] = field(default_factory=dict)


class RayLauncher(Launcher):
    """Trains populations in seats of a Ray cluster.

    Args:
        driver: what this process is like.
        nodes: the machines of the cluster.
    """

    def __init__(self, driver: Driver, nodes: Nodes) -> None:
        self._driver, self._nodes = driver, nodes
        self._make = ray.remote(Seat)
        self._seats: dict[Any, _Seat] = {}  # by their answers
        self._idle: list[_Seat] = []
        self._said: list[tuple[int, Message]] = []

    @override
    def start(self, number: int, population: PlannedPopulation) -> None:
        with interrupts_held():
            try:
                locks = self._locks(population)
            except InUse:
                self._said.append((number, End("held")))
                return
            seat = self._free(_takes(population))
            seat.number, seat.population, seat.locks = number, population, locks
            if seat.node is None:
                self._ask(seat, seat.actor.node)
            else:
                self._said.append(self._begin(seat))

    def _locks(self, population: PlannedPopulation) -> dict[Path, int]:
        """Take the folders here of runs that are collected."""
        locks: dict[Path, int] = {}
        if self._driver.sweep is None:
            return locks
        try:
            for run in population.runs:
                run.path.mkdir(parents=True, exist_ok=True)
                locks[run.path] = lock.acquire(run.path)
                if left_in(run.path) != run.left:  # another sweep was here since it was planned
                    raise InUse(run.path)
        except BaseException:
            _release(locks)
            raise
        return locks

    def _begin(self, seat: _Seat) -> tuple[int, Message]:
        """Let a seat begin with its population; return where that is."""
        number, population = seat.number, seat.population
        assert number is not None
        assert population is not None
        files: dict[str, collected.Files] = {}
        if self._driver.sweep is not None:
            files = {
                r.label: collected.read(r.path) for r in population.runs if r.start == "resume"
            }
        self._ask(seat, seat.actor.begin, number, work_of_all(population), files)
        return number, Placed(self._nodes.name(seat.node))

    def _free(self, takes: Mapping[str, float]) -> _Seat:
        """Return a seat with nothing to do, or a new one; those that hold something else go."""
        found = None
        for seat in self._idle:
            if found is None and seat.takes == takes:
                found = seat
            else:
                _end(seat)
        self._idle.clear()
        if found is not None:
            return found
        options = {**takes, "max_concurrency": 2, "max_restarts": 0, "max_task_retries": 0}
        return _Seat(self._make.options(**options).remote(self._driver), takes)

    def _ask(self, seat: _Seat, method: Any, *arguments: Any) -> None:
        seat.answer = method.remote(*arguments)
        self._seats[seat.answer] = seat

    @override
    def receive(self, timeout_s: float | None = None) -> Sequence[tuple[int, Message]]:
        while self._idle:  # there was nothing left to give to them
            _end(self._idle.pop())
        if not self._said and self._seats:
            answers = list(self._seats)
            ready, _ = ray.wait(answers, num_returns=1, timeout=timeout_s)
            more, _ = ray.wait(answers, num_returns=len(answers), timeout=0) if ready else ([], [])
            with interrupts_held():  # an answer that was taken must be told
                for answer in more:
                    self._said += self._hear(self._seats.pop(answer))
        said, self._said = self._said, []
        return said

    def _hear(self, seat: _Seat) -> Sequence[tuple[int, Message]]:
        """Return what a seat says, and ask it again unless its population has ended.

        Raises InputError where it is on a machine that joined later and does not fit.
        """
        assert seat.number is not None
        try:
            answer = ray.get(seat.answer)
        except RayError as error:
            if seat.node is None:
                self._check(seat, self._nodes.check_new)  # one may not even have dstrl
            return [(seat.number, self._lost(seat, error))]
        if seat.node is None:
            self._check(seat, partial(self._nodes.check, answer))
            seat.node = answer
            return [self._begin(seat)]
        report: Report = answer
        said = list(report.said)
        self._keep(seat, report.files)
        if any(isinstance(message, End) for _, message in said):
            _release(seat.locks)
            if report.files:
                seat.actor.forget.remote()
            seat.number = None
            self._idle.append(seat)
        else:
            every = max(REPORT_EVERY_S, (len(self._seats) + 1) / REPORTS_PER_S)
            self._ask(seat, seat.actor.receive, every)
        return said

    def _check(self, seat: _Seat, check: Callable[[], None]) -> None:
        """Carry out a check of machines; a seat on one that does not fit ends."""
        try:
            check()
        except InputError:
            self._abandon(seat)
            raise

    def _abandon(self, seat: _Seat) -> None:
        """End a seat that trains nothing yet."""
        with suppress(RayError):
            ray.kill(seat.actor)
        _release(seat.locks)

    def _keep(self, seat: _Seat, files: Mapping[str, collected.Files]) -> None:
        """Write files that were sent back."""
        assert seat.population is not None
        for run in seat.population.runs:
            if files.get(run.label):
                collected.put(run.path, files[run.label])

    def _lost(self, seat: _Seat, error: RayError) -> End:
        """Return how a population ended whose seat died; its files may still be on its machine."""
        with suppress(Exception):
            ray.kill(seat.actor)  # where only the connection to it was lost
        name = self._nodes.name(seat.node)
        alive = seat.node is None or self._nodes.is_alive(seat.node)
        if not alive:
            cause = f"its machine {name} was lost"
        elif isinstance(error, ActorUnavailableError):
            cause = f"the connection to its machine {name} was lost"
        else:
            cause = f"its process on {name} was lost ({in_short(error)})"
        if alive:
            self._salvage(seat)
        _release(seat.locks)
        return End("lost", cause)

    def _salvage(self, seat: _Seat) -> None:
        """Fetch what runs have saved whose seat died, where their machine is still there."""
        sweep, population = self._driver.sweep, seat.population
        if sweep is None or population is None or seat.node is None:
            return
        labels = [run.label for run in population.runs]
        fetch = on_node(seat.node, send_when_saved)
        with suppress(RayError):
            self._keep(seat, ray.get(fetch.remote(sweep, labels, SAVE_S), timeout=4 * SAVE_S))

    @override
    def stop(self, at_once: bool = False) -> None:
        for answer, seat in list(self._seats.items()):
            if seat.node is None:  # it has nothing to save, and may never get its resources
                assert seat.number is not None
                del self._seats[answer]
                self._abandon(seat)
                self._said.append((seat.number, End(INTERRUPTED)))
            else:
                seat.actor.stop.remote(at_once)

    @override
    def busy(self) -> bool:
        return bool(self._seats or self._said)

    @override
    def kill(self) -> None:
        ended = [seat.actor.kill.remote() for seat in self._seats.values()]
        if ended:
            ray.wait(ended, num_returns=len(ended), timeout=KILL_S)
        for seat in self._seats.values():
            ray.kill(seat.actor)
            _release(seat.locks)
        self._seats.clear()
        self.close()

    @override
    def close(self) -> None:
        while self._idle:
            _end(self._idle.pop())


def send_when_saved(sweep: str, labels: Sequence[str], for_s: float) -> dict[str, dict[str, bytes]]:
    """Return the files of runs whose processes are ending, once they have, on their machine."""
    folders = [collected.folder_of(sweep) / label for label in labels]
    _wait_until(lambda: not any(map(lock.in_use, folders)), for_s)
    files = collected.send(sweep, labels)
    return {label: each for label, each in files.items() if each}


def _wait_until(condition: Callable[[], bool], for_s: float) -> None:
    deadline = time.monotonic() + for_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)


def work_of_all(population: PlannedPopulation) -> Any:
    """Return the work of a population, on whatever accelerator its seat gets."""
    work = work_of(population)
    return replace(work, device="cuda:0") if population.device.name.startswith("cuda") else work


def _takes(population: PlannedPopulation) -> dict[str, float]:
    """Return the resources of a population: an accelerator, or as many CPUs as it has threads."""
    if population.device.name == "cpu":
        return {"num_cpus": max(run.config.thread_count for run in population.runs)}
    return {"num_cpus": 1, "num_gpus": 1}


def _end(seat: _Seat) -> None:
    """Let go of a seat that has nothing to do."""
    closed = seat.actor.close.remote()
    ray.wait([closed], timeout=KILL_S)
    ray.kill(seat.actor)


def _release(locks: dict[Path, int]) -> None:
    while locks:
        lock.release(*locks.popitem())
