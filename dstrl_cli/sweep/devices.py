"""Devices on which runs may train, as data: a name and the bytes to use there.

Planning reads only this data, so that a plan for an accelerator can be made without one.
"""

from __future__ import annotations

from dataclasses import dataclass

from dstrl_cli.errors import InputError
from dstrl_cli.training.run import accelerators, find_device

SHARE_OF_FREE = 0.95
"""Share of a device's free memory that runs may take; the rest is left to other programs."""


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
    named = [first]
    if name in ("auto", "cuda"):
        named = [f"cuda:{number}" for number in range(accelerators())]
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
