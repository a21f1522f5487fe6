"""Capturing: what a graph may hold, how it is made, and whole runs of which everything is replayed.

Without an accelerator `graph_stand_in` takes its part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pandas as pd
import pytest
import torch
from graph_stand_in import Recorded, Recordings, Uncapturable, Watch, eager, replay
from population_samples import SPARSITIES
from torch import Tensor
from training_samples import SMALL, train

from dstrl_cli.bench.breakdown import StepParts
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.resolving import resolve
from dstrl_cli.replay import choice
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training import trainer
from dstrl_cli.training.capture import WARM_UP_CALLS, Function, capture
from dstrl_cli.training.reporter import Silent

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


@pytest.mark.parametrize(("algo", "env"), [("td3", "2DNav-v1"), ("sac", "Pendulum-v1")])
def test_runs_with_everything_replayed_write_the_same_files(
    algo: str, env: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, recordings = population(algo, env), Recordings()
    plain = train(configs, tmp_path / "eager")
    layout = choice.layout
    monkeypatch.setattr(choice, "layout", lambda _, *more: layout("cuda:0", *more))
    replayed = train(configs, tmp_path / "replayed", capturing=recordings)
    for one, other in zip(plain, replayed, strict=True):
        for name in ("eval.csv", "episodes.csv", "topology.csv"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
        rows = [pd.read_csv(folder / "progress.csv") for folder in (one, other)]
        timed = ["time_s", "steps_per_s"]
        pd.testing.assert_frame_equal(*(each.drop(columns=timed) for each in rows))
    # exploring, acting, storing, and the updates
    assert sum(recording.replays > 0 for recording in recordings.made) > 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
# torch.compile warns of its own parts and of float32 products
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::UserWarning")
@pytest.mark.parametrize("keys", [(), ("replay_device=cpu",), ("compile=true",)], ids=str)
@pytest.mark.parametrize(("algo", "env"), [("td3", "2DNav-v1"), ("sac", "Pendulum-v1")])
def test_an_accelerator_replays_what_it_does_eagerly(
    algo: str, env: str, keys: Sequence[str], tmp_path: Path
) -> None:
    configs = population(algo, env, ("learning_rate=1e-5", *keys))  # rounding must not grow
    captured = train(configs, tmp_path / "captured", device="cuda:0")
    plain = train(configs, tmp_path / "eager", device="cuda:0", capturing=eager)
    for one, other in zip(captured, plain, strict=True):
        for name in ("eval.csv", "episodes.csv", "topology.csv"):
            ours, theirs = (pd.read_csv(folder / name) for folder in (one, other))
            pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)


def test_the_parts_of_a_lock_step_are_timed_apart(tmp_path: Path) -> None:
    one = prepare(population("td3", "Pendulum-v1")[1], Path("run"))
    with RunFolder(tmp_path / "run").create(to_dict(one.config)) as folder, torch.no_grad():
        timed = trainer.Population([one.config], [[folder]], one.spec, "cpu", Silent())
        observation = [timed.env.reset(timed.env_seeds)]

        def lap() -> None:
            observation.append(timed.advance(observation.pop()))

        for _ in range(60):
            lap()
        parts = StepParts(timed, lap)
        parts.run(0.05)
        timed.close()
    assert timed.steps == 60 + parts.laps
    assert parts.updates == parts.laps
    found = parts.milliseconds()
    assert list(found) == ["act", "env", "store", "update", "rest"]
    assert min(found.values()) > 0
