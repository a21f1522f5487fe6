"""Where the runs of a plan are carried out: devices, engines, populations, how many at once.

Refuses here, before anything is written, what this machine cannot hold. `local` trains.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dstrl_cli.errors import InputError
from dstrl_cli.machine import cores, main_memory
from dstrl_cli.nets.choice import choose
from dstrl_cli.sweep.devices import Device, find_devices
from dstrl_cli.sweep.memory import size
from dstrl_cli.sweep.packing import Population, one_each, pack, roomy
from dstrl_cli.sweep.plan import Planned
from dstrl_cli.training.run import Run


@dataclass(frozen=True)
class Limits:
    """What the user allows; None leaves it to the machine.

    Attributes:
        jobs: runs trained at once on the CPU.
        device_memory: bytes of each accelerator.
        members: members of a population on an accelerator.
    """

    jobs: int | None = None
    device_memory: int | None = None
    members: int | None = None


@dataclass(frozen=True)
class Place:
    """Where and how runs are carried out.

    Attributes:
        runs: the runs to train, in the order of the plan.
        devices: where; populations of one device follow each other.
        populations: the runs in lock-step; on the CPU each run is one of its own.
        jobs: populations trained at once; on accelerators one for each device.
        engines: how many runs take each engine, and `engine_reason` why the first its own.
        out: folder of the results.
    """

    runs: Sequence[Run]
    devices: Sequence[Device]
    populations: Sequence[Population]
    jobs: int
    engines: Mapping[str, int]
    engine_reason: str
    out: str

    @property
    def on_cpu(self) -> bool:
        """Whether the runs are processes of their own on the CPU."""
        return self.devices[0] == Device("cpu")

    @property
    def device(self) -> str:
        """The names of the devices."""
        return ", ".join(device.name for device in self.devices)

    def lanes(self) -> list[deque[tuple[int, Population]]]:
        """Return numbered populations, in lanes that are worked off side by side.

        An accelerator is a lane. On the CPU all lanes are one: whoever is free takes the next.
        """
        numbered = list(enumerate(self.populations))
        if self.on_cpu:
            return [deque(numbered)] * self.jobs
        lanes = range(len(self.devices))
        return [deque(each for each in numbered if each[1].lane == lane) for lane in lanes]


def place(
    planned: Sequence[Planned],
    limits: Limits,
    dry_run: bool = False,
    devices: Sequence[Device] | None = None,
) -> Place:
    """Decide where and how the runs of a plan that are to do are carried out.

    `devices` are those of this machine that the configurations name, unless given.

    Raises:
        InputError: for a device that this machine does not have (a dry run may name any), and
            where memory cannot suffice.
    """
    configs = [each.run.config for each in planned]
    named = list(dict.fromkeys(config.device for config in configs))
    if len(named) > 1:
        raise InputError(f"device: one sweep runs on one device, not on {' and '.join(named)}")
    devices = devices or find_devices(named[0], limits.device_memory, dry_run)
    choices = [choose(config, devices[0].name) for config in configs]
    runs = [each.run for each in planned if each.to_do]
    on_cpu = devices[0] == Device("cpu")
    if on_cpu:
        _refuse_limits_of_accelerators(limits)
        populations, jobs = one_each(runs, devices[0]), limits.jobs or default_jobs(runs)
    else:
        devices = roomy(runs, devices)
        populations = pack(runs, devices, limits.members)
        devices = devices[: max(len(populations), 1)]
        jobs = len(devices)
        populations = _sharing_cores(populations, jobs)
    if on_cpu or not dry_run:  # a dry run for accelerators may be for another machine
        _check_main_memory(populations, jobs, main_memory())
    to_do = [choice for each, choice in zip(planned, choices, strict=True) if each.to_do]
    return Place(
        runs=runs,
        devices=devices,
        populations=populations,
        jobs=jobs,
        engines=Counter(choice.engine for choice in to_do or choices),
        engine_reason=(to_do or choices)[0].reason,
        out=configs[0].out,
    )


def default_jobs(runs: Sequence[Run]) -> int:
    """Return how many runs to train at once on the CPU, so that their threads fill the cores."""
    threads = max((run.config.threads for run in runs), default=1)
    return max(1, min(cores() // threads, len(runs)))


def _sharing_cores(populations: Sequence[Population], jobs: int) -> list[Population]:
    """Give populations that train at once equal parts of the cores for their environments."""
    if jobs == 1:
        return list(populations)
    workers = max(1, cores() // jobs)

    def shared(run: Run) -> Run:
        if run.config.env_workers != "auto":
            return run
        return replace(run, config=run.config.model_copy(update={"env_workers": workers}))

    return [replace(each, runs=[shared(run) for run in each.runs]) for each in populations]


def _refuse_limits_of_accelerators(limits: Limits) -> None:
    for flag, value in (
        ("--device-memory", limits.device_memory),
        ("--members-per-device", limits.members),
    ):
        if value is not None:
            raise InputError(
                f"{flag} is for accelerators, and these runs are processes on the CPU: leave it "
                "out (--jobs says how many run at once), or plan with --device cuda --dry-run"
            )


def _check_main_memory(populations: Sequence[Population], jobs: int, have: int | None) -> None:
    """Raise InputError where replay buffers that exist at once are larger than main memory."""
    largest = sorted(populations, key=lambda each: -each.memory.host)[:jobs]
    needed = sum(each.memory.host for each in largest)
    if have is None or needed <= have:
        return
    run, remedies = largest[0].runs[0], ["a smaller buffer_size"]
    if largest[0].device != Device("cpu"):
        remedies += ["--replay-device auto", "fewer --members-per-device"]
    elif len(largest) > 1:
        remedies.append("fewer --jobs")
    raise InputError(
        f"buffer_size = {run.config.buffer_size:,}: main memory has {size(have)}, and the replay "
        f"buffers that would be in use at once need {size(needed)} ({len(largest)} x "
        f"{size(largest[0].memory.host)} for {run.label}); use {', or '.join(remedies)}"
    )
