"""Populations: which runs may train in lock-step, and into how few populations they fit a device.

Pure arithmetic on configurations and on devices as data; nothing is allocated or trained here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from dstrl_cli.config.keys import flatten
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.starts import PLACES, SOURCES
from dstrl_cli.errors import InputError
from dstrl_cli.nets.choice import choose
from dstrl_cli.replay.choice import counted_limit
from dstrl_cli.sweep.devices import Device
from dstrl_cli.sweep.memory import Memory, format_bytes, population_memory, replay_bytes
from dstrl_cli.training.run import Run

T = TypeVar("T")

MEMBER_KEYS = frozenset(
    {
        "method",
        "seed",
        "buffer_size",
        "collect",
        "nstep",
        "nstep_delay",
        "rewire",
        "target_masking",
        "target_trim",
        "gradients",
        "moments",
        "grown_bias_correction",
        "initial_targets",
        "limit_wins",
        *PLACES,
        *SOURCES,
    }
)
"""Keys in which the members of a population may differ, besides a network's and the buffer's."""

MEMBER_GROUPS = ("actor.", "critic.", "buffer.")
SHARED_LEAVES = ("hidden_sizes",)
FOLDER_KEYS = frozenset(
    {"out", "checkpoint_every", "keep_checkpoint", "metric", "method_label", "method_order"}
)
"""Keys that only say what is written, where, and how tables show it."""

LOCK_STEP_MEMBERS = 15
"""Cost of a lock-step that does not depend on the members, in units of the cost of one member.

Thirty members therefore take (15 + 30) / (15 + 1), about three, times as long as one. Only the
balance between devices uses it.
"""


@dataclass(frozen=True)
class PlannedPopulation:
    """Runs that will train in lock-step, where, and what they take there.

    Attributes:
        runs: the members, in the order of the plan.
        device: the device they train on.
        queue: number of that device among those used; its populations train one after the other.
        memory: bytes by what takes them.
    """

    runs: Sequence[Run]
    device: Device
    queue: int
    memory: Memory

    @property
    def title(self) -> str:
        """The run's label, or how many there are and the first one's."""
        first = self.runs[0].label
        return first if len(self.runs) == 1 else f"{len(self.runs)} runs, as {first}"


def one_each(runs: Iterable[Run], device: Device) -> list[PlannedPopulation]:
    """Return a population of one for every run, all in one queue; its replay is in main memory."""
    runs = list(runs)
    memory = for_each(runs, _host_memory)
    return [
        PlannedPopulation([run], device, 0, taken) for run, taken in zip(runs, memory, strict=True)
    ]


def _host_memory(run: Run) -> Memory:
    spec = run.spec
    try:
        engine = choose(run.config, "cpu").engine
    except InputError:  # `place_runs` tells it
        engine = run.config.engine
    limit = counted_limit("cpu", spec.time_limit, engine)
    return Memory(host=replay_bytes([run.config], spec.observation_size, spec.action_size, limit))


# --- what may train together --------------------------------------------------------------------


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs that may train in lock-step on one device, in the order given.

    Their environments must be the same, also where a seed is an argument of them. Those that go on
    from checkpoints must be at the same step, with the same last evaluation. Episodes of different
    members end at different steps: a run that trains after episodes is alone.
    """
    found: dict[tuple[object, ...], list[Run]] = {}
    for run, keys in zip(runs, for_each(runs, lambda run: shared_keys(run.config)), strict=True):
        at = run.start == "resume", run.step, run.evaluated
        kept = *at, run.config.engine, run.config.threads
        alone = str(run.path) if run.config.trains_after_episodes else None
        found.setdefault((*kept, alone, run.spec, keys), []).append(run)
    return list(found.values())


def for_each(runs: Iterable[Run], function: Callable[[Run], T]) -> list[T]:
    """Return `function` of every run; it must not depend on the seed.

    It is called once for the runs of a parent folder, which differ in the seed alone.
    """
    known: dict[Path, T] = {}
    found = []
    for run in runs:
        folder = run.path.parent
        if folder not in known:
            known[folder] = function(run)
        found.append(known[folder])
    return found


def shared_keys(config: RunConfig) -> tuple[tuple[str, str], ...]:
    """Return the keys and values that all members of a population must have in common."""
    flat = flatten(to_dict(config))
    of_expert = "of_expert_q", repr(config.expert_q is not None)  # another class trains them
    return (of_expert, *((key, repr(value)) for key, value in flat.items() if _shared(key)))


def _shared(key: str) -> bool:
    if key in MEMBER_KEYS or key in FOLDER_KEYS:
        return False
    leaf = key.rpartition(".")[2]
    return leaf in SHARED_LEAVES or not key.startswith(MEMBER_GROUPS)


# --- what fits ----------------------------------------------------------------------------------


def roomy(runs: Sequence[Run], devices: Sequence[Device]) -> list[Device]:
    """Return the devices with enough free memory for every single run.

    A device that another program uses may have too little. Raises InputError, with the sizes, where
    no device has enough.
    """
    if not runs:
        return list(devices)
    needs = for_each(runs, lambda run: memory_of([run]))
    neediest, need = max(zip(runs, needs, strict=True), key=lambda each: each[1].device)
    found = [each for each in devices if each.memory is None or each.memory >= need.device]
    if not found:
        largest = max(devices, key=_memory)
        raise InputError(_too_little(neediest, need, largest))
    return found


def pack(
    runs: Sequence[Run], devices: Sequence[Device], max_members: int | None = None
) -> list[PlannedPopulation]:
    """Pack runs into as few populations as memory allows, but if possible one for each device.

    Populations of one group differ by at most one member. The longest are given to the devices
    first, each to the one with the least to do.

    Args:
        runs: runs that are to be trained.
        devices: where (see `roomy`); every population fits the smallest. A device of unknown
            memory holds anything.
        max_members: the largest number of members of a population.
    """
    grouped = groups(runs)
    known = [device.memory for device in devices if device.memory is not None]
    parts = [_fewest(group, min(known, default=None), max_members) for group in grouped]
    while sum(parts) < len(devices):  # no device idle while another has several members
        largest = max(range(len(parts)), key=lambda i: len(grouped[i]) / parts[i], default=None)
        if largest is None or parts[largest] == len(grouped[largest]):
            break
        parts[largest] += 1
    packed = [part for group, n in zip(grouped, parts, strict=True) for part in _split(group, n)]
    queues = _queues([_cost(part) for part in packed], len(devices))
    return [
        PlannedPopulation(part, devices[queue], queue, memory_of(part))
        for part, queue in zip(packed, queues, strict=True)
    ]


def memory_of(runs: Sequence[Run]) -> Memory:
    """Return what a population of these runs takes."""
    spec = runs[0].spec
    configs = [run.config for run in runs]
    return population_memory(
        configs, spec.observation_size, spec.action_size, time_limit=spec.time_limit
    )


def _memory(device: Device) -> int:
    return device.memory or 0


def _fewest(group: Sequence[Run], memory: int | None, max_members: int | None) -> int:
    """Return into how few populations a group must be split for `memory` bytes."""
    least = math.ceil(len(group) / (max_members or len(group)))
    if memory is None:
        return least
    # A member takes no less memory in a population than alone: fewer parts cannot be enough.
    alone = for_each(group, lambda run: memory_of([run]))
    room = max(memory - alone[0].reserve, 1)
    least = max(least, math.ceil(sum(each.growing for each in alone) / room))
    return next(
        parts
        for parts in range(least, len(group) + 1)
        if parts == len(group)
        or all(memory_of(part).device <= memory for part in _split(group, parts))
    )


def _too_little(run: Run, memory: Memory, device: Device) -> str:
    config = run.config
    remedies = [f"a smaller buffer_size (now {config.buffer_size:,})"]
    if memory.replay:
        freed = format_bytes(memory.device - memory.replay)
        remedies.insert(0, f"--replay-device cpu (then {freed} are needed)")
    return (
        f"{device.name} has {format_bytes(_memory(device))} of memory to use, too little for "
        f"{run.label} alone, which needs {format_bytes(memory.device)} ({memory.parts()}); use "
        f"{', or '.join(remedies)}, or another --device"
    )


def _split(group: Sequence[Run], parts: int) -> Iterator[list[Run]]:
    """Split a group into parts whose sizes differ by at most one, in order."""
    ends = [len(group) * part // parts for part in range(parts + 1)]
    for start, end in pairwise(ends):
        yield list(group[start:end])


# --- which device gets which --------------------------------------------------------------------


def _cost(runs: Sequence[Run]) -> int:
    """Return the time that a population takes, in steps of one member."""
    return (runs[0].config.steps - runs[0].step) * (LOCK_STEP_MEMBERS + len(runs))


def _queues(costs: Sequence[int], count: int) -> list[int]:
    """Return which of `count` queues each cost goes to: the largest first, to the least loaded."""
    load, queues = [0] * count, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        queues[index] = load.index(min(load))
        load[queues[index]] += costs[index]
    return queues
