"""Adam's bias correction of connections that were grown late, worked by hand, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from network_samples import Data, build, dst, masks_of, ours, rlx2, run, step
from update_samples import finish_update

from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.adam import BETA1, BETA2
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork

ENGINES = [MaskedNetwork, SparseNetwork]
Engine = type[MaskedNetwork] | type[SparseNetwork]
RATE = 1e-2


def by_connection(config: RunConfig) -> RunConfig:
    return config.model_copy(update={"grown_bias_correction": "connection"})


def network(engine: Engine, config: RunConfig) -> MaskedNetwork | SparseNetwork:
    return engine(NetworkPlan("critic", (2, 1), 1, [config], "cpu"))


def after_steps(found: MaskedNetwork | SparseNetwork, steps: int) -> None:
    """Put a network's optimizer where a long training leaves it: so many steps were taken."""
    if isinstance(found, MaskedNetwork):
        powers = torch.tensor([BETA1, BETA2], dtype=torch.float64) ** steps
        found.adam.powers.copy_(powers.view(2, 1, 1, 1).expand_as(found.adam.powers))
    else:
        found.step_count[0] = steps
        if found.own_steps is not None:
            found.own_steps.fill(steps)


def steps_of_a_grown_weight(engine: Engine, config: RunConfig, count: int) -> list[float]:
    """Sizes, in learning rates, of its first steps with a gradient of 3 when grown at 10,000."""
    found = network(engine, config)
    first = torch.tensor([[[[True], [False]]]])
    found.set_masks([0], [first])
    after_steps(found, 10_000)
    found.set_masks([0], [~first])  # the other connection is dropped, this one is grown
    positions = [0.0]
    for _ in range(count):
        found.forward(torch.ones(1, 1, 2))
        found.backward(torch.full((1, 1, 1, 1), 3.0))
        finish_update(found)
        positions.append(found.layers(0)[0][0][0, 1, 0].item())
    return [(before - after) / RATE for before, after in pairwise(positions)]


@pytest.mark.parametrize("engine", ENGINES)
def test_grown_weights_take_big_steps_unless_each_connection_is_counted(engine: Engine) -> None:
    config = run(0, 0.5, topology={"schedule": "constant"})
    # m = 1 - .9^n and v = 1 - .999^n of a steady gradient, which nothing corrects at t = 10,000:
    # .1 / sqrt(.001) = 3.162; .19 / sqrt(.001999) = 4.250; .271 / sqrt(.002997) = 4.950
    uncorrected = steps_of_a_grown_weight(engine, config, 3)
    assert uncorrected == pytest.approx([3.162, 4.250, 4.950], rel=1e-3)
    corrected = steps_of_a_grown_weight(engine, by_connection(config), 3)
    assert corrected == pytest.approx([1.0, 1.0, 1.0], rel=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_connections_that_stay_keep_their_count(engine: Engine) -> None:
    config = by_connection(run(0, 0.5, topology={"schedule": "constant"}))
    found = network(engine, config)
    first = torch.tensor([[[[True], [False]]]])
    found.set_masks([0], [first])
    after_steps(found, 100)
    found.set_masks([0], [torch.ones_like(first)])
    found.forward(torch.ones(1, 1, 2))
    start = found.layers(0)[0][0][0, 0, 0].item()
    found.backward(torch.full((1, 1, 1, 1), 3.0))
    finish_update(found)
    moved = (start - found.layers(0)[0][0][0, 0, 0].item()) / RATE
    # its moments are zero here: .1 / (1 - .9^101) / sqrt(.001 / (1 - .999^101)) = .9803
    expected = 0.1 / (1 - 0.9**101) / (0.001 / (1 - 0.999**101)) ** 0.5
    assert moved == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("make", [dst, rlx2, ours])
def test_both_engines_agree_while_connections_come_and_go(make: Callable[..., Any]) -> None:
    config = by_connection(make(0))
    masked = build(config)
    sparse = SparseNetwork(masked.plan)
    data, same = Data(), Data()
    start = masks_of(masked)
    for _ in range(30):
        step(masked, data)
        step(sparse, same)  # type: ignore[arg-type]
        for theirs, ours_ in zip(masked.layers(0), sparse.layers(0), strict=True):
            assert torch.equal(theirs[2], ours_[2])
            torch.testing.assert_close(ours_[0], theirs[0], rtol=1e-3, atol=2e-4)
    assert not all(map(torch.equal, start, masks_of(masked)))


@pytest.mark.parametrize("engine", ENGINES)
def test_without_growth_both_corrections_are_the_same_numbers(engine: Engine) -> None:
    plain, counted = (
        engine(NetworkPlan("critic", (5, 8, 7, 2), 2, [config], "cpu"))
        for config in (run(0), by_connection(run(0)))
    )
    for found in (plain, counted):
        data = Data()
        for _ in range(20):
            step(found, data)  # type: ignore[arg-type]
    for one, other in zip(plain.layers(0), counted.layers(0), strict=True):
        assert all(map(torch.equal, one, other))


def test_members_that_count_leave_the_others_as_they_are() -> None:
    together, data = build(dst(0), by_connection(dst(1)), rlx2(2)), Data(3)
    for _ in range(15):
        step(together, data)
    for member, config in enumerate((dst(0), by_connection(dst(1)), rlx2(2))):
        alone, same = build(config), Data()
        for _ in range(15):
            step(alone, same)
        torch.testing.assert_close(together.params.flat[member], alone.params.flat[0])
    differs, same = build(dst(1)), Data()
    for _ in range(15):
        step(differs, same)
    assert not torch.allclose(together.params.flat[1], differs.params.flat[0])


def test_kept_moments_keep_their_correction() -> None:
    config = by_connection(rlx2(0, moments="keep"))
    assert not config.corrects_by_connection
    assert build(config).adam.powers.shape == (2, 1, 1, 1)


def test_the_correction_is_one_long_before_the_steps_are_counted_no_further() -> None:
    found = network(SparseNetwork, by_connection(run(0, 0.5, topology={"schedule": "constant"})))
    assert isinstance(found, SparseNetwork)
    assert found.corrections[:, -1].tolist() == [np.float32(RATE), 1.0]
    assert found.corrections[:, 1].tolist() == pytest.approx([RATE / 0.1, 0.001**-0.5])
