"""Importance of neurons (XU eqs. 3-10) on a 2-3-2-1 critic, worked by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from rule_samples import one, rule, view
from torch import Tensor

from dstrl_cli.topology.importance import (
    Importance,
    drop_score,
    grow_score,
    neuron_importance,
    strengths,
)
from dstrl_cli.topology.rule import Rule

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
    found = neuron_importance(strengths(CRITIC), torch.tensor([[10.0]]))
    assert flat(found) == [S_I, S_H1, S_H2, S_O]


def test_importance_of_heads_is_their_own() -> None:
    twice = [torch.cat((weight, 2 * weight), dim=1) for weight in CRITIC]
    found = neuron_importance(strengths(twice), torch.tensor([[10.0, 0.0]]))
    assert flat(found) == [S_I, S_H1, S_H2, S_O]
    assert [value[0, 1].tolist() for value in found] == [[3, 4], [1, 4, 2], [3, 3], [0.5]]


def test_drop_scores() -> None:
    i, h1, h2, o = neuron_importance(strengths(CRITIC), torch.tensor([[10.0]]))
    # D1[i, j] = |w| S_I[i]; D2[i, j] = |w| S_H2[j]; D3 = |w| S_O
    assert flat([drop_score(W1, i, h1, 0)]) == [[[6.5, 0, 13.0], [0, 28.0, 0]]]
    assert flat([drop_score(W2, h1, h2, 1)]) == [[[6.5, 0], [0, 19.5], [13.0, 0]]]
    assert flat([drop_score(W3, h2, o, 2)]) == [[[0.5 * 5.25], [0]]]


def test_grow_scores() -> None:
    i, h1, h2, o = neuron_importance(strengths(CRITIC), torch.tensor([[10.0]]))
    # G1[i, j] = S_I[i] + S_H1[j]; G2[i, j] = S_H1[i] + S_H2[j]; G3 = S_H2 + S_O
    assert flat([grow_score(i, h1)]) == [[[12.0, 13.5, 12.5], [12.5, 14.0, 13.0]]]
    assert flat([grow_score(h1, h2)]) == [[[12.0, 12.0], [13.5, 13.5], [12.5, 12.5]]]
    assert flat([grow_score(h2, o)]) == [[[11.75], [11.75]]]


def test_a_topology_update_by_importance() -> None:
    change = importance().change(view(CRITIC, td_error=10.0), 1)
    # layer 1: of 6.5 13 28 goes 6.5 (1 -> 1); of the free 13.5 12.5 13 comes 13.5
    # layer 2: of 6.5 19.5 13 goes 6.5; of the free 12 (1, 2) 13.5 (2, 1) 12.5 (3, 2) comes 13.5
    # layer 3: int(.5 1) = 0
    assert change[0].mask[0, 0].int().tolist() == [[0, 1, 1], [0, 1, 0]]
    assert change[1].mask[0, 0].int().tolist() == [[0, 0], [1, 1], [1, 0]]
    assert change[2].mask[0, 0].int().tolist() == [[1], [0]]
    assert [layer.dropped.item() for layer in change] == [1, 1, 0]


@pytest.mark.parametrize(("td_error", "expected"), [("sum", 10.0), ("mean", 2.5), ("off", 0.0)])
def test_how_td_error_enters(td_error: str, expected: float) -> None:
    found = importance(td_error=td_error)
    found.change(view(CRITIC, td_error=10.0, batch_size=4), 1)
    strengths: list[list[float]] = [[3, 4], [1, 4, 2], [3, 3], [0.5]]
    assert flat(gathered(found)) == [[(expected + s) / 2 for s in row] for row in strengths]


def test_importance_accumulates_at_topology_updates() -> None:
    found = importance()
    assert not found.observers
    found.observe(view(CRITIC, td_error=99.0))
    found.change(view(CRITIC, td_error=10.0), 1)
    found.change(view([2 * weight for weight in CRITIC], td_error=4.0), 2)
    # (10 + 3) / 2 + (4 + 6) / 2, ...
    assert flat(gathered(found))[0] == [11.5, 13.0]
    assert flat(gathered(found))[3] == [7.75]


def test_importance_accumulates_at_every_critic_update() -> None:
    found = importance(accumulate="critic_update")
    assert found.observers
    found.observe(view(CRITIC, td_error=10.0))
    found.observe(view([2 * weight for weight in CRITIC], td_error=4.0))
    found.change(view(CRITIC, td_error=99.0), 2)  # observed before; not counted again
    assert flat(gathered(found))[0] == [11.5, 13.0]


def test_importance_fades_where_it_decays() -> None:
    found = importance(importance_decay=0.5)
    found.change(view(CRITIC, td_error=10.0), 1)
    found.change(view([2 * weight for weight in CRITIC], td_error=4.0), 2)
    # half of (10 + 3) / 2, and (4 + 6) / 2
    assert flat(gathered(found))[0] == [8.25, 9.5]


def test_drawn_growth_goes_by_the_sums_in_the_long_run() -> None:
    # without |TD|, layer 1 is free at (1, 2) (2, 1) (2, 3), of which one is grown:
    # its sums of half the strengths, 1.5 + 2, 2 + .5 and 2 + 1, are 3.5 2.5 3 of 9
    drawn = torch.zeros(2, 3)
    for seed in range(2000):
        found = importance(grow="drawn_importance", td_error="off")
        (first, *_) = found.change(view(CRITIC, td_error=10.0, seeds=(seed,)), 1)
        drawn += first.mask[0, 0] & (W1[0, 0] == 0)
    shares = drawn / drawn.sum()
    expected = torch.tensor([[0.0, 3.5, 0.0], [2.5, 0.0, 3.0]]) / 9
    assert torch.allclose(shares, expected, atol=0.04)


def test_importance_as_both_scores_keeps_one_account() -> None:
    found = importance()
    assert found.drop is found.grow
    assert found.scores == (found.drop,)


def test_importance_combines_with_other_scores() -> None:
    dropping = importance(grow="random").change(view(CRITIC, td_error=10.0), 1)
    assert not dropping[0].mask[0, 0, 0, 0]
    assert dropping[0].mask.sum() == 3
    growing = importance(drop="magnitude").change(view(CRITIC, td_error=10.0), 1)
    assert growing[0].mask[0, 0].int().tolist() == [[0, 1, 1], [0, 1, 0]]


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
        grown[td_error] = [layer.mask for layer in change]
    for with_error, without in zip(grown["sum"], grown["off"], strict=True):
        assert torch.equal(with_error, without)


def test_dropping_from_the_output_layer_is_by_magnitude() -> None:
    critic = random_critic(5, 6, 16, 64, 1)
    masks = []
    for drop in ("importance", "magnitude"):
        found = importance(drop=drop, final_drop=True, end=1)
        masks.append(found.change(view(critic, td_error=321.7), 1)[2].mask)
    assert torch.equal(*masks)


def test_td_error_pulls_the_drop_ranking_towards_magnitude() -> None:
    # the inputs have strength 10 and 1.1, and one of 1 9 1.1 goes
    weight = one([[1.0, 9.0], [1.1, 0.0]])
    dropped = {}
    for td_error in ("off", "sum"):
        found = importance(td_error=td_error, drop_fraction=0.4, final_drop=True, end=1)
        kept = found.change(view([weight, one([[1.0], [1.0]])], td_error=1e4), 1)[0].mask
        dropped[td_error] = weight[(weight != 0) & ~kept].tolist()
    # off: 1 (10 / 2) = 5 against 1.1 (1.1 / 2) = .605; sum: 5005 against 1.1 5000.55 = 5500.6
    assert dropped == {"off": [pytest.approx(1.1)], "sum": [1.0]}
