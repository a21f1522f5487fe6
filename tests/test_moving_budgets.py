"""Budgets that move: the counts by hand, when they change, and both engines through it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from budget_samples import RULES, UPDATES, moving
from network_samples import (
    ROWS,
    SIZES,
    Data,
    build,
    copies,
    dst,
    masks_of,
    moments,
    step,
    take_events,
)
from rule_samples import one
from torch import Tensor

from dstrl_cli.config.effects import topology_changes
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.config.windows import Windows
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.registry import BUDGETS, load
from dstrl_cli.topology import masks
from dstrl_cli.topology.budgets import layer_budgets, layer_moves
from dstrl_cli.topology.moves import LayerMove, mean_moved
from dstrl_cli.topology.rule import Rule

FULL = [5 * 8, 8 * 7, 7 * 2]


def plan(*runs: RunConfig) -> NetworkPlan:
    return NetworkPlan("critic", SIZES, 2, runs, "cpu")


def alone(engine: type[Network], run: RunConfig) -> Network:
    return engine(plan(run))


def follow(network: Network, updates: int = UPDATES) -> list[list[list[int]]]:
    """Return the active connections [P][L] of the first head after every update."""
    data, found = Data(network.plan.members), []
    for _ in range(updates):
        step(network, data)  # type: ignore[arg-type]
        found.append(network.active()[:, 0].tolist())
    return found


# --- counts by hand -------------------------------------------------------------------------------


def test_a_cubic_schedule_by_hand() -> None:
    # 256x256 at .9: sparsities 0, .5203, .7875, .8859, .9 at a quarter of the way each
    move = LayerMove(65_536, (1.0, 1 - 0.9), (65_536, 6_554))
    cubic = load(BUDGETS, "cubic")(TopologyConfig())
    found = [move.target(cubic.moved(progress)) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert found == [65_536, 31_437, 13_926, 7_475, 6_554]


def test_the_last_budget_is_that_of_a_network_that_was_sparse_from_the_start() -> None:
    config = moving(0, 0.876).critic
    (move,) = layer_moves(config, [(10, 10)])
    # 87.6 of 100 go: 87, as everywhere, and not the 88 of rounding
    assert move.budgets == (100, 13)
    assert [move.target(moved) for moved in (0.0, 0.9999, 1.0)] == [100, 13, 13]
    assert layer_budgets(config, [(10, 10)]) == [13]


def test_budgets_fall_and_rise_monotonously() -> None:
    falling = LayerMove(77, (1.0, 0.131), (77, 11))
    rising = LayerMove(77, (0.131, 0.9), (11, 70))
    for move, sign in ((falling, -1), (rising, 1)):
        way = [move.target(share / 200) for share in range(201)]
        assert (way[0], way[-1]) == move.budgets
        assert all(sign * (later - sooner) >= 0 for sooner, later in pairwise(way))


DROP = [[0.1, 0.4, 0.0], [0.2, 0.3, 0.0]]
GROW = [[0.0, 0.0, 0.9], [0.5, 0.0, 0.7]]
ACTIVE = [[True, True, False], [True, True, False]]


@pytest.mark.parametrize(
    ("active", "target", "swap", "regrow", "expected", "dropped", "grown"),
    [
        # .1 and .2 go, nothing comes
        (ACTIVE, 2, 0, True, [[0, 1, 0], [0, 1, 0]], 2, 0),
        # .1 and .2 go for the target, .3 is swapped for .9
        (ACTIVE, 2, 1, True, [[0, 1, 1], [0, 0, 0]], 3, 1),
        # .7 and .9 come
        (ACTIVE, 6, 0, True, [[1, 1, 1], [1, 1, 1]], 0, 2),
        # .9 comes for the target, .1 is swapped for .7
        (ACTIVE, 5, 1, True, [[0, 1, 1], [1, 1, 1]], 1, 2),
        # nothing is left to swap once the layer is full
        (ACTIVE, 6, 3, False, [[1, 1, 1], [1, 1, 1]], 0, 2),
        # a full layer takes part where it is to have fewer: .0, .0 and .1 go, .2 for the best
        ([[True] * 3] * 2, 3, 1, True, [[0, 1, 1], [0, 1, 0]], 3, 0),
        # and stays as it is where not
        ([[True] * 3] * 2, 6, 2, True, [[1, 1, 1], [1, 1, 1]], 0, 0),
        # more swaps than what is left: all that is left
        (ACTIVE, 1, 9, True, [[0, 0, 1], [0, 0, 0]], 4, 1),
    ],
)
def test_rewiring_towards_a_target_by_hand(
    active: list[list[bool]],
    target: int,
    swap: int,
    regrow: bool,
    expected: list[list[int]],
    dropped: int,
    grown: int,
) -> None:
    found = masks.rewire(
        one(active),  # type: ignore[arg-type]
        one(DROP),
        one(GROW),
        torch.tensor([[swap]]),
        regrow_dropped=regrow,
        target=torch.tensor([[target]]),
    )
    assert found.mask[0, 0].int().tolist() == expected
    assert (found.dropped.item(), found.grown.item()) == (dropped, grown)
    assert found.mask.sum() == target


# --- when -----------------------------------------------------------------------------------------


def test_updates_are_counted_from_the_start_and_the_last_one_arrives() -> None:
    network = build(moving())  # 20 % and 70 % of 40 updates: 8 and 28, every third
    data, changed = Data(), []
    for update in range(1, UPDATES + 1):
        step(network, data)
        if network.take_changes():
            changed.append(update)
    assert changed == [8, 11, 14, 17, 20, 23, 26, 28]
    assert network.active()[0, 0].tolist() == layer_budgets(moving().critic, network.plan.shapes)
    assert topology_changes(moving(), "critic").count == len(changed)


def test_swaps_begin_after_the_last_pruning_where_they_are_asked_to() -> None:
    network = build(moving(kind="gmp_then_swaps"))
    step_events = []
    data = Data()
    for update in range(1, UPDATES + 1):
        step(network, data)
        step_events += [(update, event) for event in take_events(network)]
    swapping = [update for update, event in step_events if event.fraction > 0]
    assert swapping == [29, 32, 35, 38]
    for update, event in step_events:
        assert (sum(map(sum, event.grown)) > 0) <= (update in swapping)
    # a cosine of its own: .3 / 2 (1 + cos(pi / 12)) of the way from 28 to 40
    assert step_events[-4][1].fraction == pytest.approx(0.29489, abs=1e-5)


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("interval", [1, 3, 7, 50])
@pytest.mark.parametrize("window", [(0.0, 1.0), (0.2, 0.7), (0.31, 0.31)])
def test_changes_are_foretold(kind: str, interval: int, window: tuple[float, float]) -> None:
    start, end = window
    config = moving(kind=kind, update_interval=interval, budget_start=start, budget_end=end)
    rule = build(config).groups[0].rule
    happened = 0
    for update in range(1, UPDATES + 1):
        if rule.due(update):
            happened += 1
            rule.arrived = rule.arrives(update) or rule.arrived
    assert rule.arrived
    assert topology_changes(config, "critic").count == happened


@pytest.mark.parametrize("interval", [1, 2, 7, 60])
@pytest.mark.parametrize("offset", [0, 1, 15])
@pytest.mark.parametrize("window", [(0.0, 1.0), (0.25, 1.0), (0.5, 0.8)])
@pytest.mark.parametrize("end", [43, 30, 0])
def test_the_last_drop_is_foretold(
    interval: int, offset: int, window: tuple[float, float], end: int
) -> None:
    config = TopologyConfig(
        schedule="constant",
        final_drop=True,
        update_interval=interval,
        update_offset=offset,
        swap_start=window[0],
        swap_end=window[1],
    )
    rule = Rule(config, end, total=43)
    happened = 0
    for update in range(1, 44):
        if rule.due(update):
            happened += 1
            rule.finished = rule.progress(update) >= 1
    assert rule.windows.drops_at_last() == rule.finished
    assert rule.windows.count() + rule.finished == happened


def test_a_last_drop_that_the_run_does_not_reach_is_not_counted() -> None:
    # a quarter of 43 updates is done at 11: swaps at 12, 14, ..., 42; the next one is due at 44
    config = TopologyConfig(
        schedule="constant", final_drop=True, update_interval=2, swap_start=0.25
    )
    windows = Windows(config, total=43, end=43)
    assert (windows.count(), windows.drops_at_last()) == (16, False)


def test_actor_and_critics_move_at_the_same_share_of_their_own_updates() -> None:
    rule = TopologyConfig(budget="cubic", budget_start=0.2, budget_end=0.8)
    assert Windows(rule, 1000, 1000).move == (200, 800)
    assert Windows(rule, 500, 500).move == (100, 400)
    assert Windows(rule, 7, 7).move == (2, 6)  # the first update by which the share is done


def test_the_mean_of_the_way() -> None:
    def mean(**keys: Any) -> float:
        return mean_moved(TopologyConfig(**keys))

    # the integral of 1 - (1 - p)^3 is 3/4: .6 * 3/4 + .2
    assert mean(budget="cubic", budget_start=0.2, budget_end=0.8) == pytest.approx(0.65, abs=1e-3)
    assert mean(budget="at_once", budget_start=0.2) == pytest.approx(0.8, abs=1e-3)
    assert mean(budget="linear") == pytest.approx(0.5, abs=1e-3)


# --- networks through it --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RULES)
def test_counts_of_mixed_members_are_exact_after_every_update(kind: str) -> None:
    runs = [
        moving(0, 0.7, kind),
        moving(1, 0.5, kind),  # shares the rule, but not the budget
        dst(2, 0.5),
        moving(3, 0.7, kind, budget_start=0.4, budget_end=1.0),
    ]
    runs[2] = runs[2].model_copy(update={"steps": UPDATES, "learning_starts": 0})
    network = build(*runs)
    assert len(network.groups) == 3
    ways = [layer_moves(run.critic, network.plan.shapes) for run in runs]
    counts = follow(network)
    for member, way in enumerate(ways):
        assert counts[-1][member] == [move.budgets[1] for move in way]
        for layer, move in enumerate(way):
            of_layer = [move.budgets[0], *(each[member][layer] for each in counts)]
            sign = 1 if move.rises else -1
            assert all(sign * (after - before) >= 0 for before, after in pairwise(of_layer))
    alone_counts = follow(build(runs[1]))
    assert [each[0] for each in alone_counts] == [each[1] for each in counts]


def test_gradual_pruning_never_returns_a_connection_and_leaves_zeros() -> None:
    network, data = build(moving()), Data()
    before = masks_of(network)
    assert all(mask.all() for mask in before)
    for _ in range(UPDATES):
        step(network, data)
        now = masks_of(network)
        for layer, mask in enumerate(now):
            assert not (mask & ~before[layer]).any()
            off = ~mask
            assert network.params.weights[layer][off].abs().sum() == 0
            assert network.target_params.weights[layer].isfinite().all()
            for moment in moments(network):
                assert moment[layer][off].abs().sum() == 0
        before = now


def test_a_member_that_stands_still_keeps_its_budget() -> None:
    network, data = build(moving(0), moving(1)), Data(2)
    alive = torch.tensor([True, False])
    for _ in range(UPDATES):
        step(network, data, alive)
    assert network.active()[1, 0].tolist() == FULL
    assert network.active()[0, 0].tolist() == layer_budgets(moving().critic, network.plan.shapes)


@pytest.mark.parametrize("masking", ["online_mask", "magnitude_trim"])
@pytest.mark.parametrize("kind", RULES)
def test_both_engines_agree_through_shrinking_and_growing(kind: str, masking: str) -> None:
    run = moving(0, 0.6, kind, keys={"target_masking": masking})
    masked, sparse = alone(MaskedNetwork, run), alone(SparseNetwork, run)
    ours, theirs = Data(), Data()
    for _ in range(UPDATES):
        for network, data in ((masked, ours), (sparse, theirs)):
            step(network, data)  # type: ignore[arg-type]
            network.update_target(0.1)
        assert torch.equal(masked.active(), sparse.active())
        for (a, b, mask), (c, d, other) in zip(masked.layers(0), sparse.layers(0), strict=True):
            assert torch.equal(mask, other)
            torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(b, d, rtol=1e-4, atol=1e-5)
        x = torch.linspace(-1, 1, ROWS * SIZES[0]).view(1, ROWS, SIZES[0])
        torch.testing.assert_close(masked.target(x), sparse.target(x), rtol=1e-3, atol=1e-4)


def target_counts(network: MaskedNetwork) -> list[Tensor]:
    return [(weight[0] != 0).sum((-2, -1)) for weight in network.target_params.weights]


def test_trimmed_targets_follow_the_budget() -> None:
    network, data = build(moving(keys={"target_masking": "magnitude_trim"})), Data()
    for _ in range(UPDATES):
        step(network, data)
        network.update_target(0.1)
        for layer, count in enumerate(target_counts(network)):
            assert torch.equal(count, network.active()[0, :, layer])


@pytest.mark.parametrize("engine", [MaskedNetwork, SparseNetwork])
@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("stop", [5, 15, 28, 33])
def test_a_network_goes_on_through_a_move(engine: type[Network], kind: str, stop: int) -> None:
    run = moving(0, 0.6, kind, keys={"target_masking": "magnitude_trim"})
    whole, data = alone(engine, run), Data()
    first, same = alone(engine, run), Data()
    for network, given, updates in ((whole, data, UPDATES), (first, same, stop)):
        for _ in range(updates):
            step(network, given)  # type: ignore[arg-type]
            network.update_target(0.1)
    second = alone(engine, run)
    second.set_state([first.state(0)])
    for _ in range(UPDATES - stop):
        step(second, same)  # type: ignore[arg-type]
        second.update_target(0.1)
    for ours, theirs in zip(whole.layers(0), second.layers(0), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    x = torch.ones(1, ROWS, SIZES[0])
    assert torch.equal(whole.target(x), second.target(x))


def test_growth_drops_its_share_of_what_it_grows() -> None:
    network, data = build(moving(kind="growth", sparsity=0.2, update_interval=1)), Data()
    grown = 0
    for _ in range(27):
        before = copies([mask.float() for mask in masks_of(network)])
        step(network, data)
        for event in take_events(network):
            for layer in range(3):
                net = event.active[0][layer] - int(before[layer][0, 0].sum())
                # those that are dropped and grown again at once are counted as neither
                assert event.grown[0][layer] - event.dropped[0][layer] == net
                assert event.dropped[0][layer] <= int(net * 2 / 3 + 1e-6)
                grown += event.grown[0][layer]
    assert grown > 0


def test_a_network_that_starts_dense_is_masked_from_the_start_where_updates_are_replayed() -> None:
    network = build(moving())
    assert network.sparse
    assert network.masks_targets
    assert not build(moving(sparsity=0.0, kind="at_once", keys={"dense": True})).sparse


def test_members_of_one_rule_are_numbered_as_in_the_population() -> None:
    runs: Sequence[RunConfig] = [moving(0, 0.7), dst(1, 0.5), moving(2, 0.3)]
    network = build(*runs)
    shared = next(group for group in network.groups if group.members == [0, 2])
    assert [member[0].budgets[1] for member in shared.rule.moves] == [12, 28]  # of 40
