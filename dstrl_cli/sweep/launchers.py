"""The launchers by name: what `--launcher` may say, and where each of them trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from typing_extensions import override

from dstrl_cli.errors import InputError, suggest
from dstrl_cli.machine import this_host
from dstrl_cli.sweep.launcher import Launcher
from dstrl_cli.sweep.local import LocalLauncher
from dstrl_cli.sweep.place import Limits, Placement, place_runs
from dstrl_cli.sweep.states import Planned
from dstrl_cli.training.run import Run


class Site(ABC):
    """The machines on which a sweep trains."""

    @abstractmethod
    def place(self, planned: Sequence[Planned], limits: Limits, dry_run: bool) -> Placement:
        """Decide which devices train what; raises InputError as `place_runs`."""

    @abstractmethod
    def launcher(self) -> Launcher:
        """Return what starts populations here."""


class ThisMachine(Site):
    """The machine that dstrl was started on."""

    @override
    def place(self, planned: Sequence[Planned], limits: Limits, dry_run: bool) -> Placement:
        return place_runs(planned, limits, this_host(), dry_run)

    @override
    def launcher(self) -> Launcher:
        return LocalLauncher()


@dataclass(frozen=True)
class Where:
    """What a user says about where a sweep trains.

    Attributes:
        launcher: its name.
        address: of a Ray cluster; None: one is started for the call.
        collect: whether machines write to disks of their own, from which the files come here.
    """

    launcher: str = "local"
    address: str | None = None
    collect: bool = False

    def open(self, runs: Sequence[Run], dry_run: bool) -> AbstractContextManager[Site]:
        """Return the machines, to be used while a block runs, for runs like these.

        Raises InputError where the block is entered and they cannot be had.
        """
        return self._kind.open(self, runs, dry_run)

    def retries(self, asked: int | None) -> int:
        """Return how often a run is tried again whose process or machine died."""
        return self._kind.retries if asked is None else asked

    @property
    def _kind(self) -> Kind:
        if self.launcher not in LAUNCHERS:
            raise InputError(f"--launcher: {suggest('launcher', self.launcher, LAUNCHERS)}")
        return LAUNCHERS[self.launcher]


@dataclass(frozen=True)
class Kind:
    """A kind of launcher.

    Attributes:
        open: what `Where.open` returns.
        retries: how often a run is tried again, unless the user says.
    """

    open: Callable[[Where, Sequence[Run], bool], AbstractContextManager[Site]]
    retries: int


@contextmanager
def _this_machine(where: Where, runs: Sequence[Run], dry_run: bool) -> Iterator[Site]:
    for flag, given in (("--address", where.address is not None), ("--collect", where.collect)):
        if given:
            raise InputError(f"{flag} is for a Ray cluster: add --launcher ray, or leave it out")
    yield ThisMachine()


def _ray_cluster(where: Where, runs: Sequence[Run], dry_run: bool) -> AbstractContextManager[Site]:
    from dstrl_cli.sweep.on_ray.cluster import opened

    return opened(where, runs, dry_run)


LAUNCHERS = {"local": Kind(_this_machine, retries=0), "ray": Kind(_ray_cluster, retries=3)}
