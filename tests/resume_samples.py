"""Runs that are stopped at chosen moments, and what compares them with one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

from dstrl_cli.config.resolving import resolve
from dstrl_cli.runs import logs
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.sweep.states import resumed
from dstrl_cli.training import run as training
from dstrl_cli.training.reporter import Reporter, Silent
from dstrl_cli.training.run import Run, Summary
from dstrl_cli.training.stop import Stop

SMALL = (
    "hidden_sizes=[12,12]",
    "batch_size=16",
    "learning_starts=40",
    "eval_every=70",
    "eval_episodes=2",
    "topology.update_interval=7",
    "nstep_delay=20",
    "buffer.check_interval=25",
    "buffer.min_size=30",
    "buffer.distance_threshold=0",
)
"""Short runs in which the topology changes often, n-step targets begin and the buffer shrinks."""

STEPS = 120

NUMBERS = (
    *("eval.csv", "episodes.csv", "topology.csv", "hashes.csv", "neurons.csv"),
    *("policy.safetensors", "best.safetensors", "initial.safetensors"),
)
"""The files of a run that do not depend on how long anything took."""


def make_run(
    out: Path,
    method: str = "rlx2",
    *,
    algo: str = "td3",
    engine: str = "masked",
    env: str = "InvertedPendulum-v5",
    seed: int = 0,
    steps: int = STEPS,
    sets: Sequence[str] = (),
) -> Run:
    """Return a small run in the folder `out`."""
    flags = {"env.id": env, "steps": steps, "seed": seed, "sparsity": 0.6, "engine": engine}
    config = resolve(method, algo, sets=(*SMALL, *sets), flags=flags)
    return replace(prepare(config, Path("run")), path=out)


def train(run: Run, reporter: Reporter | None = None) -> Summary:
    """Train one run as it says (`start`)."""
    (summary,) = training.train([run], "cpu", reporter or Silent())
    return summary


def go_on(run: Run, path: Path, reporter: Reporter | None = None) -> Summary:
    """Go on with a run that is in the folder `path`, as a sweep does."""
    (planned,) = resumed([replace(run, path=path)], overwrite=False)
    return train(planned.run, reporter)


def numbers(path: Path) -> dict[str, bytes]:
    """Return the content of the files that must be equal."""
    return {name: (path / name).read_bytes() for name in NUMBERS if (path / name).exists()}


def copy_while_training(
    monkeypatch: pytest.MonkeyPatch, into: Path, every: int
) -> Callable[[], list[Path]]:
    """Copy the folder of the next run at every `every`-th append to a log, and at checkpoints.

    A copy is what a process leaves that is killed at this moment. Returns what lists the copies.
    """
    calls = 0
    append, write_checkpoint = logs.append, RunFolder.checkpoint

    def copy(folder: Path) -> None:
        shutil.copytree(folder, into / f"{len(list(into.glob('*'))):03}")

    def copying_append(folder: Path, name: str, rows: Any) -> None:
        nonlocal calls
        calls += 1
        append(folder, name, rows)
        if calls % every == 0:
            copy(folder)

    def copying_checkpoint(folder: RunFolder, state: Any) -> None:
        write_checkpoint(folder, state)
        copy(folder.path)

    into.mkdir()
    monkeypatch.setattr(logs, "append", copying_append)
    monkeypatch.setattr(RunFolder, "checkpoint", copying_checkpoint)

    def copies() -> list[Path]:
        monkeypatch.undo()
        return sorted(into.iterdir())

    return copies


class Lines(Silent):
    """A reporter that keeps the messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


class StopAt(Lines):
    """Stops the training in which it is, by `stop`, after the evaluation at a step."""

    def __init__(self, step: int, stop: Callable[[], None]) -> None:
        super().__init__()
        self.step, self.stop = step, stop

    def evaluation(self, member: int, row: dict[str, Any]) -> None:
        if row["step"] == self.step:
            self.stop()


def stop_at_check(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ask the next training to stop when it looks whether it should for the `number`-th time."""
    calls = 0
    check = Stop.check

    def counting(stop: Stop) -> None:
        nonlocal calls
        calls += 1
        stop.requested = stop.requested or calls == number
        check(stop)

    monkeypatch.setattr(Stop, "check", counting)


class Secretive(gymnasium.Env):
    """Counts to 30 in an episode, and keeps something that is no plain data."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.secret = object()
        self.count = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        seen = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return seen, float(action[0]), False, self.count == 30, {}
