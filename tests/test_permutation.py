"""Group-sequential permutation tests: hand-worked cases, rate of errors, power."""

from __future__ import annotations

import numpy as np
import pytest
from power_samples import rates

from dstrl_cli.report.permutation import Plan, decide

FEW = 999
"""Permutations of the simulations."""


# --- by hand --------------------------------------------------------------------------------------


def test_the_p_value_of_a_complete_separation_is_that_of_two_in_all_deals() -> None:
    """Of the 252 ways to deal out ten scores, the one seen and its mirror image are as extreme."""
    low, high = np.arange(5.0), 10.0 + np.arange(5)
    (decision,) = decide([(low, high)], Plan()).decisions
    assert decision.p == pytest.approx(2 / 252, abs=0.003)
    assert (decision.sign, decision.difference, decision.seeds) == (-1, -10.0, (5, 5))
    (mirrored,) = decide([(high, low)], Plan()).decisions
    assert (mirrored.sign, mirrored.difference) == (1, 10.0)


def test_three_seeds_decide_nothing() -> None:
    """2 of 20 deals are as extreme as any three against three can be."""
    (decision,) = decide([([0.0, 1.0, 2.0], [100.0, 101.0, 102.0])], Plan()).decisions
    assert decision.sign == 0
    assert decision.p == pytest.approx(0.1, abs=0.01)


def test_a_p_value_counts_ties() -> None:
    """1, 2 against 1, 3: differences of sums are 1 in 4 of 6 deals and 3 in 2: all are >= 1."""
    (decision,) = decide([([1.0, 2.0], [1.0, 3.0])], Plan()).decisions
    assert decision.p == 1.0


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_equal_scores_are_not_told_apart(value: float) -> None:
    (decision,) = decide([([value] * 7, [value] * 5)], Plan()).decisions
    assert (decision.sign, decision.p) == (0, 1.0)


def test_scale_and_origin_do_not_matter() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 6))
    (plain,) = decide([(first, second)], Plan()).decisions
    (moved,) = decide([(1e5 * first - 7e8, 1e5 * second - 7e8)], Plan()).decisions
    assert moved.p == plain.p


def test_decisions_come_round_by_round_and_later_scores_change_none() -> None:
    plan = Plan(rounds=4, seeds=5)
    rng = np.random.default_rng(0)
    far, near = rng.normal(size=(2, 20)), rng.normal(size=(2, 20))
    far[0] += 9.0
    pairs = [(far[0], far[1]), (near[0], near[1])]
    first = decide([(a[:5], b[:5]) for a, b in pairs], plan)
    assert (first.looks, first.waiting) == (1, (1,))
    assert [each.sign for each in first.decisions] == [1, 0]
    whole = decide(pairs, plan)
    assert (whole.looks, whole.waiting) == (4, ())
    assert whole.decisions[0] == first.decisions[0]  # decided at the first look, of five seeds
    assert (whole.decisions[1].sign, whole.decisions[1].seeds) == (0, (20, 20))
    assert whole == decide(pairs, plan)


def test_what_is_decided_needs_no_further_scores() -> None:
    plan = Plan(rounds=2, seeds=5)
    rng = np.random.default_rng(1)
    near = rng.normal(size=(2, 10))
    study = decide([(np.arange(5.0), np.arange(5.0) + 50), (near[0], near[1])], plan)
    assert (study.looks, study.waiting) == (2, ())
    assert [each.seeds for each in study.decisions] == [(5, 5), (10, 10)]


def test_a_round_that_lacks_seeds_is_not_looked_at() -> None:
    study = decide([(np.arange(4.0), np.arange(9.0) + 50)], Plan(rounds=2, seeds=5))
    assert (study.looks, study.waiting) == (0, (0,))
    assert (study.decisions[0].sign, study.decisions[0].seeds) == (0, (0, 0))


def test_a_decision_makes_the_next_easier() -> None:
    """Adjusted p-values never fall from a larger difference to a smaller one."""
    rng = np.random.default_rng(4)
    pairs = [(rng.normal(size=8) + shift, rng.normal(size=8)) for shift in (3.0, 1.5, 1.0, 0.0)]
    together = decide(pairs, Plan()).decisions
    alone = [decide([pair], Plan()).decisions[0] for pair in pairs]
    assert all(
        one.p <= all_.p + 0.005  # type: ignore[operator]
        for one, all_ in zip(alone, together, strict=True)
    )
    for decision in together:
        assert decision.p is not None
        assert (decision.sign != 0) == (decision.p <= 0.05)


def test_comparisons_of_any_scale_share_one_error() -> None:
    rng = np.random.default_rng(2)
    pairs = [(rng.normal(size=6) + shift, rng.normal(size=6)) for shift in (2.0, 1.0, 0.0)]
    scaled = [*pairs[:2], (1e6 * pairs[2][0] + 1e9, 1e6 * pairs[2][1] + 1e9)]
    plain, moved = decide(pairs, Plan()).decisions, decide(scaled, Plan()).decisions
    assert [each.p for each in moved] == [each.p for each in plain]


def test_noisy_methods_do_not_hide_a_difference_of_quiet_ones() -> None:
    rng = np.random.default_rng(5)
    quiet = (rng.normal(size=10) + 3.0, rng.normal(size=10))
    noisy = [(100 * rng.normal(size=10), 100 * rng.normal(size=10)) for _ in range(9)]
    first, *others = decide([quiet, *noisy], Plan()).decisions
    assert first.sign == 1
    assert {each.sign for each in others} == {0}


def test_few_seeds_do_not_hide_a_difference_of_many() -> None:
    """Differences of three seeds vary by chance as much as the one that twenty seeds show."""
    rng = np.random.default_rng(7)
    many = (rng.normal(size=20) + 1.5, rng.normal(size=20))
    few = [(rng.normal(size=3), rng.normal(size=3)) for _ in range(9)]
    first, *others = decide([many, *few], Plan()).decisions
    assert first.p is not None
    assert first.p < 0.01
    assert {each.sign for each in others} == {0}


def test_no_comparisons_are_no_decisions() -> None:
    assert decide([], Plan(rounds=3, seeds=5)).decisions == ()


# --- errors and power -----------------------------------------------------------------------------


def plan(rounds: int, seeds: int) -> Plan:
    return Plan(rounds, seeds, permutations=FEW)


def test_of_two_equal_methods_one_in_twenty_is_declared_better() -> None:
    found = rates([0.0, 0.0], plan(4, 5), studies=1000)
    assert 0.03 <= found.wrong <= 0.07  # standard error 0.007
    assert found.seeds == pytest.approx(19.7, abs=0.3)


def test_of_six_equal_methods_one_study_in_twenty_declares_any_better() -> None:
    assert rates([0.0] * 6, plan(4, 5), studies=150).wrong <= 0.09


def test_four_looks_find_a_difference_of_one_std_in_four_studies_of_five() -> None:
    found = rates([1.0, 0.0], plan(4, 5), studies=400)
    assert found.found == pytest.approx(0.81, abs=0.05)
    assert found.seeds == pytest.approx(14.6, abs=0.8)
    assert found.wrong <= 0.01


@pytest.mark.parametrize(("n", "power"), [(5, 0.27), (10, 0.56), (20, 0.88)])
def test_the_power_of_one_look(n: int, power: float) -> None:
    assert rates([1.0, 0.0], plan(1, n), studies=400).found == pytest.approx(power, abs=0.06)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("effects", "rounds", "seeds", "power"),
    [
        ([0.0, 0.0], 4, 5, 1.0),
        ([0.0, 0.0], 2, 10, 1.0),
        ([0.0, 0.0], 4, 3, 1.0),
        ([0.0] * 6, 4, 5, 1.0),
        ([1.0] + [0.0] * 5, 4, 5, 0.50),
        ([2.0, 1.0, 0.0], 4, 5, 0.75),
        ([2.0, 0.0], 4, 5, 0.99),
        ([1.0, 0.0], 2, 10, 0.80),
    ],
)
def test_rates_in_many_studies(effects: list[float], rounds: int, seeds: int, power: float) -> None:
    found = rates(effects, plan(rounds, seeds), studies=2000)
    assert found.wrong <= 0.067  # standard error 0.005
    assert found.found >= power


@pytest.mark.soak
def test_equal_means_with_unequal_spread_are_told_apart_somewhat_too_often() -> None:
    """The hypothesis is that of equal distributions."""
    assert rates([0.0, 0.0], plan(4, 5), studies=2000, deviations=5.0).wrong <= 0.10
