"""Where the runs of a plan train: devices, populations, queues, engines, how many at once.

Runs that the machine's memory cannot hold are refused here, before anything is written. `launcher`
trains what a placement says.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dstrl_cli.errors import InputError
from dstrl_cli.machine import Host
from dstrl_cli.nets.choice import Choice, choose, threads_for
from dstrl_cli.sweep.devices import Device, find_devices
from dstrl_cli.sweep.memory import format_bytes, network_bytes, update_bytes
from dstrl_cli.sweep.packing import PlannedPopulation, for_each, one_each, pack, roomy
from dstrl_cli.sweep.states import Planned
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
class Placement:
    """Where and how runs train.

    Attributes:
        runs: the runs to train, in the order of the plan.
        devices: the devices they train on.
        populations: the runs in lock-step; on the CPU each run is one of its own.
        jobs: populations trained at once; on accelerators one for each device.
        engines: how many runs use each engine.
        engine_reason: why the first run uses its engine.
        out: folder of the results.
        where: the devices in words, where they are not of this machine.
    """

    runs: Sequence[Run]
    devices: Sequence[Device]
    populations: Sequence[PlannedPopulation]
    jobs: int
    engines: Mapping[str, int]
    engine_reason: str
    out: str
    where: str = ""

    @property
    def on_cpu(self) -> bool:
        """Whether every run trains by itself on the CPU."""
        return self.devices[0] == Device("cpu")

    @property
    def device(self) -> str:
        """The names of the devices, in one text."""
        return ", ".join(device.name for device in self.devices)

    @property
    def devices_in_words(self) -> str:
        """Where the runs train, after `on`."""
        return self.where or (f"the {self.device}" if self.on_cpu else self.device)

    @property
    def at_once(self) -> list[PlannedPopulation]:
        """The populations that take the most main memory when they train at once."""
        return sorted(self.populations, key=lambda each: -each.memory.host)[: self.jobs]

    @property
    def main_memory(self) -> int:
        """Bytes of main memory that replay buffers take at once, at the most."""
        return sum(each.memory.host for each in self.at_once)

    def queues(self) -> list[deque[tuple[int, PlannedPopulation]]]:
        """Return the numbered populations in queues; one population of each queue trains at a time.

        An accelerator has a queue of its own. On the CPU all `jobs` queues are the same one: a
        free job takes the next population.
        """
        numbered = list(enumerate(self.populations))
        if self.on_cpu:
            return [deque(numbered)] * self.jobs
        queues = range(len(self.devices))
        return [deque(each for each in numbered if each[1].queue == queue) for queue in queues]


def place_runs(
    planned: Sequence[Planned],
    limits: Limits,
    host: Host,
    dry_run: bool = False,
    devices: Sequence[Device] | None = None,
) -> Placement:
    """Decide where and how the runs of a plan that are to do will train.

    Args:
        planned: the plan.
        limits: what the user allows.
        host: the machine that the runs are for.
        dry_run: whether devices may be named that are not here.
        devices: the devices to use instead of those that the configurations name.

    Raises:
        InputError: for a device that is not here, an engine that a run cannot have, or memory that
            is too small.
    """
    named = list(dict.fromkeys(each.run.config.device for each in planned))
    if len(named) > 1:
        raise InputError(f"device: one sweep runs on one device, not on {' and '.join(named)}")
    devices = devices or find_devices(named[0], limits.device_memory, dry_run)
    on_cpu = devices[0] == Device("cpu")
    runs = with_threads(planned, limits, devices[0], host)
    if on_cpu:
        _refuse_limits_of_accelerators(limits)
        populations, jobs = one_each(runs, devices[0]), limits.jobs or default_jobs(runs, host)
    else:
        devices = roomy(runs, devices)
        populations = pack(runs, devices, limits.members)
        devices = devices[: max(len(populations), 1)]
        jobs = len(devices)
        populations = _sharing_cores(populations, jobs, host)
    engines, reason = _engines(populations)
    if on_cpu:
        _check_networks(populations, host)
    out = planned[0].run.config.out
    placement = Placement(runs, devices, populations, jobs, engines, reason, out)
    if on_cpu or not dry_run:  # a dry run for accelerators may be for another machine
        _check_main_memory(placement, host)
    return placement


def with_threads(
    planned: Sequence[Planned], limits: Limits, device: Device, host: Host
) -> list[Run]:
    """Return the runs of a plan that are to do, with a number of threads for `threads: auto`.

    That does not depend on how many of them are finished: a plan that goes on gives its runs what
    it gave them at first.
    """
    at_once = min(len(planned), limits.jobs or len(planned))
    cores = min(host.cores_of_a_run, host.cores // max(1, at_once))
    runs = [each.run for each in planned if each.to_do]
    open_ = [run for run in runs if run.config.threads == "auto"]
    chosen = for_each(open_, lambda run: threads_for(run.config, device.name, cores))
    number = {run.path: threads for run, threads in zip(open_, chosen, strict=True)}
    return [
        replace(run, config=run.config.model_copy(update={"threads": number[run.path]}))
        if run.path in number
        else run
        for run in runs
    ]


def default_jobs(runs: Sequence[Run], host: Host) -> int:
    """Return how many runs to train at once on the CPU, so that their threads fill the cores."""
    threads = max((run.config.thread_count for run in runs), default=1)
    return max(1, min(host.cores // threads, len(runs)))


def _engines(populations: Sequence[PlannedPopulation]) -> tuple[Counter[str], str]:
    """Return how many runs will use each engine, and why the first run uses its own.

    The engine does not depend on the seed, so it is chosen once for the runs of a parent folder.
    """
    choices: dict[tuple[Path, str, int], Choice] = {}
    engines: Counter[str] = Counter()
    for each in populations:
        for run in each.runs:
            alike = run.path.parent, run.config.engine, len(each.runs)
            if alike not in choices:
                choices[alike] = _engine(run, each)
            engines[choices[alike].engine] += 1
    return engines, next((choice.reason for choice in choices.values()), "")


def _engine(run: Run, population: PlannedPopulation) -> Choice:
    """Return the engine of a run; one that goes on has that with which it began."""
    device = population.device.name
    try:
        choice = choose(run.config, device, members=len(population.runs))
    except InputError as error:
        if run.start != "resume":
            raise
        raise InputError(
            f"{run.label} goes on with the {run.config.engine} engine, with which it began, and "
            f"cannot on {device}: use --device cpu ({error})"
        ) from None
    return replace(choice, reason="that of its checkpoint") if run.start == "resume" else choice


def _sharing_cores(
    populations: Sequence[PlannedPopulation], jobs: int, host: Host
) -> list[PlannedPopulation]:
    """Give populations that train at once equal parts of the cores for their environments."""
    if jobs == 1:
        return list(populations)
    workers = max(1, min(host.cores_of_a_run, host.cores // jobs))

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


def _check_networks(populations: Sequence[PlannedPopulation], host: Host) -> None:
    """Raise InputError where the networks of one run, or one update, are larger than main memory.

    They are counted as the dense tensors that the sparse engine does not need, so only what is
    several times too large is refused.
    """
    if host.memory is None:
        return
    runs = [each.runs[0] for each in populations]
    for run, needed in zip(runs, for_each(runs, _network_memory), strict=True):
        if needed > MARGIN * host.memory:
            config = run.config
            raise InputError(
                f"hidden_sizes = {list(config.hidden_sizes)}, batch_size = {config.batch_size:,}: "
                f"main memory has {format_bytes(host.memory)}, and the networks and one update "
                f"need {format_bytes(needed)}; use fewer units, or a smaller batch"
            )


MARGIN = 4
"""How much larger than main memory what is refused must be by the estimate."""


def _network_memory(run: Run) -> int:
    sizes = run.spec.observation_size, run.spec.action_size
    return network_bytes([run.config], *sizes) + update_bytes([run.config], *sizes)


def _check_main_memory(placement: Placement, host: Host) -> None:
    """Raise InputError where replay buffers that exist at once are larger than main memory."""
    largest, needed = placement.at_once, placement.main_memory
    if host.memory is None or needed <= host.memory:
        return
    run, remedies = largest[0].runs[0], ["a smaller buffer_size"]
    if largest[0].device != Device("cpu"):
        remedies += ["--replay-device auto", "fewer --members-per-device"]
    elif len(largest) > 1:
        remedies.append("fewer --jobs")
    raise InputError(
        f"buffer_size = {run.config.buffer_size:,}: main memory has {format_bytes(host.memory)}, "
        f"and the replay buffers that would be in use at once need {format_bytes(needed)} "
        f"({len(largest)} x {format_bytes(largest[0].memory.host)} for {run.label}); "
        f"use {', or '.join(remedies)}"
    )
