"""What this machine has for a process, cores and main memory, and how it ends one."""

from __future__ import annotations

import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from dstrl_cli import cgroups

_C_LIBRARY = ctypes.CDLL(None)

WORKER_KILLED = "its worker process was killed by"
"""Begins the cause where a process was killed that stepped the environments of a run."""


@dataclass(frozen=True)
class Host:
    """Where runs train: cores, and bytes of main memory (None where unknown).

    Of several machines these are sums, and `most_cores` is what the largest of them has.
    """

    cores: int
    memory: int | None = None
    most_cores: int | None = None

    @property
    def cores_of_a_run(self) -> int:
        """The cores that one run can have at most."""
        return self.cores if self.most_cores is None else self.most_cores


def this_host() -> Host:
    """Return the machine that this process is on."""
    return Host(cores(), main_memory())


def cores(root: Path = cgroups.ROOT) -> int:
    """Return the number of cores that this process may use, whose groups lie below `root`."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return min(allowed, cgroups.core_quota(root) or allowed)


def main_memory(root: Path = cgroups.ROOT) -> int | None:
    """Return the bytes of main memory that processes here may use at most; None where unknown."""
    found = [cgroups.memory_limit(root)]
    if "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((each for each in found if each is not None), default=None)


def give_memory_back() -> None:
    """Let the system have what was freed; where C's library is glibc, which keeps it otherwise."""
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def leave_terminal() -> None:
    """Write nothing to a terminal any more: where it has gone, writing to it is an error."""
    for descriptor in (1, 2):
        if os.isatty(descriptor):
            with Path(os.devnull).open("wb") as null:
                os.dup2(null.fileno(), descriptor)


def how_it_ended(process: str, exit_code: int | None) -> str:
    """Return in words how a process ended that said nothing about it."""
    if exit_code is None or exit_code >= 0:
        return f"{process} ended unexpectedly with exit code {exit_code}"
    number = -exit_code
    known = number in {int(each) for each in signal.Signals}  # real-time signals have no name
    name = signal.Signals(number).name if known else f"signal {number}"
    return f"{process} was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
