"""What a benchmark measures: from options to `Work`s, grouped by what is compared.

Nothing is timed here. Every work is checked before the first one starts.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from dstrl_cli.bench import toolchain
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.machine import cores
from dstrl_cli.nets.choice import choose
from dstrl_cli.registry import ENGINES, algorithm, algorithm_name
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training.run import find_device

METHODS: Mapping[str, Sequence[str]] = {
    "train": ("dense", "sst", "rlx2", "our-rlx2", "dst", "our-dst"),
    "update": ("sst",),
}
"""Methods that are measured where `--dst` names none."""

POPULATION_METHODS = ("rlx2",)
"""The same for populations, which are measured by their members."""

FIRST_TOPOLOGY_UPDATE = 10
WARM_UP_UPDATES = 40
"""Updates before timing starts; every network has changed its topology by then."""

PRODUCT_SIZE = 1024
"""Rows and columns of the dense product that shows the machine's peak."""

SETTINGS = (
    "steps=1000000000",
    "learning_starts=1000",
    "buffer_size=1000000",
    "eval_every=1000000000",
    "eval_episodes=1",
    f"topology.update_offset={FIRST_TOPOLOGY_UPDATE}",
)
"""Keys that every measured run has unless `--set` says otherwise: the first topology update comes
early, the following ones in the method's own intervals."""

NOTES = (
    "Timing starts after compilation, the random steps, "
    f"{WARM_UP_UPDATES} updates and a first topology update of every network; the further ones "
    "come in the method's intervals. Nothing is evaluated.",
    "The replay buffers are full and of one size (repeats of the first transitions). n-step and "
    "other keys are those of a run's first updates; --set changes them.",
    "A checkpoint is that of all members with full buffers, written once, to the folder for "
    "temporary files; its share is of the time of a run that writes one every 10 minutes.",
    "Ratios: of the medians; min and max over the rounds; memory of one process; CPU is the "
    "processor time of a step over the other's, all threads together.",
    "floor ms: the multiply-adds of an update's active connections at the peak of as many cores as "
    "there are threads, as a dense product reaches it in the same rounds.",
)

REMEDY = 'pip install "dstrl[bench]"'


class Peer(NamedTuple):
    """A library that dstrl is compared with.

    `threads` are the settings to try, of which the best counts; None leaves it to the library.
    `accelerates`: whether it is measured on the accelerator where dstrl is; else on the CPU.
    `remedy`: what installs it.
    `updates_alone`: whether an update can be asked for without an environment step.
    `missing`: says what else it lacks on this machine; None: nothing.
    `refusal`: says why it cannot take over the sizes of a run; None: it can.
    `note`: what the user should know of its numbers.
    """

    label: str
    module: str
    package: str
    threads: tuple[int | None, ...]
    accelerates: bool = False
    remedy: str = REMEDY
    updates_alone: bool = True
    missing: Callable[[], str | None] = lambda: None
    refusal: Callable[[RunConfig], str | None] = lambda config: None
    note: str = ""


PEERS: dict[str, Peer] = {
    "sb3": Peer("SB3", "stable_baselines3", "stable-baselines3", (1, 2), accelerates=True),
    "sbx": Peer("SBX", "sbx", "sbx-rl", (None,)),
    "rltools": Peer(
        "RLtools",
        "rltools",
        "rltools",
        (1,),
        remedy='pip install "dstrl[rltools]"',
        updates_alone=False,
        missing=toolchain.missing,
        refusal=toolchain.refusal,
        note="RLtools is compiled for the run before it is timed. Its replay buffer cannot be "
        "filled from Python: it holds the steps taken so far, which costs less memory and fewer "
        "misses of the cache. Its environment is Gymnasium's, as dstrl's is.",
    ),
}


@dataclass(frozen=True)
class BenchRequest:
    """What `dstrl bench train` or `update` is to measure; an empty axis is left to the defaults.

    `vary` is one more axis: a key of the configuration and its values, as in `batch_size=64,256`.
    """

    kind: str
    algos: Sequence[str] = ()
    methods: Sequence[str] = ()
    envs: Sequence[str] = ()
    sparsities: Sequence[float] = ()
    engines: Sequence[str] = ()
    widths: Sequence[int] = ()
    batch: int | None = None
    threads: Sequence[int] = ()
    members: Sequence[int] = ()
    device: str | None = None
    jobs: int = 1
    peers: Sequence[str] = ()
    sets: Sequence[str] = ()
    vary: str = ""


@dataclass(frozen=True)
class Work:
    """What one measurement times.

    Attributes:
        kind: `train` (whole steps), `update`, `infer` (one action) or `product` (a dense matrix
            product, the machine's peak).
        contender: `dstrl`, or the name of a peer.
        config: the run; a peer takes its sizes over.
        members: runs in lock-step in one process.
        threads: threads of one process; None: as many as the library takes.
        jobs: processes at once.
        policy: file of the policy that acts.
        varied: the last part of the key that `--vary` names and the value, as in `fan_in=free`;
            empty without one.
    """

    kind: str
    contender: str = "dstrl"
    config: RunConfig | None = None
    members: int = 1
    threads: int | None = 1
    jobs: int = 1
    policy: Path | None = None
    varied: str = ""

    @property
    def splits(self) -> bool:
        """Whether the parts of a lock-step are timed, too."""
        return self.kind == "train" and self.contender == "dstrl" and self.jobs == 1

    @property
    def saves(self) -> bool:
        """Whether a checkpoint is timed, too."""
        return self.kind == "train" and self.contender == "dstrl"

    @property
    def label(self) -> str:
        """The work in a few words, for messages."""
        if self.config is None:
            return f"{self.contender} {self.kind}"
        name = self.config.method if self.contender == "dstrl" else self.contender
        return f"{algorithm_name(self.config.algo)} {name} {self.kind}"


Group = list[Work]
"""Works that are measured in turns: the same algorithm, environment, sizes and batch."""


def groups(request: BenchRequest, tell: Callable[[str], None]) -> list[Group]:
    """Return everything to measure. Raises InputError for what cannot be, before anything runs."""
    check_peers(request.peers, request.kind)
    for name in request.engines:
        if name != "auto" and name not in ENGINES:
            raise InputError(f"--engine: {suggest('engine', name, ['auto', *ENGINES])}")
    if any(count < 1 for count in (*request.members, *request.threads)):
        raise InputError("--members and --threads are counts from 1 on")
    found: dict[tuple[object, ...], dict[Work, None]] = {}
    for varied, sets in _varied(request.vary):
        for config in _configs(replace(request, sets=[*request.sets, *sets])):
            key = (config.algo, config.env, config.hidden_sizes, config.batch_size)
            group = found.setdefault(key, {})
            for members in request.members or [1]:
                works = _variants(request, config, members, tell)
                group |= dict.fromkeys(replace(work, varied=varied) for work in works)
    return [_with_peers(request, list(group)) for group in found.values()]


def _varied(vary: str) -> list[tuple[str, list[str]]]:
    """Return every value of the key to vary, as `leaf=value`, and what sets it; one without a key.

    Raises InputError unless it is written as `KEY=VALUE,VALUE`.
    """
    if not vary:
        return [("", [])]
    key, _, values = (part.strip() for part in vary.partition("="))
    if key == "threads":
        raise InputError("--vary threads: give --threads 1,2, which measures several, instead")
    if "[" in values:
        raise InputError(
            f"--vary {vary}: lists cannot be varied; widths can, by --width 64,256, and other "
            "lists with --set, one command for each"
        )
    found = [value.strip() for value in values.split(",") if value.strip()]
    if not key or len(set(found)) < 2:
        raise InputError(f"--vary {vary}: must be a key with two values or more, KEY=VALUE,VALUE")
    leaf = key.rpartition(".")[2]
    return [(f"{leaf}={value}", [f"{key}={value}"]) for value in found]


def check_peers(names: Sequence[str], kind: str) -> None:
    """Raise InputError for a peer that is unknown or cannot be measured here."""
    for name in names:
        if name not in PEERS:
            raise InputError(f"--peer: {suggest('peer', name, PEERS)}")
        peer = PEERS[name]
        if importlib.util.find_spec(peer.module) is None:
            raise InputError(f"--peer {name}: {peer.package} is not installed: {peer.remedy}")
        if kind == "update" and not peer.updates_alone:
            raise InputError(
                f"--peer {name}: {peer.label} takes whole steps only: dstrl bench train"
            )
        if lacks := peer.missing():
            raise InputError(f"--peer {name}: {lacks}")


def _configs(request: BenchRequest) -> list[RunConfig]:
    """Return the resolved configuration of every combination of the axes, engine not yet chosen."""
    if any(text.partition("=")[0].strip() == "threads" for text in request.sets):
        raise InputError("--set threads: give --threads 1,2, which measures several, instead")
    found: dict[RunConfig, None] = {}
    populations = request.kind == "train" and request.members
    methods = POPULATION_METHODS if populations else METHODS[request.kind]
    for algo, env, width, method, sparsity, threads in product(
        request.algos or ["td3"],
        _or_default(request.envs),
        _or_default(request.widths),
        request.methods or methods,
        _or_default(request.sparsities),
        request.threads or [1],
    ):
        wanted = [] if width is None else [f"hidden_sizes=[{width}, {width}]"]
        wanted += [] if request.batch is None else [f"batch_size={request.batch}"]
        flags = {"env.id": env, "sparsity": sparsity, "device": request.device, "threads": threads}
        config = resolve(method, algo, sets=[*SETTINGS, *request.sets, *wanted], flags=flags)
        if algorithm(config.algo).needs:
            raise InputError(f"--algo {algo}: it learns from a trained run, which bench has not")
        config = prepare(config, Path()).config
        found[config.model_copy(update={"device": find_device(config.device)})] = None
    return list(found)


def _or_default(axis: Sequence[Any]) -> list[Any]:
    """Return an axis; where it is empty, the one value that leaves the key to its default."""
    return list(axis) or [None]


def _variants(
    request: BenchRequest, config: RunConfig, members: int, tell: Callable[[str], None]
) -> list[Work]:
    """Return the works of one configuration: each engine with one run, and with `jobs` at once.

    Where no engine is asked for, `auto` is measured, and beside it the masked engine with one run.
    """

    def work(engine: str) -> Work:
        chosen = config.model_copy(update={"engine": engine})
        choice = choose(chosen, config.device, tell, members=members)
        if choice.warning:
            tell(f"warning: {choice.warning}")
        chosen = config.model_copy(update={"engine": choice.engine})
        return Work(request.kind, config=chosen, members=members, threads=config.thread_count)

    asked = [work(engine) for engine in request.engines or [config.engine]]
    beside = [] if request.engines else [work("masked")]
    several = [replace(each, jobs=request.jobs) for each in asked]
    return [*asked, *beside, *several]


def _with_peers(request: BenchRequest, group: Group) -> Group:
    """Return the group with its peers in all their settings, and the machine's peak if asked."""
    own, found = group[0], list(group)
    for name in request.peers:
        config = _plain(own.config, PEERS[name])
        if config is not None and (reason := PEERS[name].refusal(config)):
            raise InputError(f"--peer {name}: {reason}")
        settings = [each for each in PEERS[name].threads if each is None or each <= cores()]
        if config is not None and config.device != "cpu":
            settings = settings[:1]  # the work is not done by host threads
        base = replace(own, contender=name, config=config, members=1, jobs=1)
        found += [replace(base, threads=threads) for threads in settings]
        if request.jobs > 1:
            found.append(replace(base, threads=1, jobs=request.jobs))
    if own.config and own.config.device == "cpu":
        found.append(Work("product"))
    return found


def _plain(config: RunConfig | None, peer: Peer) -> RunConfig | None:
    """Return the configuration for a peer, which has no engines and may not use an accelerator."""
    if config is None:
        return None
    device = config.device if peer.accelerates else "cpu"
    return config.model_copy(update={"device": device, "engine": "auto"})
