"""Policy files written by hand, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dstrl_cli.runs.policy import dump, network_tensors, policy_metadata

W0 = np.array([[1.0, -1.0], [2.0, 5.0]])  # [2 observations, 2 hidden]
B0 = np.array([0.5, 0.0])
M0 = np.array([[1, 1], [1, 0]])
W1 = np.array([[0.25], [1.0]])  # [2 hidden, 1 action]
B1 = np.array([-0.5])
M1 = np.ones((2, 1))


def actor() -> dict[str, np.ndarray]:
    """Return the actor with 2 observations, 2 hidden units and 1 action."""
    return network_tensors("actor", [W0, W1], [B0, B1], [M0, M1])


def metadata(**changes: Any) -> dict[str, str]:
    """Return what the file of `actor()` says about it, with changes."""
    values: dict[str, Any] = {
        "algo": "td3",
        "env": "dstrl/2DNav-v1",
        "task": 0,
        "observation_size": 2,
        "action_size": 1,
        "action_low": [-0.1],
        "action_high": [0.1],
        "hidden_sizes": [2],
        "step": 300,
    }
    return policy_metadata(**(values | changes))


def write_policy(path: Path, tensors: dict[str, np.ndarray] | None = None, **changes: Any) -> Path:
    """Write the file of a policy, `actor()` unless `tensors` are given; return its path."""
    path.write_bytes(dump(actor() if tensors is None else tensors, metadata(**changes)))
    return path
