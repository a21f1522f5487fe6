"""A place in a Ray cluster where populations train one after the other, seen from its machine.

A seat is an actor. It starts the same process that trains on one machine, and passes on what that
says; so a population has the numbers that it has there. That process imports this module, and
nothing of Ray.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dstrl_cli.sweep import worker
from dstrl_cli.sweep.launcher import End, Message, Progress
from dstrl_cli.sweep.local import LocalLauncher
from dstrl_cli.sweep.on_ray import collected
from dstrl_cli.sweep.on_ray.collected import Files

Said = Sequence[tuple[int, Message]]


@dataclass(frozen=True)
class Driver:
    """What the process that started the sweep is like.

    Attributes:
        folder: its current folder, from which relative paths count.
        command: its command line, which runs keep.
        sweep: the name of the folder on this machine's disk in which runs wait to be collected;
            None where the machines share the results.
    """

    folder: str
    command: Sequence[str]
    sweep: str | None


@dataclass(frozen=True)
class Report:
    """What a seat has to say: messages by population, and files of the runs that ended."""

    said: Said
    files: Mapping[str, Files]


class Seat:
    """Trains one population at a time. `stop` and `kill` may be called while `receive` waits."""

    def __init__(self, driver: Driver) -> None:
        self._launcher = LocalLauncher(main=train_apart)
        self._driver = driver
        self._labels: list[str] = []
        _pass_for(driver)

    def node(self) -> str:
        """Return the machine that this is on, as Ray calls it."""
        from ray import get_runtime_context

        return str(get_runtime_context().get_node_id())

    def begin(self, number: int, work: worker.Work, files: Mapping[str, Files]) -> Report:
        """Start a population; `files` are of runs that go on, by label, where nothing is shared."""
        if self._driver.sweep is not None:
            self._labels = [run.label for run in work.runs]
            runs = collected.receive(self._driver.sweep, work.runs, files)
            work = replace(work, runs=runs)
        self._launcher.begin(number, work)
        return Report([], {})

    def receive(self, for_s: float) -> Report:
        """Return what the population said within a time, at once when it ended."""
        said: list[tuple[int, Message]] = []
        deadline = time.monotonic() + for_s
        while self._launcher.busy() and (left := deadline - time.monotonic()) > 0:
            said += self._launcher.receive(left)
        ended = any(isinstance(message, End) for _, message in said)
        files = {}
        if ended and self._driver.sweep is not None:
            files = collected.send(self._driver.sweep, self._labels)
        return Report(without_old(said), files)

    def stop(self, at_once: bool) -> None:
        """Ask the population to save and to end; `at_once`: to end without saving."""
        self._launcher.stop(at_once)

    def kill(self) -> None:
        """End the population."""
        self._launcher.kill()

    def close(self) -> None:
        """End the process that waits for another population."""
        self._launcher.close()

    def forget(self) -> None:
        """Remove what was sent back, and has arrived."""
        if self._driver.sweep is not None:
            collected.forget(self._driver.sweep, self._labels)


def train_apart(work: worker.Work, pipes: worker.Pipes) -> None:
    """Train as `worker.main` does, in a process that Ray does not kill together with the seat.

    It sees that the seat has gone, and saves before it ends.
    """
    os.setsid()
    worker.main(work, pipes)


def without_old(said: Said) -> list[tuple[int, Message]]:
    """Return messages without those about progress that a later one replaces."""
    last = {number: i for i, (number, each) in enumerate(said) if isinstance(each, Progress)}
    return [
        (number, each)
        for i, (number, each) in enumerate(said)
        if not isinstance(each, Progress) or last[number] == i
    ]


def _pass_for(driver: Driver) -> None:
    """Make this process look like the one that started the sweep, as processes that it starts do.

    They take over the command line and the current folder. They would also run the program of
    their parent again, which is Ray's here.
    """
    sys.argv = list(driver.command)
    with suppress(OSError):  # where nothing is shared
        os.chdir(driver.folder)
    main = sys.modules["__main__"]
    main.__spec__ = None
    if hasattr(main, "__file__"):
        del main.__file__
    if (folder := str(Path(driver.folder))) not in sys.path:
        sys.path.append(folder)
