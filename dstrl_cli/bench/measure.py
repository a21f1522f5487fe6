"""Measures: processes that take turns, and the statistics of what they report.

The processes of a group exist at the same time, and wait while another is timed; a round times each
of them once. `worker` is what runs in a process.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dstrl_cli.algos import flops
from dstrl_cli.bench import worker
from dstrl_cli.bench.plan import PRODUCT_SIZE, WARM_UP_UPDATES, Group, Work
from dstrl_cli.bench.timing import Timing
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.network_sizes import network_sizes
from dstrl_cli.errors import DstrlError
from dstrl_cli.machine import cores
from dstrl_cli.registry import algorithm
from dstrl_cli.sweep.plan import layer_budgets, prepare

PRODUCT_SECONDS = 0.5
CHECKPOINT_EVERY_S = 600
"""The default interval of checkpoints."""
GRACE_S = 5.0
LEAST_FREE_MB = 1000
LAST_WORDS = 500
"""Characters of a dead process's output that are shown."""


@dataclass(frozen=True)
class Measurement:
    """What was measured of one work.

    Attributes:
        work: what was timed.
        rates: steps (updates, actions) per second of all members and jobs, one per round.
        peak_mb: largest resident memory of one process.
        cpu: milliseconds of processor time, of all threads, of one lock-step of one process; one
            per round.
        floor_ms: time of the update's arithmetic alone at the machine's measured peak, or None.
        peak_gflops: that peak, of one core; or None.
        device_mb: most memory taken of the accelerator, or None.
        parts: milliseconds of a lock-step's parts, where they were timed.
        checkpoint: seconds and bytes of a checkpoint of one process, where one was written.
        compile_s: seconds that compiling the work's own program took, which nothing else counts.
    """

    work: Work
    rates: tuple[float, ...]
    peak_mb: float
    cpu: tuple[float, ...] = ()
    floor_ms: float | None = None
    peak_gflops: float | None = None
    device_mb: float | None = None
    parts: Mapping[str, float] | None = None
    checkpoint: tuple[float, int] | None = None
    compile_s: float | None = None

    @property
    def checkpoint_share(self) -> float | None:
        """Share of the time of a run that checkpoints take at their default interval."""
        if self.checkpoint is None:
            return None
        seconds, _ = self.checkpoint
        return seconds / (CHECKPOINT_EVERY_S + seconds)

    @property
    def rate(self) -> float:
        """Median steps per second."""
        return median(self.rates)

    @property
    def milliseconds(self) -> tuple[float, float, float]:
        """Median, smallest and largest time of one lock-step of one process."""
        steps = 1000.0 * self.work.members * self.work.jobs
        return steps / self.rate, steps / max(self.rates), steps / min(self.rates)

    @property
    def cpu_ms(self) -> float:
        """Median processor time of one lock-step of one process."""
        return median(self.cpu)

    @property
    def over_floor(self) -> float | None:
        """How many times as long as its arithmetic a lock-step takes, or None without a floor."""
        return None if self.floor_ms is None else self.milliseconds[0] / self.floor_ms


@dataclass(frozen=True)
class Ratio:
    """How much faster one measurement is than another: of the medians, and over the rounds.

    `memory` is the ratio of the peaks, `cpu` that of the processor times of one member's step.
    """

    subject: Measurement
    over: Measurement
    speed: float
    least: float
    most: float
    memory: float
    cpu: float


# --- processes ----------------------------------------------------------------------------------


class Process:
    """One worker. A context manager that ends it."""

    def __init__(self, work: Work, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.work, self.folder = work, folder
        self.compile_s: float | None = None
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=worker.main, args=(theirs, work, str(folder)), daemon=True
        )
        self.process.start()
        theirs.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.connection.close()
        if kind is None:
            self.process.join(GRACE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def send(self, question: str, seconds: float = 0.0) -> None:
        """Ask for the `time` of work of so many seconds, its `parts`, `memory` or `checkpoint`."""
        try:
            self.connection.send((question, seconds))
        except OSError:
            self._died()

    def receive(self) -> Any:
        """Return the answer. Raises DstrlError where the work failed or the process died."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self._died()
        if kind == "error":
            raise DstrlError(f"{self.work.label}: {value}")
        return value

    def ask(self, question: str, seconds: float = 0.0) -> Any:
        """Return the answer to one question."""
        self.send(question, seconds)
        return self.receive()

    def _died(self) -> None:
        self.process.join(GRACE_S)
        output = self.folder / "output.txt"
        words = output.read_text()[-LAST_WORDS:].strip() if output.exists() else ""
        raise DstrlError(
            f"{self.work.label}: its process ended with exit code {self.process.exitcode}"
            + (f"; its last words:\n{words}" if words else "")
        )


class Pool:
    """The processes of one group; works that differ in `jobs` alone share them."""

    def __init__(self, group: Group, folder: Path, stack: ExitStack) -> None:
        self.found: dict[Work, list[Process]] = {}
        self.folder, self.stack = folder, stack
        self.needed: dict[Work, int] = {}
        for work in group:
            alone = replace(work, jobs=1)
            self.needed[alone] = max(work.jobs, self.needed.get(alone, 0))

    def start(self, tell: Callable[[str], None]) -> None:
        """Start and warm up every process, as many at a time as there are cores."""
        waiting = [work for work, count in self.needed.items() for _ in range(count)]
        total = len(waiting)
        for first in range(0, total, cores()):
            batch = waiting[first : first + cores()]
            tell(f"warming up {first + len(batch)} of {total}: {batch[-1].label}")
            for process in [self._start(work) for work in batch]:
                process.compile_s = process.receive()
            check_memory(first + len(batch))

    def _start(self, work: Work) -> Process:
        known = self.found.setdefault(work, [])
        folder = self.folder / str(sum(map(len, self.found.values())))
        known.append(self.stack.enter_context(Process(work, folder)))
        return known[-1]

    def of(self, work: Work) -> list[Process]:
        """Return the processes that do a work."""
        return self.found[replace(work, jobs=1)][: work.jobs]


def check_memory(processes: int) -> None:
    """Raise DstrlError where the processes that wait for their turns leave hardly any memory."""
    free = _free_memory_mb()
    if free is not None and free < LEAST_FREE_MB:
        raise DstrlError(
            f"{processes} processes that are measured in turns leave only {free:.0f} MB of memory; "
            "measure fewer methods or engines in one call, or --set buffer_size=100000"
        )


def _free_memory_mb() -> float | None:
    """Return the memory that programs can still get, where the system says it (Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 / 1e6 if found else None


# --- measuring ----------------------------------------------------------------------------------


def measure(
    groups: Sequence[Group], seconds: float, repeats: int, tell: Callable[[str], None]
) -> Iterator[list[Measurement]]:
    """Measure one group after the other; yield its measurements, in its order, when it is done.

    Args:
        groups: what to measure.
        seconds: time of one measurement.
        repeats: rounds.
        tell: called with a line of text when something begins.
    """
    for number, group in enumerate(groups, start=1):
        of = f"group {number} of {len(groups)}, " if len(groups) > 1 else ""
        measured = _measure_group(group, seconds, repeats, _prefixed(tell, of))
        products = max((max(m.rates) for m in measured if m.work.kind == "product"), default=None)
        peak = None if products is None else 2 * PRODUCT_SIZE**3 * products
        yield [
            replace(
                m,
                floor_ms=floor_ms(m.work, peak),
                peak_gflops=None if peak is None else peak / 1e9,
            )
            for m in measured
            if m.work.kind != "product"
        ]


def _prefixed(tell: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda text: tell(prefix + text)


def _measure_group(
    group: Group, seconds: float, repeats: int, tell: Callable[[str], None]
) -> list[Measurement]:
    with ExitStack() as stack:
        pool = Pool(group, Path(stack.enter_context(TemporaryDirectory(prefix="dstrl-"))), stack)
        pool.start(tell)
        rounds: dict[Work, list[Round]] = {work: [] for work in group}
        for turn in range(repeats):
            for work in group:
                tell(f"round {turn + 1} of {repeats}: {work.label}")
                short = min(seconds, PRODUCT_SECONDS) if work.kind == "product" else seconds
                rounds[work].append(_time(pool.of(work), short))
        return [_finished(work, rounds[work], pool.of(work), seconds) for work in group]


def _finished(
    work: Work, rounds: Sequence[Round], processes: Sequence[Process], seconds: float
) -> Measurement:
    """Return a work's measurement; memory, parts and a checkpoint come after the timing."""
    taken = [process.ask("memory") for process in processes]
    on_device = [device for _, device in taken if device is not None]
    parts = processes[0].ask("parts", seconds) if work.splits else None
    checkpoint = processes[0].ask("checkpoint") if work.saves else None
    return Measurement(
        work,
        tuple(each.rate for each in rounds),
        cpu=tuple(each.cpu_ms for each in rounds),
        peak_mb=max(peak for peak, _ in taken),
        device_mb=max(on_device, default=None),
        parts=parts,
        checkpoint=checkpoint,
        compile_s=processes[0].compile_s,
    )


class Round(NamedTuple):
    """Steps per second of all members and processes, and processor time of a lock-step in ms."""

    rate: float
    cpu_ms: float


def _time(processes: Sequence[Process], seconds: float) -> Round:
    """Time processes that run at the same time."""
    for process in processes:
        process.send("time", seconds)
    answers: list[Timing] = [process.receive() for process in processes]
    rate = sum(each.steps / each.seconds for each in answers) * processes[0].work.members
    return Round(rate, 1000 * fmean(each.cpu_seconds / each.steps for each in answers))


# --- what follows from the numbers --------------------------------------------------------------


def floor_ms(work: Work, peak: float | None) -> float | None:
    """Return the time of a lock-step's arithmetic at the peak of as many cores as it has threads.

    FLOPs as RLX count them (RLX App. C.3). Of a whole step only the updates count.

    Args:
        work: an update or a whole step; for anything else there is no floor.
        peak: FLOPs per second of one core.
    """
    if peak is None or work.config is None:
        return None
    flops = work.members * update_flops(work.config, work.contender)
    if work.kind == "train" and work.contender == "dstrl":
        flops *= updates_per_step(work.config)
    return 1000 * flops / (peak * (work.threads or cores()))


def updates_per_step(config: RunConfig) -> float:
    """Return the updates per environment step; one where their period is counted in episodes."""
    if config.trains_after_episodes or config.gradient_steps < 0:
        return 1.0
    return config.gradient_steps / config.train_every


def _at_the_start(config: RunConfig) -> RunConfig:
    """Return a run with the sparsities that its networks begin with, where budgets move.

    What is measured is the first part of a run, which never comes to its final budgets.
    """
    networks = {role: getattr(config, role) for role in ("actor", "critic")}
    return config.model_copy(
        update={
            role: network.model_copy(update={"sparsity": network.initial_sparsity})
            for role, network in networks.items()
            if network.moves_budget
        }
    )


def update_flops(config: RunConfig, contender: str = "dstrl") -> float:
    """Return the FLOPs of one update of a whole batch; of a peer, whose networks are dense."""
    spec = prepare(config, Path()).spec
    if contender == "dstrl":
        active = layer_budgets(_at_the_start(config), spec)
        actor, critic = sum(active["actor"]), sum(active["critic"])
    else:
        plain = config.model_copy(
            update={
                role: getattr(config, role).model_copy(
                    update={"hidden_sizes": None, "match_parameters": False}
                )
                for role in ("actor", "critic")
            }
        )
        sizes = network_sizes(plain, spec.observation_size, spec.action_size)
        actor, critic = map(flops.weights, sizes)
    nstep = config.nstep if config.nstep_delay < WARM_UP_UPDATES else 1
    per_sample = flops.flops_per_sample(
        algorithm(config.algo),
        flops.forward_flops([actor]),
        flops.forward_flops([critic]),
        policy_delay=config.policy_delay,
        nstep=nstep,
    )
    return config.batch_size * per_sample


def ratio(subject: Measurement, over: Measurement) -> Ratio:
    """Return how much faster `subject` is than `over`, round by round."""
    rounds = [a / b for a, b in zip(subject.rates, over.rates, strict=True)]
    memory = subject.peak_mb / over.peak_mb
    cpu = (subject.cpu_ms / subject.work.members) / (over.cpu_ms / over.work.members)
    return Ratio(subject, over, subject.rate / over.rate, min(rounds), max(rounds), memory, cpu)


def ratios(measured: Sequence[Measurement]) -> list[Ratio]:
    """Return what a group's measurements say beside each other.

    Each of dstrl's is compared with every peer's best setting, each of another engine with the
    masked one, and each with a varied key with the same one that has the first value. Several jobs
    are compared with the peer's best way to use the machine, and with as many jobs of the peer
    where that is another one.
    """
    peers: dict[str, list[Measurement]] = {}
    for each in measured:
        if each.work.contender != "dstrl":
            peers.setdefault(each.work.contender, []).append(each)
    found = []
    first = measured[0].work.varied
    for each in measured:
        if each.work.contender != "dstrl":
            continue
        for settings in peers.values():
            alike = [m for m in settings if m.work.jobs == each.work.jobs]
            choices = [alike, settings] if each.work.jobs > 1 else [alike]
            best = {id(m): m for m in map(_fastest, filter(None, choices))}
            found += [ratio(each, m) for m in best.values()]
        masked = _masked(each.work)
        found += [ratio(each, m) for m in measured if masked is not None and m.work == masked]
        found += [ratio(each, m) for m in measured if _is_first_value(m.work, each.work, first)]
    return found


def _fastest(measured: Sequence[Measurement]) -> Measurement:
    return max(measured, key=lambda each: each.rate)


def _is_first_value(work: Work, other: Work, first: str) -> bool:
    """Whether a work differs from another one by having the `first` value of the varied key."""
    return work.varied == first != other.varied and _axes(work) == _axes(other)


def _axes(work: Work) -> tuple[object, ...]:
    """Return what tells the works of a group apart, but for the varied key."""
    config = work.config
    assert config is not None
    sparsities = config.actor.sparsity, config.critic.sparsity
    how = work.contender, work.members, work.threads, work.jobs
    return (*how, config.method, config.engine, sparsities)


def _masked(work: Work) -> Work | None:
    """Return the same work on the masked engine, or None where it is that itself."""
    if work.config is None or work.config.engine == "masked":
        return None
    return replace(work, config=work.config.model_copy(update={"engine": "masked"}))
