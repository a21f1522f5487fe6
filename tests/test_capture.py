"""What is captured on an accelerator, proven without one: operations replayed on fixed tensors.

`Recorded` stands in for a CUDA graph. It notes every operation of one call with the very tensors
that went in and came out, and from then on executes those operations alone, results written into
the tensors of the first time: no Python runs, nothing moves. It refuses what a graph would refuse.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from network_samples import take_events
from test_population import METHODS, SPARSITIES, member, state
from test_training import SMALL
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dstrl_cli import envs
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.bench.stopwatch import Stopwatch
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.presets import resolve
from dstrl_cli.envs.base import Step
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.base import Replay
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.once import ReplayOnce
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training import learner, trainer
from dstrl_cli.training.capture import WARM_UP_CALLS, Function, capture
from dstrl_cli.training.learner import Learner

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.item}
SIZED_BY_VALUES = {aten.nonzero, aten.masked_select, aten._unique2, aten.repeat_interleave}
FROM_HOST = {aten.lift_fresh, aten.lift_fresh_copy}
RANDOM = {aten.uniform_, aten.normal_, aten.rand, aten.randn, aten.random_, aten.bernoulli_}
Operation = tuple[Any, Any, Any, Any]
"""What was called, its arguments, and its result."""
FORBIDDEN = READS | SIZED_BY_VALUES | FROM_HOST | RANDOM


class Uncapturable(Exception):
    """A CUDA graph would not take this operation, or would freeze its result."""


class Watch(TorchDispatchMode):
    """Notes every operation with its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        by_value = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            index.dtype == torch.bool for index in tree_leaves(args[1]) if index is not None
        )
        if packet in FORBIDDEN or by_value or any(tensor.is_meta for tensor in tensors):
            raise Uncapturable(str(func))
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result


def replay(operations: Sequence[Operation]) -> None:
    """Execute operations alone, their results written to where they went the first time."""
    for operation, args, kwargs, first in operations:
        again = operation(*args, **kwargs)
        for old, new in zip(tree_leaves(first), tree_leaves(again), strict=True):
            if old.data_ptr() != new.data_ptr():  # in place and views are there already
                old.copy_(new)


class Recorded:
    """A function that is replayed as a CUDA graph would be: see the head of this file."""

    def __init__(self, function: Function) -> None:
        self.function, self.watch = function, Watch()
        self.calls, self.replays = 0, 0
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: Any = None

    def __call__(self, *arguments: Tensor) -> Any:
        self.calls += 1
        if self.calls == 1:
            return self.function(*arguments)
        if self.calls == 2:
            self.inputs = tuple(argument.clone() for argument in arguments)
            # a tensor made without naming a device would lie on the host: let it stand out
            with torch.device("meta"), self.watch:
                self.outputs = self.function(*self.inputs)
            return self.outputs
        self.replays += 1
        for static, argument in zip(self.inputs, arguments, strict=True):
            static.copy_(argument)
        replay(self.watch.operations)
        return self.outputs


class Recordings:
    """A `Capture` that keeps what it made."""

    def __init__(self) -> None:
        self.made: list[Recorded] = []

    def __call__(self, function: Function) -> Function:
        self.made.append(Recorded(function))
        return self.made[-1]


def eager(function: Function) -> Function:
    return function


X = torch.tensor([3.0, 1.0, 2.0])


# --- the stand-in itself --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * float(x[0]),
        lambda x: x if bool((x > 0).all()) else -x,
        lambda x: x[x > 1],
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x[[0, 2]],
        lambda x: x + torch.ones(3),
        lambda x: x + torch.randn(3),
    ],
    ids=["a number read", "a branch", "sized by values", "host data", "an index list",
         "made on the host", "random"],
)  # fmt: skip
def test_the_stand_in_refuses_what_a_graph_cannot_do(function: Function) -> None:
    recorded = Recorded(function)
    recorded(X)
    with pytest.raises((Uncapturable, RuntimeError)):
        recorded(X)


def test_the_stand_in_replays_operations_and_not_python() -> None:
    ran: list[int] = []
    total = torch.zeros(3)

    def add(x: Tensor) -> Tensor:
        ran.append(1)
        total.add_(x.sort().values)
        return total * 2

    recorded = Recorded(add)
    for _ in range(4):
        out = recorded(X)
    assert len(ran) == 2
    assert total.tolist() == [4, 8, 12]
    assert out.tolist() == [8, 16, 24]
    total.zero_()  # in place between two replays
    assert recorded(X + 1).tolist() == [4, 6, 8]


def test_off_an_accelerator_a_function_stays_what_it_is() -> None:
    def function(x: Tensor) -> Tensor:
        return x

    assert capture(function, device="cpu") is function


class StandInGraph:
    """As much of `torch.cuda` as `capture.Graph` asks for, with operations replayed as above."""

    def __init__(self) -> None:
        self.watch, self.recorded = Watch(), False

    def replay(self) -> None:
        if not self.recorded:  # unlike a capture, watching has done the work already
            self.recorded = True
            return
        replay(self.watch.operations)


def test_a_graph_warms_up_captures_once_and_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            order.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def graph(recorded: StandInGraph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        order.append(f"capture on {stream.name}, {capture_error_mode}")
        with recorded.watch:
            yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", StandInGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    total, ran = torch.zeros(3), []

    def add(x: Tensor) -> tuple[Tensor, Tensor]:
        ran.append(1)
        return total.add_(x), total * 2

    captured = capture(add, device="cuda:0")
    for number in range(1, 7):
        now, double = captured(X * number)
        assert torch.equal(now, X * sum(range(number + 1)))
        assert torch.equal(double, now * 2)
    assert len(ran) == WARM_UP_CALLS + 1
    waits = ["side waits for main", "main waits for side"]
    assert order == waits * WARM_UP_CALLS + ["capture on side, thread_local"]


def test_what_is_captured_may_be_compiled_first() -> None:
    """Dynamo reads every function in one piece: nothing in there is left to Python."""
    configs = runs("td3", ["dst"])
    whole = functools.partial(torch.compile, backend="eager", fullgraph=True)
    (plain, one), (traced, other) = make(configs, eager), make(configs, whole)
    with torch.no_grad():
        for each in (one, other):
            store(each, 0, 20)
            for _ in range(3):
                each.update()
    for a, b in zip(state(plain, 0), state(traced, 0), strict=True):
        torch.testing.assert_close(a, b)


# --- updates of mixed populations -----------------------------------------------------------------

SPEC = envs.spec("Pendulum-v1")
DELAYS = {"rlx2": 35, "our-rlx2": 9}  # T_0: the members pass it one after the other
UPDATES = 80


def runs(algo: str, methods: Sequence[str]) -> list[RunConfig]:
    found = []
    for seed, method in enumerate(methods):
        run = member(algo, method, seed, (6, 8))
        changes = {"nstep_delay": DELAYS.get(method, 0), "steps": 110, "learning_starts": 10}
        found.append(run.model_copy(update=changes))
    return found


def make(configs: Sequence[RunConfig], captured: Any) -> tuple[Algorithm, Learner]:
    algorithm: Algorithm = load(ALGORITHMS, configs[0].algo)(
        configs, SPEC.observation_size, SPEC.action_size
    )
    return algorithm, Learner(algorithm, SPEC, True, captured)


def store(learner: Learner, step: int, count: int = 1) -> None:
    """Store what depends on step and seed alone."""
    seeds = learner.algorithm.seeds
    for number in range(step, step + count):
        sources = [torch.Generator().manual_seed(1000 * seed + number) for seed in seeds]
        drawn = torch.stack([torch.randn(2 * 3 + 1 + 2, generator=g) for g in sources])
        observation, following, action, rest = drawn.split((3, 3, 1, 2), dim=-1)
        ended = rest[:, 1] > 1
        fell = ended & (rest[:, 0] > 0)
        result = Step(following, rest[:, 0], fell, ended & ~fell, following)
        learner.store(observation, action.tanh(), result, action.tanh())


MIXED = [name for name in METHODS if name != "our-rlx2"]  # its critic rule watches every update


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_replayed_updates_are_the_eager_ones_through_topology_updates(algo: str) -> None:
    recordings = Recordings()
    configs = runs(algo, MIXED)
    (plain, one), (replayed, other) = make(configs, eager), make(configs, recordings)
    for each in (one, other):
        store(each, 0, 20)
    changes, kinds = 0, set()
    with torch.no_grad():
        for number in range(UPDATES):
            store(one, 20 + number)
            one.update()
            store(other, 20 + number)
            other.update()
            now = {(due.actor, max_nstep) for due, max_nstep in other.updaters if not due.topology}
            assert len({max_nstep for _, max_nstep in now}) <= 1  # those of another n are let go
            kinds |= now
            for ours, theirs in zip(
                (plain.actor, plain.critic), (replayed.actor, replayed.critic), strict=True
            ):
                events = take_events(ours)
                assert events == take_events(theirs)
                changes += len(events)
            for index in range(len(configs)):
                for a, b in zip(state(plain, index), state(replayed, index), strict=True):
                    assert torch.equal(a, b)
    for a, b in zip((plain.actor, plain.critic), (replayed.actor, replayed.critic), strict=True):
        assert torch.equal(a.target_params.flat, b.target_params.flat)  # type: ignore[attr-defined]
        assert torch.equal(a.adam.second, b.adam.second)  # type: ignore[attr-defined]
        assert a.updates == b.updates
    assert plain.take_metrics() == replayed.take_metrics()
    assert changes > len(configs)
    assert min(recording.replays for recording in recordings.made) > 0
    # n is 1 until rlx2 passes its T_0; SAC's actor takes part in every update
    assert kinds == {
        (actor, n) for actor in ({True, False} if algo == "td3" else {True}) for n in (1, 3)
    }


def test_a_rule_that_watches_every_update_is_never_replayed() -> None:
    recordings = Recordings()
    algorithm, learner = make(runs("td3", ["sst", "our-rlx2"]), recordings)
    store(learner, 0, 30)
    with torch.no_grad():
        for _ in range(12):
            learner.update()
    assert all(due.topology for due, _ in learner.updaters)
    assert len(recordings.made) == 1  # storing, which no rule looks at
    assert algorithm.updates == 12


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_replaying_changes_one_member_and_no_other(algo: str) -> None:
    """A member whose rewards turn to NaN is frozen by the replayed update itself."""
    configs = runs(algo, ["sst", "dst", "rlx2"])
    states = []
    for broken in (False, True):
        algorithm, learner = make(configs, Recordings())
        store(learner, 0, 20)
        with torch.no_grad():
            for number in range(UPDATES):
                store(learner, 20 + number)
                if broken and number == 17:
                    before = state(algorithm, 1)
                    learner.replay.reward[1] = torch.nan
                learner.update()
        assert algorithm.alive.tolist() == [True, not broken, True]
        states.append([state(algorithm, index) for index in range(3)])
    for index in (0, 2):
        for a, b in zip(states[0][index], states[1][index], strict=True):
            assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(before, states[1][1], strict=True))


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_a_buffer_on_the_host_gives_the_same_updates(
    algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = runs(algo, MIXED)
    plain, here = make(configs, eager)
    monkeypatch.setattr(learner, "replay_on_host", lambda config, device: True)
    recordings = Recordings()
    fed, away = make(configs, recordings)
    with torch.no_grad():
        for each in (here, away):
            store(each, 0, 20)
            for number in range(UPDATES):
                store(each, 20 + number)
                each.update()
    for index in range(len(configs)):
        for a, b in zip(state(plain, index), state(fed, index), strict=True):
            assert torch.equal(a, b)
    assert min(recording.replays for recording in recordings.made) > 0
    assert torch.equal(here.replay.not_done[:, :50], away.replay.not_done[:, :50])


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_an_accelerators_buffer_is_replayed_as_well(
    algo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = functools.partial(ReplayOnce, time_limit=1)
    monkeypatch.setattr(learner, "buffer", lambda place, time_limit, engine: once)
    (plain, one), (replayed, other) = (
        make(runs(algo, MIXED), eager),
        make(runs(algo, MIXED), Recordings()),
    )
    with torch.no_grad():
        for each in (one, other):
            store(each, 0, 20)
            for number in range(UPDATES):
                store(each, 20 + number)
                each.update()
    for index in range(len(MIXED)):
        for a, b in zip(state(plain, index), state(replayed, index), strict=True):
            assert torch.equal(a, b)
    for name in ("slot", "slots", "size"):  # all but what no row holds yet
        ours, theirs = (getattr(each.replay, name)[..., : 20 + UPDATES, :] for each in (one, other))
        assert torch.equal(ours, theirs)
    assert (other.replay.slot > 1).all()  # type: ignore[attr-defined]


def test_which_buffer_is_made_where() -> None:
    assert learner.buffer("cpu", 1000, "sparse") is CompiledReplay
    assert learner.buffer("cpu", 1000, "masked") is Replay
    assert learner.buffer("cuda:0", None, "masked") is Replay  # nothing bounds the cut episodes
    made = learner.buffer("cuda:0", 1000, "masked")(2, 5000, 3, 1, 0.99, "cpu")
    assert isinstance(made, ReplayOnce)
    assert made.ends.shape == (2, 7, 3)


def test_where_the_buffer_lies() -> None:
    run = member("td3", "sst", 0)
    on_host = run.model_copy(update={"replay_device": "cpu"})
    assert not learner.replay_on_host(run, "cuda:0")
    assert learner.replay_on_host(on_host, "cuda:0")
    assert not learner.replay_on_host(on_host, "cpu")


# --- whole runs -----------------------------------------------------------------------------------


def population(algo: str, env: str, keys: Sequence[str] = ()) -> list[RunConfig]:
    methods = ("dense", "dst", "rlx2", "sst")
    flags = {"env.id": env, "steps": 150, "engine": "masked"}
    return [
        resolve(
            method,
            algo,
            sets=(*SMALL, *keys),
            flags=flags | {"seed": seed, "sparsity": SPARSITIES[method]},
        )
        for seed, method in enumerate(methods)
    ]


def trained(
    configs: Sequence[RunConfig], out: Path, captured: Any, device: str = "cpu"
) -> list[Path]:
    prepared = [prepare(config, Path(str(number))) for number, config in enumerate(configs)]
    paths = [out / each.path for each in prepared]
    with ExitStack() as stack:
        folders = [
            stack.enter_context(RunFolder(path).create(to_dict(each.config)))
            for path, each in zip(paths, prepared, strict=True)
        ]
        spec = prepared[0].spec
        trainer.train([each.config for each in prepared], folders, spec, device, replayed=captured)
    return paths


@pytest.mark.parametrize(("algo", "env"), [("td3", "2DNav-v1"), ("sac", "Pendulum-v1")])
def test_runs_with_everything_replayed_write_the_same_files(
    algo: str, env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, recordings = population(algo, env), Recordings()
    plain = trained(configs, tmp_path / "eager", None)
    on_device = learner.buffer
    monkeypatch.setattr(learner, "buffer", lambda _, *more: on_device("cuda:0", *more))
    replayed = trained(configs, tmp_path / "replayed", recordings)
    for one, other in zip(plain, replayed, strict=True):
        for name in ("eval.csv", "episodes.csv", "topology.csv"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
        rows = [pd.read_csv(folder / "progress.csv") for folder in (one, other)]
        timed = ["time_s", "steps_per_s"]
        pd.testing.assert_frame_equal(*(each.drop(columns=timed) for each in rows))
    # exploring, acting, storing, and the updates
    assert sum(recording.replays > 0 for recording in recordings.made) > 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("keys", [(), ("replay_device=cpu",), ("compile=true",)], ids=str)
@pytest.mark.parametrize(("algo", "env"), [("td3", "2DNav-v1"), ("sac", "Pendulum-v1")])
def test_an_accelerator_replays_what_it_does_eagerly(
    algo: str, env: str, keys: Sequence[str], tmp_path: Path
) -> None:
    configs = population(algo, env, ("learning_rate=1e-5", *keys))  # rounding must not grow
    captured = trained(configs, tmp_path / "captured", None, "cuda:0")
    plain = trained(configs, tmp_path / "eager", eager, "cuda:0")
    for one, other in zip(captured, plain, strict=True):
        for name in ("eval.csv", "episodes.csv", "topology.csv"):
            ours, theirs = (pd.read_csv(folder / name) for folder in (one, other))
            pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)


def test_a_stopwatch_splits_a_lock_step(tmp_path: Path) -> None:
    one = prepare(population("td3", "Pendulum-v1")[1], Path("run"))
    with RunFolder(tmp_path / "run").create(to_dict(one.config)) as folder, torch.no_grad():
        timed = trainer.Population([one.config], [folder], one.spec, "cpu", trainer.Silent())
        watch = Stopwatch(timed)
        observation = timed.env.reset(timed.env_seeds)
        for _ in range(60):
            observation = watch.lap(observation)
        timed.close()
    assert timed.steps == 60
    assert min(watch.seconds.values()) > 0
    assert 0 < watch.other < watch.total
