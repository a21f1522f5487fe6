"""The machines of a Ray cluster: what they have, what they are called, and whether they fit.

All must have the same versions of what a run's numbers depend on, and see the results folder, or
its files are collected.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dstrl_cli.errors import InputError
from dstrl_cli.report.words import counted
from dstrl_cli.runs import lock
from dstrl_cli.runs.provenance import git_commit, versions

ANSWER_S = 90.0
"""How long a machine may take to start a process that says which versions it has."""

MEMORY_S = 120.0
"""How long machines may take to say how much memory their accelerators have free."""


@dataclass(frozen=True)
class Asked:
    """What every machine must have.

    Attributes:
        versions: of dstrl, Python and packages.
        commit: of dstrl's source, where it is known.
        out: the folder of the results, which all must see with its locks; None: they need not.
        folder: the current folder, where relative paths count from it; None: none does.
    """

    versions: Mapping[str, str | None]
    commit: str | None
    out: Path | None = None
    folder: str | None = None


def on_node(node: str, function: Callable[..., Any], **options: Any) -> Any:
    """Return a Ray task that runs on one machine; it takes none of its CPUs unless asked to."""
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    chosen = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": where, **options}
    return ray.remote(function).options(**chosen)


class Nodes:
    """The machines that were there when a sweep began, and those that joined since.

    Each is asked once, before it trains anything.

    Args:
        asked: what every machine must have.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._checked: set[str] = set()
        self._alive: list[Mapping[str, Any]] = []
        self.names: dict[str, str] = {}
        self.look()

    def look(self) -> None:
        """Note which machines there are now."""
        self._alive = [each for each in ray.nodes() if each["Alive"]]
        called = {each["NodeID"]: _called(each) for each in self._alive}
        several = Counter(called.values())
        for node, name in called.items():
            unique = name if several[name] == 1 else f"{name}#{node[:4]}"
            self.names.setdefault(node, unique)

    def name(self, node: str | None) -> str:
        """Return what a machine is called."""
        if node is not None and node not in self.names:
            self.look()
        return "the cluster" if node is None else self.names.get(node, node[:8])

    def is_alive(self, node: str) -> bool:
        """Whether a machine is still there."""
        self.look()
        return any(each["NodeID"] == node for each in self._alive)

    def total(self, resource: str) -> int:
        """Return how much of a resource all machines have: `CPU`, `GPU` or `memory`."""
        return int(sum(each["Resources"].get(resource, 0) for each in self._alive))

    def most(self, resource: str) -> int:
        """Return how much of a resource the machine has that has most of it."""
        return int(max((each["Resources"].get(resource, 0) for each in self._alive), default=0))

    def with_some(self, resource: str) -> list[str]:
        """Return the machines that have some of a resource."""
        return [each["NodeID"] for each in self._alive if each["Resources"].get(resource, 0) > 0]

    @property
    def ids(self) -> list[str]:
        """All machines."""
        return [each["NodeID"] for each in self._alive]

    def check_all(self) -> None:
        """Raise InputError where a machine does not fit, or does not answer."""
        self._check(self.ids)

    def check(self, node: str) -> None:
        """Raise InputError where a machine that joined later does not fit."""
        if node not in self._checked:
            self._check([node])

    def check_new(self) -> None:
        """Raise InputError where one of the machines that joined later does not fit."""
        self.look()
        if new := [node for node in self.ids if node not in self._checked]:
            self._check(new)

    def _check(self, nodes: Sequence[str]) -> None:
        if self._asked.out is None:
            self._ask(nodes, mark=None)
            return
        with Mark(self._asked.out) as mark:
            self._ask(nodes, str(mark))

    def _ask(self, nodes: Sequence[str], mark: str | None) -> None:
        probe = _probe()
        answers = {on_node(node, probe).remote(self._asked.folder, mark): node for node in nodes}
        ready, waiting = ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER_S)
        for answer in ready:
            name = self.name(answers[answer])
            try:
                self._refuse(name, ray.get(answer))
            except RayError as error:
                if not self.is_alive(answers[answer]):
                    continue  # lost meanwhile: nothing trains there
                cause = " ".join(str(error).split())[:200]
                raise InputError(f"machine {name} of the Ray cluster fails: {cause}") from None
        if waiting:
            names = ", ".join(self.name(answers[answer]) for answer in waiting[:5])
            raise InputError(
                f"no answer in {ANSWER_S:.0f} s from {counted(len(waiting), 'machine')} of the Ray "
                f"cluster ({names}): look there with `ray status`, or take them out of it"
            )
        self._checked |= set(nodes)

    def _refuse(self, name: str, found: Mapping[str, Any]) -> None:
        """Raise InputError where what a machine says of itself is not what is asked."""
        take_out = "or take the machine out of the cluster"
        if "missing" in found:
            raise InputError(
                f"machine {name} has no dstrl ({found['missing']}): install dstrl "
                f"{self._asked.versions['dstrl']} there, in the Python that runs Ray, {take_out}"
            )
        theirs = dict(found["versions"]) | {"commit": found["commit"]}
        ours = dict(self._asked.versions) | {"commit": self._asked.commit}
        differing = [
            f"{name} {theirs.get(name)} instead of {version}"
            for name, version in ours.items()
            if not _same(name, version, theirs.get(name))
        ]
        if differing:
            raise InputError(
                f"machine {name} has {', '.join(differing)}, and all machines of a sweep need the "
                f"same: install it there, {take_out}"
            )
        share = "put it on a file system that all machines share"
        if not found["sees_out"]:
            raise InputError(
                f"machine {name} does not see the folder {self._asked.out}: {share}, or add "
                "--collect, and the files are sent here"
            )
        if not found["sees_folder"]:
            raise InputError(
                f"machine {name} does not see the current folder {self._asked.folder}, from which "
                f"relative paths count: {share}, or give --out and runs to start from as absolute "
                "paths"
            )
        if not found["sees_locks"]:
            raise InputError(
                f"machine {name} does not see locks in {self._asked.out}: mount that file system "
                "with locks, so that no run is trained twice, or add --collect"
            )

    def free_memory(self) -> int:
        """Return the least bytes that a population may use of an accelerator.

        Raises InputError where accelerators do not answer, which others may use.
        """
        tasks = [on_node(node, _free_memory, num_gpus=1) for node in self.with_some("GPU")]
        try:
            return min(ray.get([task.remote() for task in tasks], timeout=MEMORY_S))
        except (GetTimeoutError, RayError) as error:
            cause = "they are in use" if isinstance(error, GetTimeoutError) else in_short(error)
            raise InputError(
                f"the accelerators of the Ray cluster do not say how much memory they have "
                f"({cause}): give it, as in --device-memory 80GB"
            ) from None


def in_short(error: RayError) -> str:
    """Return the first line of what Ray says, or of the exception in a seat that it passes on."""
    cause = getattr(error, "cause", None) or error
    return str(cause).strip().partition("\n")[0][:300]


def _called(node: Mapping[str, Any]) -> str:
    """Return the name that a machine was given, else that of its host."""
    given = node.get("NodeName")
    if given and given != node["NodeManagerAddress"]:
        return str(given)
    return str(node.get("NodeManagerHostname") or node["NodeManagerAddress"])


def _same(name: str, ours: str | None, theirs: str | None) -> bool:
    """Whether two versions give the same numbers, as far as they are known.

    Builds for other accelerators (`2.13.0+cpu`) and patches of Python are taken for the same.
    """
    if name == "commit" and None in (ours, theirs):
        return True
    parts = [(each or "none").partition("+")[0] for each in (ours, theirs)]
    if name == "commit":
        parts = [each or "none" for each in (ours, theirs)]
    if name == "python":
        parts = [".".join(each.split(".")[:2]) for each in parts]
    return parts[0] == parts[1]


def _probe() -> Callable[[str | None, str | None], dict[str, Any]]:
    """Return what a machine runs to say which versions it has.

    As a function inside another one it travels as it is: a machine without dstrl can run it.
    """

    def probe(folder: str | None, mark: str | None) -> dict[str, Any]:
        try:
            from dstrl_cli.runs.lock import in_use
            from dstrl_cli.runs.provenance import git_commit, versions
        except ImportError as error:
            return {"missing": str(error)}
        from pathlib import Path

        return {
            "versions": versions(),
            "commit": git_commit(),
            "sees_folder": folder is None or Path(folder).is_dir(),
            "sees_out": mark is None or Path(mark).is_dir(),
            "sees_locks": mark is None or in_use(Path(mark)),
        }

    return probe


def _free_memory() -> int:
    from dstrl_cli.sweep.devices import free_memory

    return free_memory("cuda:0")


def asked(out: Path | None = None, folder: str | None = None) -> Asked:
    """Return what this machine has, which all others must have."""
    return Asked(versions(), git_commit(), None if out is None else out.absolute(), folder)


class Mark:
    """A locked folder in the results while its block runs, by which machines see what they share.

    Folders that are made for it go with it.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / f".seen-by-all-{uuid.uuid4().hex}"
        self._made: list[Path] = []
        self._lock = -1

    def __enter__(self) -> Path:
        missing = [each for each in (self.path, *self.path.parents) if not each.exists()]
        try:
            for each in reversed(missing):
                each.mkdir()
                self._made.append(each)
        except OSError as error:
            self._remove()
            raise InputError(
                f"folder {self.path.parent} cannot be made ({error.strerror}): choose another --out"
            ) from None
        self._lock = lock.acquire(self.path)
        return self.path

    def __exit__(self, *_: object) -> None:
        lock.release(self.path, self._lock)
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):  # somebody else uses one
            while self._made:
                self._made.pop().rmdir()
