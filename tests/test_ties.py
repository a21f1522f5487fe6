"""Equal scores are decided by each member's own stream, not by position, on both engines alike."""

from __future__ import annotations

import pytest
import torch
from network_samples import Data, build, dst, masks_of, ours, rlx2, run, step
from torch import Tensor
from update_samples import finish_update

from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork

INPUTS, UNITS, VARYING = 40, 8, 2
RIGL = {"drop": "magnitude", "grow": "gradient", "schedule": "constant", "drop_fraction": 0.5}


def rigl(seed: int = 0) -> RunConfig:
    return run(seed, 0.9, topology=RIGL | {"update_interval": 2, "regrow_dropped": False})


def network(engine: type[Network], config: RunConfig) -> Network:
    return engine(NetworkPlan("critic", (INPUTS, UNITS, 1), 1, [config], "cpu"))


def train_on_constant_inputs(found: Network, updates: int) -> None:
    """Updates on inputs of which all but the first two are zero in every row."""
    g = torch.Generator().manual_seed(5)
    for _ in range(updates):
        x = torch.zeros(1, 6, INPUTS)
        x[..., :VARYING] = torch.randn(1, 6, VARYING, generator=g)
        found.backward(2 * (found.forward(x) - 1))
        finish_update(found)


def first_mask(found: Network) -> Tensor:
    return found.layers(0)[0][2][0]  # [in, out]


def test_rigl_spreads_over_inputs_whose_gradients_are_equal() -> None:
    """Zero gradients tie: by position the first of the constant inputs would get them all."""
    found = network(MaskedNetwork, rigl())
    start = first_mask(found).clone()
    train_on_constant_inputs(found, 40)
    mask = first_mask(found)
    assert not torch.equal(mask, start)
    constant = mask[VARYING:]
    rows = constant.any(1)
    assert rows[: len(rows) // 2].any()
    assert rows[len(rows) // 2 :].any()
    assert constant.sum(1).max() < UNITS  # no input is connected to every unit
    before = mask.clone()
    train_on_constant_inputs(found, 2)
    assert not torch.equal(first_mask(found), before)  # and it goes on moving


def test_growth_among_equal_gradients_is_uniform() -> None:
    grown = torch.zeros(INPUTS, UNITS)
    for seed in range(200):
        found = network(MaskedNetwork, rigl(seed))
        start = first_mask(found).clone()
        x = torch.zeros(1, 6, INPUTS)  # every gradient of the first layer is zero
        for _ in range(2):
            found.backward(2 * (found.forward(x) - 1))
            finish_update(found)
        grown += first_mask(found) & ~start
    # 16 of 288 free positions are grown, each of the 320 in 5 % of the runs
    assert grown.sum() == 200 * 16
    assert (grown / 200).mean(1) == pytest.approx(0.05, abs=0.025)  # sd .0054


def test_ties_are_decided_alike_on_both_engines() -> None:
    for config in (rigl(), rigl(1)):
        masked, sparse = network(MaskedNetwork, config), network(SparseNetwork, config)
        for _ in range(6):
            for found in (masked, sparse):
                x = torch.zeros(1, 6, INPUTS)
                found.backward(2 * (found.forward(x) - 1))
                finish_update(found)
            assert torch.equal(first_mask(masked), first_mask(sparse))


def test_members_decide_ties_as_if_alone_and_frozen_ones_keep_their_masks() -> None:
    configs = [rlx2(0, 0.5), dst(1), ours(2), rlx2(3, 0.5)]
    together, data = build(*configs), Data(4)
    for _ in range(12):
        step(together, data, torch.tensor([True, True, True, False]))
    for member, config in enumerate(configs[:3]):
        alone, same = build(config), Data()
        for _ in range(12):
            step(alone, same)
        for all_, mine in zip(masks_of(together), masks_of(alone), strict=True):
            assert torch.equal(all_[member], mine[0])
    start = build(configs[3])
    for all_, mine in zip(masks_of(together), masks_of(start), strict=True):
        assert torch.equal(all_[3], mine[0])


def test_dropping_and_growing_decide_by_numbers_of_their_own() -> None:
    found = network(MaskedNetwork, rigl())
    found.begin_update()
    drop, grow = (found.tie_numbers([0], purpose, 0) for purpose in ("drop", "grow"))
    assert drop.shape == grow.shape == (1, 1, INPUTS, UNITS)
    assert not torch.equal(drop, grow)
    assert torch.equal(drop, found.tie_numbers([0], "drop", 0))
    found.begin_update()
    assert not torch.equal(drop, found.tie_numbers([0], "drop", 0))
