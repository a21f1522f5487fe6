"""The compiled updates against the algorithms: the same run, taken in both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compiled_samples import assert_same, config, learner, store

UPDATES = 100

TD3_KEYS: dict[str, dict[str, Any]] = {
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
    "no noise": {"target_noise": 0.0},
    "one hidden layer": {"hidden_sizes": [33]},
    "three hidden layers": {"hidden_sizes": [17, 40, 9]},
    "correction by connection": {"grown_bias_correction": "connection"},
}


@torch.no_grad()
@pytest.mark.parametrize("name", TD3_KEYS)
def test_a_hundred_updates_of_td3_are_those_of_the_algorithm(name: str) -> None:
    run = config("td3", **TD3_KEYS[name])
    compiled, plain = learner(run, True), learner(run, False)
    for step in range(UPDATES):
        for each in (compiled, plain):
            store(each, 1000 + step)
            each.update()
    assert_same(compiled, plain)
