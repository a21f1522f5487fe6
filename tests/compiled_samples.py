"""Pairs of learners that take the same updates: by the algorithm itself, and by compiled code."""

from __future__ import annotations

from typing import Any

import torch

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.envs.base import Step
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.training.learner import Learner

OBS, ACT = 5, 2


def config(algo: str = "td3", sparsity: float = 0.8, **keys: Any) -> RunConfig:
    base: dict[str, Any] = {
        "algo": algo,
        "method": "test",
        "env": "Any-v0",
        "batch_size": 70,
        "hidden_sizes": [24, 20],
        "steps": 300,
        "learning_starts": 0,
        "learning_rate": 1e-3,
        "policy_delay": 2 if algo == "td3" else 1,
        "actor": {"sparsity": sparsity},
        "critic": {"sparsity": sparsity},
    }
    return from_dict(base | keys)


def learner(run: RunConfig, compiled: bool, transitions: int = 230) -> Learner:
    """Return a learner with a filled buffer; its updates are compiled ones, or never are."""
    algorithm: Algorithm = load(ALGORITHMS, run.algo)([run], OBS, ACT, "cpu", "sparse")
    found = Learner(algorithm, CompiledReplay(1, 200, OBS, ACT, run.gamma), lambda f: f)
    assert found.compiled is not None
    if not compiled:
        found.compiled = None
    for step in range(transitions):
        store(found, step)
    return found


def store(to: Learner, step: int) -> None:
    """Store a transition that depends on the step alone; every 13th ends an episode."""
    drawn = torch.randn(1, 2 * OBS + ACT + 1, generator=torch.Generator().manual_seed(step))
    observation, after, action, reward = drawn.split((OBS, OBS, ACT, 1), dim=1)
    ended = torch.tensor([step % 13 == 12])
    fell = ended & (step % 2 == 0)
    to.store(
        observation, action.tanh(), Step(after, reward[:, 0], fell, ended & ~fell, after), action
    )


def assert_same(one: Learner, other: Learner, tolerance: float = 1e-3) -> None:
    """Networks, targets, moments, counters and metrics are equal up to rounding."""
    mine, theirs = one.algorithm.state(0), other.algorithm.state(0)
    assert mine["alive"] == theirs["alive"]
    compare(mine, theirs, tolerance, "")


def compare(mine: Any, theirs: Any, tolerance: float, name: str) -> None:
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), name
        for key, value in mine.items():
            compare(value, theirs[key], tolerance, f"{name}/{key}")
    elif isinstance(mine, int | str | bool) or mine is None:
        assert mine == theirs, name
    else:
        torch.testing.assert_close(
            torch.as_tensor(mine),
            torch.as_tensor(theirs),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text: f"{name}: {text}",
        )
