"""The compiled updates against the algorithms: the same run, taken in both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_samples import assert_same, config, learner, store

UPDATES = 100

KEYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dense": {"actor": {"dense": True}, "critic": {"dense": True}},
    "three steps": {"nstep": 3},
    "three steps later": {"nstep": 3, "nstep_delay": 40},
    "weight decay": {"weight_decay": 1e-2},
    "no delay": {"policy_delay": 1, "target_update_interval": 3},
    "delays that rarely meet": {"policy_delay": 3, "target_update_interval": 2},
    "hard targets": {"tau": 1.0, "target_update_interval": 10},
    "one row": {"batch_size": 1},
    "a whole tile": {"batch_size": 128},
    "one hidden layer": {"hidden_sizes": [33]},
    "three hidden layers": {"hidden_sizes": [17, 40, 9]},
    "correction by connection": {"grown_bias_correction": "connection"},
}
OWN_KEYS: dict[str, dict[str, dict[str, Any]]] = {
    "td3": {"no noise": {"target_noise": 0.0}},
    "sac": {
        "fixed temperature": {"temperature": "fixed", "alpha": 0.2},
        "clamped std": {"log_std_squash": "clamp", "log_std_bounds": [-1, 0.1], "nstep": 2},
        "another entropy": {"target_entropy": -5.0},
    },
}
CASES = [
    pytest.param(algo, keys, id=f"{algo} {name}")
    for algo, own in OWN_KEYS.items()
    for name, keys in (KEYS | own).items()
]


@torch.no_grad()
@pytest.mark.parametrize(("algo", "keys"), CASES)
def test_a_hundred_updates_are_those_of_the_algorithm(algo: str, keys: dict[str, Any]) -> None:
    run = config(algo, **keys)
    compiled, plain = learner(run, True), learner(run, False)
    for step in range(UPDATES):
        for each in (compiled, plain):
            store(each, 1000 + step)
            each.update()
    assert_same(compiled, plain)
