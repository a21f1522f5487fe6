"""What this machine has: devices as data (a name, and the bytes to use there), cores, main memory.

Everything that is planned works on devices as data, so that a plan needs no accelerator.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dstrl_cli.errors import InputError
from dstrl_cli.run import find_device

SHARE_OF_FREE = 0.95
"""How much of a device's free memory is taken; a display or another program may want the rest."""


@dataclass(frozen=True)
class Device:
    """A torch device and the bytes that a population may use there; None where unknown."""

    name: str
    memory: int | None = None


def find_devices(name: str, memory: int | None = None, dry_run: bool = False) -> list[Device]:
    """Return the devices that `--device` names; `auto` and `cuda` mean all accelerators.

    Args:
        name: auto, cpu, cuda or cuda:N.
        memory: bytes of each accelerator, in place of what is free.
        dry_run: whether an accelerator may be named that is not here.

    Raises:
        InputError: for a device that this machine does not have, or that cannot be used.
    """
    try:
        first = find_device(name)
    except InputError:
        if not dry_run:
            raise
        return [Device("cuda:0" if name == "cuda" else name, memory)]
    if first == "cpu":
        return [Device(first)]
    import torch

    named = [first]
    if name in ("auto", "cuda"):
        named = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [Device(each, memory or free_memory(each)) for each in named]


def free_memory(name: str) -> int:
    """Return the bytes that a population may use of an accelerator.

    Raises InputError where the accelerator does not answer.
    """
    import torch

    try:
        free, _ = torch.cuda.mem_get_info(torch.device(name))
    except RuntimeError as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"device = {name!r} cannot be used ({cause}); choose another --device"
        ) from error
    return int(SHARE_OF_FREE * free)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def main_memory() -> int | None:
    """Return the bytes of main memory that processes here may use at most; None where unknown."""
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # a container's limit: a number, or "max"
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=None)
