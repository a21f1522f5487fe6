"""When a rule changes the topology, who shares one, and what its scores choose, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from rule_samples import one, rule, view

from dstrl_cli.config.parse import from_dict
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.nets.groups import rule_groups
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.topology.rule import Rule


def due(found: Rule, upto: int) -> list[int]:
    return [t for t in range(1, upto + 1) if found.due(t)]


def plan(role: str, topology: dict[str, Any], **keys: Any) -> NetworkPlan:
    run = from_dict(
        {
            "algo": "td3",
            "method": "test",
            "env": "Any-v0",
            role: {"sparsity": 0.5, "topology": {"schedule": "constant"} | topology},
        }
        | keys
    )
    return NetworkPlan(role, (4, 4, 1), 1, [run], "cpu")


def only_rule(found: NetworkPlan) -> Rule:
    (group,) = rule_groups(found)
    return group.rule


# --- schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.4, 0.4, 0.4]), ("cosine", [0.4, 0.2, 0.0]), ("static", [0.0, 0.0, 0.0])],
)
def test_fraction_at_the_start_half_way_and_at_the_end(
    schedule: str, expected: list[float]
) -> None:
    found = rule(1000, schedule=schedule, drop_fraction=0.4)
    assert [found.fraction(t) for t in (0, 500, 1000)] == pytest.approx(expected)
    assert found.fraction(2000) == pytest.approx(expected[-1])


def test_cosine_at_a_third() -> None:
    # zeta / 2 (1 + cos(pi / 3)) = 3 zeta / 4
    assert rule(900, schedule="cosine", drop_fraction=0.5).fraction(300) == pytest.approx(0.375)


def test_the_cosine_goes_by_episodes_where_they_are_further() -> None:
    # T_end at three quarters of the run: half of the episodes are two thirds of the way
    found = Rule(TopologyConfig(schedule="cosine", drop_fraction=0.5), 900, end_share=0.75)
    found.episode_share = 0.5
    assert found.fraction(300) == pytest.approx(0.5 / 2 * (1 - 0.5))  # cos(2 pi / 3) = -1/2
    assert found.fraction(750) == pytest.approx(0.25 * (1 - math.sqrt(3) / 2))  # cos(5 pi / 6)
    found.episode_share = 0.75
    assert found.fraction(300) == pytest.approx(0)


def test_nothing_is_due_once_the_episodes_have_reached_t_end() -> None:
    found = Rule(TopologyConfig(schedule="constant", update_interval=10), 900, end_share=0.75)
    found.episode_share = 0.74
    assert found.due(300)
    found.episode_share = 0.75
    assert not found.due(300)


def test_due_at_every_interval_before_the_end() -> None:
    assert due(rule(40, update_interval=10), 100) == [10, 20, 30]  # counter < T_end
    assert due(rule(41, update_interval=10), 100) == [10, 20, 30, 40]


def test_offset_of_sok_code() -> None:
    assert due(rule(update_interval=1000, update_offset=2), 3500) == [2, 1002, 2002, 3002]
    assert due(rule(update_interval=500, update_offset=1), 1800) == [1, 501, 1001, 1501]


def test_the_offset_is_the_first_change() -> None:
    assert due(rule(update_interval=300, update_offset=1000), 2000) == [1000, 1300, 1600, 1900]
    assert due(rule(update_interval=300, update_offset=300), 1000) == [300, 600, 900]
    assert due(rule(update_interval=300), 1000) == [300, 600, 900]
    assert due(rule(1000, update_interval=300, update_offset=1000), 2000) == []  # T_end is before
    last = rule(1000, update_interval=300, update_offset=1100, final_drop=True)
    assert due(last, 1200) == [1100]


@pytest.mark.parametrize(
    ("role", "end", "count"), [("critic", 2_975_000, 297), ("actor", 1_487_500, 148)]
)
def test_topology_updates_of_rlx2_in_three_million_steps(role: str, end: int, count: int) -> None:
    topology = {"schedule": "cosine", "update_interval": 10_000}
    found = only_rule(plan(role, topology, steps=3_000_000))
    assert found.end == end
    assert [t for t in range(10_000, end + 1, 10_000) if found.due(t)] == [
        10_000 * (i + 1) for i in range(count)
    ]
    assert not any(found.due(t) for t in (1, 9_999, 10_001, 10_000 * (count + 1)))


@pytest.mark.parametrize(
    ("role", "interval", "offset", "end", "last"),
    [("critic", 1000, 2, 925_000, 925_002), ("actor", 500, 1, 462_500, 462_501)],
)
def test_the_last_change_of_sok_code(
    role: str, interval: int, offset: int, end: int, last: int
) -> None:
    topology = {
        "update_interval": interval,
        "update_offset": offset,
        "stop_before_end": 50_000,
        "final_drop": True,
        "drop_fraction": 0.5,
        "regrow_dropped": False,
    }
    found = only_rule(plan(role, topology, steps=1_000_000))
    assert found.end == end
    network = view([one([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])])
    for update in (offset, last - interval):  # drops two, grows two
        assert found.due(update)
        (layer,) = found.change(network, update)
        assert (layer.dropped.item(), layer.grown.item(), layer.mask.sum().item()) == (2, 2, 4)
    assert found.due(last)
    (layer,) = found.change(network, last)
    assert (layer.dropped.item(), layer.grown.item(), layer.mask.sum().item()) == (2, 0, 2)
    assert layer.mask[0, 0].int().tolist() == [[0, 0], [1, 1], [0, 0]]
    assert not found.due(last + interval)


def test_dense_static_and_tiny_networks_have_no_rule() -> None:
    assert rule_groups(plan("actor", {"schedule": "static"})) == []
    dense = {"dense": True, "topology": {"schedule": "constant"}}
    tiny = {"match_parameters": True, "sparsity": 0.5, "topology": {"schedule": "constant"}}
    assert rule_groups(plan("actor", {}, actor=dense)) == []
    assert rule_groups(plan("actor", {}, actor=tiny)) == []


def test_members_share_a_rule_only_with_the_same_keys_end_and_order() -> None:
    single = plan("critic", {}).configs[0]
    others = [
        single.model_copy(update={"seed": 1}),
        single.model_copy(update={"steps": 500_000}),
        single.model_copy(update={"rewire": "instead_of_step"}),
    ]
    groups = rule_groups(NetworkPlan("critic", (4, 4, 1), 1, [single, *others], "cpu"))
    assert [group.members for group in groups] == [[0, 1], [2], [3]]
    assert [group.instead_of_step for group in groups] == [False, False, True]
    assert groups[0].rule.named()[0][0] == "critic.topology.drop"


# --- drop by magnitude, grow by gradient, grow at random ------------------------------------------


def test_magnitude_and_gradient_by_hand() -> None:
    # RLX Alg. 1: half of 4 active go, |w| = .1 and .2; the free ones have |g| 5 4 (and the dropped
    # 3 and 9): with regrowth come 9 and 5, without 5 and 4
    weight = one([[0.1, -0.4], [0.5, -0.2], [0.0, 0.0]])
    gradient = one([[3.0, 8.0], [8.0, -9.0], [-5.0, 4.0]])
    keys: dict[str, Any] = {"drop": "magnitude", "grow": "gradient", "drop_fraction": 0.5}
    again = rule(**keys, regrow_dropped=True)
    assert again.needs_gradient
    (layer,) = again.change(view([weight], gradients=[gradient]), 1)
    assert layer.mask[0, 0].int().tolist() == [[0, 1], [1, 1], [1, 0]]
    anew = rule(**keys, regrow_dropped=False)
    (layer,) = anew.change(view([weight], gradients=[gradient]), 1)
    assert layer.mask[0, 0].int().tolist() == [[0, 1], [1, 0], [1, 1]]


def test_counts_are_the_whole_part_of_the_fraction_of_each_head() -> None:
    mask = torch.zeros(2, 2, 5, 4, dtype=torch.bool)
    for (member, head), active in {(0, 0): 19, (0, 1): 10, (1, 0): 9, (1, 1): 1}.items():
        mask[member, head].view(-1)[:active] = True
    weight = torch.arange(1.0, 81).view(2, 2, 5, 4) * mask
    (layer,) = rule(drop_fraction=0.1).change(view([weight], [mask], seeds=(0, 1)), 1)
    assert layer.dropped.tolist() == [[1, 1], [0, 0]]
    assert layer.mask.sum((-2, -1)).tolist() == [[19, 10], [9, 1]]


@pytest.mark.parametrize(
    ("fraction", "active", "dropped"), [(0.29, 100, 29), (0.35, 180, 63), (0.57, 100, 57)]
)
@pytest.mark.parametrize("keys", [{}, {"drop": "sign"}, {"drop": "sign", "sign_split": "half"}])
def test_products_that_are_whole_numbers_are_dropped_whole(
    fraction: float, active: int, dropped: int, keys: dict[str, str]
) -> None:
    weight = torch.zeros(1, 1, 20, 20)  # 0.29 * 100 in floating point is 28.999999999999996
    signs = torch.tensor([-1.0, 1.0]).repeat(active // 2)
    weight.view(-1)[:active] = torch.arange(1.0, active + 1) * signs
    found = rule(drop_fraction=fraction, regrow_dropped=False, **keys)
    (layer,) = found.change(view([weight]), 1)
    assert layer.dropped.item() == dropped


def test_random_growth_comes_from_each_members_own_stream() -> None:
    weight = torch.zeros(1, 1, 40, 40)
    weight[..., :4] = 1.0
    masks = {}
    for seeds in ((0, 1), (1,), (0,), (0, 0)):
        weights = [weight.expand(len(seeds), -1, -1, -1).contiguous()]
        (layer,) = rule(drop_fraction=0.5).change(view(weights, seeds=seeds), 1)
        masks[seeds] = layer.mask
    assert torch.equal(masks[0, 1][0], masks[(0,)][0])
    assert torch.equal(masks[0, 1][1], masks[(1,)][0])
    assert not torch.equal(masks[0, 1][0], masks[0, 1][1])
    assert torch.equal(masks[0, 0][0], masks[0, 0][1])


def test_random_growth_is_uniform_over_the_positions_not_kept() -> None:
    # 10 of 100 positions are active and all of them go: the 10 grown are any of the 100
    weight = torch.zeros(400, 1, 10, 10)
    weight[..., 0, :] = 1.0
    found = rule(drop_fraction=1.0, regrow_dropped=True)
    (layer,) = found.change(view([weight], seeds=range(400)), 1)
    assert layer.mask.double().mean((0, 1)) == pytest.approx(0.1, abs=0.06)  # sd .015
    (layer,) = rule(drop_fraction=1.0, regrow_dropped=False).change(
        view([weight], seeds=range(400)), 1
    )
    assert not layer.mask[..., 0, :].any()
