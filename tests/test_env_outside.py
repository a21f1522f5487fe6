"""An environment in a file of the current folder, found although `sys.path` lacks that folder."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from program_samples import dstrl

ROBOT = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box

class Robot(gymnasium.Env):
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,))

    def __init__(self, wage=1.0):
        self.wage = wage

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.array([action[0], 1.0], np.float32), self.wage, False, False, {}

gymnasium.register("Robot-v0", entry_point=Robot, max_episode_steps=10)
"""
SMALL = (
    *("--env=robot:Robot-v0", "--dst=sst", "--sparsity=0.5", "--steps=60", "--engine=masked"),
    *("--set=hidden_sizes=8,8", "--set=batch_size=8", "--set=learning_starts=50"),
    *("--set=eval_every=30", "--set=eval_episodes=2", "--device=cpu"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the robot, and with a file that must not be taken for another module."""
    (tmp_path / "robot.py").write_text(ROBOT)
    (tmp_path / "gymnasium.py").write_text("raise RuntimeError('not this one')")
    return tmp_path


def returns(run: Path) -> set[float]:
    """Return the returns of all evaluation episodes of a run."""
    with (run / "eval.csv").open() as file:
        return {float(row["return"]) for row in csv.DictReader(file)}


def test_train_and_eval_with_workers_and_arguments(folder: Path) -> None:
    dstrl(folder, "train", *SMALL, "--set=env_workers=2", "--set=env.kwargs.wage=2.5")
    run = folder / "results/Robot-v0/td3-sst/s0.5/seed0"
    assert returns(run) == {25.0}
    shown = json.loads(dstrl(folder, "eval", str(run), "--episodes=2", "--json", "--trust").stdout)
    assert shown["return"]["mean"] == 25.0


def test_runs_of_a_sweep_in_processes_of_their_own(folder: Path) -> None:
    dstrl(folder, "sweep", *SMALL, "--seeds=0,1", "--jobs=2", "--metric=final")
    runs = sorted((folder / "results/Robot-v0/td3-sst/s0.5").iterdir())
    assert [run.name for run in runs] == ["seed0", "seed1"]
    assert [returns(run) for run in runs] == [{10.0}, {10.0}]
