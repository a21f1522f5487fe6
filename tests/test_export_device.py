"""Exported C on an emulated Cortex-M4: the same actions, counted instructions and bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from device_samples import needs_device, run
from export_samples import random_layers, write_actor

from dstrl_cli.export import c_code
from dstrl_cli.export.network import dense_like, needed_part
from dstrl_cli.runs.policy import Policy

OF_THE_COMPILER = 64
"""Bytes of constants by which it fills gaps, or that it saves where bounds are alike."""

OF_THE_LIBRARY = 200
"""Bytes of stack that calls and `tanhf` may take beside the values between layers."""


@needs_device
@pytest.mark.parametrize("bounds", [1.0, 2.5])
def test_a_microcontroller_gives_the_policys_actions_at_the_cost_that_is_counted(
    tmp_path: Path, bounds: float
) -> None:
    layers = random_layers([17, 64, 64, 6], density=0.1, seed=0)
    changes = {"action_low": [-bounds] * 6, "action_high": [bounds] * 6}
    policy = Policy.load(write_actor(tmp_path / "policy", *layers, **changes))
    seen = np.random.default_rng(1).standard_normal((10, 17)).astype(np.float32)
    network = needed_part(policy)
    sparse, dense = (
        run(each, seen, tmp_path / str(number))
        for number, each in enumerate((network, dense_like(policy)))
    )
    np.testing.assert_allclose(sparse.actions, policy.act(seen), rtol=1e-4, atol=1e-5)
    cost = c_code.cost(network)
    assert abs(sparse.constants - cost.constant_bytes) <= OF_THE_COMPILER
    assert cost.ram_bytes <= sparse.stack <= cost.ram_bytes + OF_THE_LIBRARY
    assert cost.multiply_adds < sparse.instructions < dense.instructions / 3
