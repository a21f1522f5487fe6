"""Schedules and scores of the topology rules, with numbers worked out by hand from the papers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.config.models import TopologyConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.nets.groups import rule_groups
from dstrl_cli.nets.network import Plan
from dstrl_cli.topology.importance import (
    Importance,
    drop_score,
    grow_score,
    neuron_importance,
)
from dstrl_cli.topology.rule import NetworkView, Rule, rank
from dstrl_cli.topology.sign import fraction_shares, half_shares, official_shares

FOREVER = 10**9


def rule(end: int = FOREVER, **keys: Any) -> Rule:
    return Rule(TopologyConfig(**{"schedule": "constant", **keys}), end)


def one(matrix: list[list[float]]) -> Tensor:
    """A matrix [in, out] as one member with one head."""
    return torch.tensor(matrix)[None, None]


def view(
    weights: Sequence[Tensor],
    masks: Sequence[Tensor] | None = None,
    gradients: Sequence[Tensor] | None = None,
    td_error: float | None = None,
    batch_size: int = 1,
    seeds: Sequence[int] = (0,),
) -> NetworkView:
    """What a rule sees; connections are active where the weight is not zero, unless said."""

    def uniform(layer: int) -> Tensor:
        shape = weights[layer].shape[1:]
        drawn = [
            torch.rand(shape, generator=streams.generator(seed, "growth", layer)) for seed in seeds
        ]
        return torch.stack(drawn)

    return NetworkView(
        weights=weights,
        masks=masks or [weight != 0 for weight in weights],
        gradients=gradients,
        td_error=None if td_error is None else torch.full(weights[0].shape[:2], td_error),
        batch_size=batch_size,
        uniform=uniform,
        alive=torch.ones(len(weights[0]), dtype=torch.bool),
    )


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


def due(found: Rule, upto: int) -> list[int]:
    return [t for t in range(1, upto + 1) if found.due(t)]


def test_static_rules_are_never_due() -> None:
    assert due(rule(schedule="static", update_interval=1), 50) == []


def test_due_at_every_interval_before_the_end() -> None:
    assert due(rule(40, update_interval=10), 100) == [10, 20, 30]  # counter < T_end
    assert due(rule(41, update_interval=10), 100) == [10, 20, 30, 40]


def test_offset_of_sok_code() -> None:
    assert due(rule(update_interval=1000, update_offset=2), 3500) == [2, 1002, 2002, 3002]
    assert due(rule(update_interval=500, update_offset=1), 1800) == [1, 501, 1001, 1501]


def plan(role: str, topology: dict[str, Any], **keys: Any) -> Plan:
    run = from_dict(
        {
            "algo": "td3",
            "method": "test",
            "env": "Any-v0",
            role: {"sparsity": 0.5, "topology": {"schedule": "constant"} | topology},
        }
        | keys
    )
    return Plan(role, (4, 4, 1), 1, [run], 2 if role == "actor" else 1, "cpu")


def only_rule(found: Plan) -> Rule:
    (group,) = rule_groups(found)
    return group.rule


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
    }
    found = only_rule(plan(role, topology, steps=1_000_000))
    assert found.end == end
    network = view([one([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]])])
    for update in (offset, last - interval):  # drops two, grows two
        assert found.due(update)
        (layer,) = found.change(network, update).layers
        assert (layer.dropped.item(), layer.grown.item(), layer.mask.sum().item()) == (2, 2, 4)
    assert found.due(last)
    (layer,) = found.change(network, last).layers
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
    groups = rule_groups(Plan("critic", (4, 4, 1), 1, [single, *others], 1, "cpu"))
    assert [group.members for group in groups] == [[0, 1], [2], [3]]
    assert [group.instead_of_step for group in groups] == [False, False, True]


# --- drop by magnitude, grow by gradient, grow at random ------------------------------------------


def test_magnitude_and_gradient_by_hand() -> None:
    # RLX Alg. 1: half of 4 active go, |w| = .1 and .2; the free ones have |g| 5 4 (and the dropped
    # 3 and 9): with regrowth come 9 and 5, without 5 and 4
    weight = one([[0.1, -0.4], [0.5, -0.2], [0.0, 0.0]])
    gradient = one([[3.0, 8.0], [8.0, -9.0], [-5.0, 4.0]])
    keys: dict[str, Any] = {"drop": "magnitude", "grow": "gradient", "drop_fraction": 0.5}
    again = rule(**keys, regrow_dropped=True)
    assert again.needs_gradient
    (layer,) = again.change(view([weight], gradients=[gradient]), 1).layers
    assert layer.mask[0, 0].int().tolist() == [[0, 1], [1, 1], [1, 0]]
    anew = rule(**keys, regrow_dropped=False)
    (layer,) = anew.change(view([weight], gradients=[gradient]), 1).layers
    assert layer.mask[0, 0].int().tolist() == [[0, 1], [1, 0], [1, 1]]


def test_counts_are_the_whole_part_of_the_fraction_of_each_head() -> None:
    mask = torch.zeros(2, 2, 5, 4, dtype=torch.bool)
    for (member, head), active in {(0, 0): 19, (0, 1): 10, (1, 0): 9, (1, 1): 1}.items():
        mask[member, head].view(-1)[:active] = True
    weight = torch.arange(1.0, 81).view(2, 2, 5, 4) * mask
    (layer,) = rule(drop_fraction=0.1).change(view([weight], [mask], seeds=(0, 1)), 1).layers
    assert layer.dropped.tolist() == [[1, 1], [0, 0]]
    assert layer.mask.sum((-2, -1)).tolist() == [[19, 10], [9, 1]]


def test_random_growth_comes_from_each_members_own_stream() -> None:
    weight = torch.zeros(1, 1, 40, 40)
    weight[..., :4] = 1.0
    masks = {}
    for seeds in ((0, 1), (1,), (0,), (0, 0)):
        weights = [weight.expand(len(seeds), -1, -1, -1).contiguous()]
        (layer,) = rule(drop_fraction=0.5).change(view(weights, seeds=seeds), 1).layers
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
    (layer,) = found.change(view([weight], seeds=range(400)), 1).layers
    assert layer.mask.double().mean((0, 1)) == pytest.approx(0.1, abs=0.06)  # sd .015
    (layer,) = (
        rule(drop_fraction=1.0, regrow_dropped=False)
        .change(view([weight], seeds=range(400)), 1)
        .layers
    )
    assert not layer.mask[..., 0, :].any()


# --- drop by sign (SOK Alg. 2) --------------------------------------------------------------------


def counts(*numbers: int) -> list[Tensor]:
    return [torch.tensor([[number]]) for number in numbers]


def shares(split: Any, zero: int, negative: int, positive: int, fraction: float) -> tuple[int, ...]:
    found = split(*counts(zero, negative, positive), fraction)
    return found.zero.item(), found.negative.item(), found.positive.item()


@pytest.mark.parametrize(
    ("zero", "negative", "positive", "fraction", "expected"),
    [
        (0, 10, 10, 0.5, (0, 5, 5)),
        (0, 30, 10, 0.1, (0, 3, 1)),
        (0, 0, 20, 0.1, (0, 0, 2)),
        (0, 5, 8, 0.25, (0, 1, 2)),  # int(3.25) = 3: 15 // 13 = 1 negative
        (2, 9, 9, 0.2, (2, 1, 1)),  # int(4) = 4, the two zeros first
        (7, 5, 8, 0.2, (4, 0, 0)),  # zeros alone are more than enough
    ],
)
def test_fraction_takes_the_same_share_of_each_sign(
    zero: int, negative: int, positive: int, fraction: float, expected: tuple[int, ...]
) -> None:
    assert shares(fraction_shares, zero, negative, positive, fraction) == expected


@pytest.mark.parametrize(
    ("zero", "negative", "positive", "fraction", "expected"),
    [
        (0, 30, 10, 0.1, (0, 2, 2)),  # c = 4: two of each, whatever the balance
        (0, 10, 10, 0.25, (0, 2, 3)),  # c = 5: the odd one is positive
        (0, 1, 19, 0.2, (0, 1, 3)),  # too few negatives: positives make up
        (0, 19, 1, 0.2, (0, 3, 1)),
        (0, 0, 20, 0.1, (0, 0, 2)),
        (2, 9, 9, 0.2, (2, 1, 1)),
    ],
)
def test_half_takes_as_many_of_each_sign(
    zero: int, negative: int, positive: int, fraction: float, expected: tuple[int, ...]
) -> None:
    assert shares(half_shares, zero, negative, positive, fraction) == expected


@pytest.mark.parametrize(
    ("negative", "positive", "expected"),
    [
        # 8216 - int(7805.2) = 411; int(410.8) + 1 = 411: 822 of 16432
        (8216, 8216, (0, 411, 411)),
        # 8220 - int(7809.0) = 411; int(411.6) + 1 = 412: 823 of 16452
        (8220, 8232, (0, 411, 412)),
        (0, 1, (0, 0, 1)),  # int(.05) + 1 = 1
        (1, 0, (0, 1, 0)),  # 1 - int(.95) = 1; there is no positive to drop
    ],
)
def test_official_counts_of_sok_code(
    negative: int, positive: int, expected: tuple[int, ...]
) -> None:
    assert shares(official_shares, 0, negative, positive, 0.05) == expected


def test_official_drops_every_zero() -> None:
    assert shares(official_shares, 9, 100, 100, 0.05) == (9, 5, 6)


@pytest.mark.parametrize(
    ("split", "kept"),
    [
        # active: -6 -5 -4 -3 -2 -1 and 10 20; a half is 4
        ("fraction", [-6.0, -5.0, -4.0, 20.0]),  # 4 6 // 8 = 3 negatives and 1 positive
        ("half", [-6.0, -5.0, -4.0, -3.0]),  # two of each
        ("official", [-6.0, -5.0, -4.0]),  # 6 - int(3) = 3 and int(1) + 1 = 2
    ],
)
def test_dropped_are_the_smallest_positives_and_the_largest_negatives(
    split: str, kept: list[float]
) -> None:
    weight = one([[-1.0, 10.0, -6.0, 0.0], [-3.0, -2.0, 0.0, 0.0], [-5.0, 20.0, -4.0, 0.0]])
    found = rule(
        drop="sign", sign_split=split, drop_fraction=0.5, final_drop=True, end=1
    )  # the final drop shows what goes
    (layer,) = found.change(view([weight]), 1).layers
    assert sorted(weight[layer.mask].tolist()) == sorted(kept)


@pytest.mark.parametrize("split", ["fraction", "half", "official"])
def test_active_weights_of_exactly_zero_go_first_and_inactive_ones_never(split: str) -> None:
    weight = one([[0.0, 0.1, -0.1, 9.0], [0.0, 8.0, -8.0, -9.0]])
    mask = torch.ones(1, 1, 2, 4, dtype=torch.bool)
    mask[..., 1, 0] = False  # 7 active, one of them zero
    found = rule(drop="sign", sign_split=split, drop_fraction=0.15, final_drop=True, end=1)
    (layer,) = found.change(view([weight], [mask]), 1).layers
    assert not layer.mask[0, 0, 0, 0]
    assert not layer.mask[0, 0, 1, 0]
    # int(.15 7) = 1; official: 1 zero, 3 - int(2.55) = 1 negative, int(.45) + 1 = 1 positive
    assert layer.dropped.item() == (3 if split == "official" else 1)
    assert layer.mask[0, 0].sum() == 7 - layer.dropped.item()
    assert layer.mask[0, 0, 0, 1].item() == (split != "official")


def test_rank_among_the_marked() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 1.0]])
    assert rank(values, torch.tensor([[True, True, True, True]])).tolist() == [[3, 0, 2, 1]]
    assert rank(values, torch.tensor([[True, False, True, False]]))[0, [0, 2]].tolist() == [1, 0]


# --- importance (XU eqs. 3-10) on a 2-3-2-1 critic ------------------------------------------------

# Authors write W[to, from]; here the rows are inputs.
W1 = one([[1.0, 0.0, -2.0], [0.0, 4.0, 0.0]])
W2 = one([[1.0, 0.0], [0.0, -3.0], [2.0, 0.0]])
W3 = one([[0.5], [0.0]])
CRITIC = [W1, W2, W3]
# Outgoing of the inputs (eq. 5): 3, 4. Incoming of the hidden (eq. 6): 1 4 2, and 3 3.
# Incoming of the output (eq. 4): 0.5. With g = 10, half the sums:
S_I, S_H1, S_H2, S_O = [6.5, 7.0], [5.5, 7.0, 6.0], [6.5, 6.5], [5.25]


def importance(**keys: Any) -> Rule:
    base = {"drop": "importance", "grow": "importance", "drop_fraction": 0.5}
    return rule(**{**base, "regrow_dropped": False, **keys})


def gathered(found: Rule) -> list[Tensor]:
    """The importance of every neuron layer so far."""
    assert isinstance(found.drop, Importance)
    assert found.drop.importance is not None
    return found.drop.importance


def flat(values: list[Tensor]) -> list[list[float]]:
    return [value[0, 0].tolist() for value in values]


def test_importance_of_neurons() -> None:
    found = neuron_importance(CRITIC, torch.tensor([[10.0]]))
    assert flat(found) == [S_I, S_H1, S_H2, S_O]


def test_importance_of_heads_is_their_own() -> None:
    twice = [torch.cat((weight, 2 * weight), dim=1) for weight in CRITIC]
    found = neuron_importance(twice, torch.tensor([[10.0, 0.0]]))
    assert flat(found) == [S_I, S_H1, S_H2, S_O]
    assert [value[0, 1].tolist() for value in found] == [[3, 4], [1, 4, 2], [3, 3], [0.5]]


def test_drop_scores() -> None:
    i, h1, h2, o = neuron_importance(CRITIC, torch.tensor([[10.0]]))
    # D1[i, j] = |w| S_I[i]; D2[i, j] = |w| S_H2[j]; D3 = |w| S_O
    assert flat([drop_score(W1, i, h1, 0)]) == [[[6.5, 0, 13.0], [0, 28.0, 0]]]
    assert flat([drop_score(W2, h1, h2, 1)]) == [[[6.5, 0], [0, 19.5], [13.0, 0]]]
    assert flat([drop_score(W3, h2, o, 2)]) == [[[0.5 * 5.25], [0]]]


def test_grow_scores() -> None:
    i, h1, h2, o = neuron_importance(CRITIC, torch.tensor([[10.0]]))
    # G1[i, j] = S_I[i] + S_H1[j]; G2[i, j] = S_H1[i] + S_H2[j]; G3 = S_H2 + S_O
    assert flat([grow_score(i, h1)]) == [[[12.0, 13.5, 12.5], [12.5, 14.0, 13.0]]]
    assert flat([grow_score(h1, h2)]) == [[[12.0, 12.0], [13.5, 13.5], [12.5, 12.5]]]
    assert flat([grow_score(h2, o)]) == [[[11.75], [11.75]]]


def test_a_topology_update_by_importance() -> None:
    change = importance().change(view(CRITIC, td_error=10.0), 1)
    # layer 1: of 6.5 13 28 goes 6.5 (1 -> 1); of the free 13.5 12.5 13 comes 13.5
    # layer 2: of 6.5 19.5 13 goes 6.5; of the free 12 (1, 2) 13.5 (2, 1) 12.5 (3, 2) comes 13.5
    # layer 3: int(.5 1) = 0
    assert change.layers[0].mask[0, 0].int().tolist() == [[0, 1, 1], [0, 1, 0]]
    assert change.layers[1].mask[0, 0].int().tolist() == [[0, 0], [1, 1], [1, 0]]
    assert change.layers[2].mask[0, 0].int().tolist() == [[1], [0]]
    assert [layer.dropped.item() for layer in change.layers] == [1, 1, 0]


@pytest.mark.parametrize(("td_error", "expected"), [("sum", 10.0), ("mean", 2.5), ("off", 0.0)])
def test_how_td_error_enters(td_error: str, expected: float) -> None:
    found = importance(td_error=td_error)
    found.change(view(CRITIC, td_error=10.0, batch_size=4), 1)
    strengths: list[list[float]] = [[3, 4], [1, 4, 2], [3, 3], [0.5]]
    assert flat(gathered(found)) == [[(expected + s) / 2 for s in row] for row in strengths]


def test_importance_accumulates_at_topology_updates() -> None:
    found = importance()
    assert not found.observes_updates
    found.observe(view(CRITIC, td_error=99.0))
    found.change(view(CRITIC, td_error=10.0), 1)
    found.change(view([2 * weight for weight in CRITIC], td_error=4.0), 2)
    # (10 + 3) / 2 + (4 + 6) / 2, ...
    assert flat(gathered(found))[0] == [11.5, 13.0]
    assert flat(gathered(found))[3] == [7.75]


def test_importance_accumulates_at_every_critic_update() -> None:
    found = importance(accumulate="critic_update")
    assert found.observes_updates
    found.observe(view(CRITIC, td_error=10.0))
    found.observe(view([2 * weight for weight in CRITIC], td_error=4.0))
    found.change(view(CRITIC, td_error=99.0), 2)  # observed before; not counted again
    assert flat(gathered(found))[0] == [11.5, 13.0]


def test_static_rules_observe_nothing() -> None:
    assert not importance(accumulate="critic_update", schedule="static").observes_updates
    assert not rule(drop="magnitude", grow="gradient", schedule="static").needs_gradient


def test_importance_as_both_scores_keeps_one_account() -> None:
    found = importance()
    assert found.drop is found.grow
    assert found.scores == (found.drop,)


def test_importance_combines_with_other_scores() -> None:
    dropping = importance(grow="random").change(view(CRITIC, td_error=10.0), 1)
    assert not dropping.layers[0].mask[0, 0, 0, 0]
    assert dropping.layers[0].mask.sum() == 3
    growing = importance(drop="magnitude").change(view(CRITIC, td_error=10.0), 1)
    assert growing.layers[0].mask[0, 0].int().tolist() == [[0, 1, 1], [0, 1, 0]]


def random_critic(seed: int, *sizes: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    weights = []
    for inputs, outputs in pairwise(sizes):
        active = torch.rand(1, 2, inputs, outputs, generator=g) < 0.4
        weights.append(torch.randn(1, 2, inputs, outputs, generator=g) * active)
    return weights


@pytest.mark.parametrize("accumulate", ["topology_update", "critic_update"])
def test_td_error_cancels_in_growth_however_long_the_run(accumulate: str) -> None:
    # the same number enters every neuron, so that growth ranks by the strengths alone: also when
    # the sum of |TD| is millions of times a strength
    critic = random_critic(3, 6, 16, 16, 1)
    grown = {}
    for td_error in ("sum", "off"):
        found = importance(drop="magnitude", td_error=td_error, accumulate=accumulate)
        for _ in range(300):
            for see in (found.observe, found.grow.prepare):
                see(view(critic, td_error=123_456.7))
        change = found.change(view(critic, td_error=123_456.7), 1)
        grown[td_error] = [layer.mask for layer in change.layers]
    for with_error, without in zip(grown["sum"], grown["off"], strict=True):
        assert torch.equal(with_error, without)


def test_dropping_from_the_output_layer_is_by_magnitude() -> None:
    critic = random_critic(5, 6, 16, 64, 1)
    masks = []
    for drop in ("importance", "magnitude"):
        found = importance(drop=drop, final_drop=True, end=1)
        masks.append(found.change(view(critic, td_error=321.7), 1).layers[2].mask)
    assert torch.equal(*masks)


def test_td_error_pulls_the_drop_ranking_towards_magnitude() -> None:
    # the inputs have strength 10 and 1.1, and one of 1 9 1.1 goes
    weight = one([[1.0, 9.0], [1.1, 0.0]])
    dropped = {}
    for td_error in ("off", "sum"):
        found = importance(td_error=td_error, drop_fraction=0.4, final_drop=True, end=1)
        kept = found.change(view([weight, one([[1.0], [1.0]])], td_error=1e4), 1).layers[0].mask
        dropped[td_error] = weight[(weight != 0) & ~kept].tolist()
    # off: 1 (10 / 2) = 5 against 1.1 (1.1 / 2) = .605; sum: 5005 against 1.1 5000.55 = 5500.6
    assert dropped == {"off": [pytest.approx(1.1)], "sum": [1.0]}
