"""Means, interquartile means and intervals over seeds."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.report import statistics as stats

values = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=12)


def test_std_is_of_the_population() -> None:
    assert stats.std([1.0, 3.0]) == 1.0  # ddof=1 would be 1.414
    assert stats.std([5.0]) == 0.0


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 9.0], 4.0),  # int(0.75) = 0 cut: the mean
        ([9.0, 1.0, 2.0, 4.0], 3.0),  # one cut at either end
        ([100.0, 1.0, 2.0, 3.0, -50.0], 2.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], 4.5),
    ],
)
def test_iqm_by_hand(seeds: list[float], expected: float) -> None:
    assert float(stats.iqm(np.array(seeds))) == pytest.approx(expected)


def test_iqm_reduces_the_last_axis() -> None:
    scores = np.array([[9.0, 1.0, 2.0, 4.0], [0.0, 0.0, 8.0, 100.0]])
    assert stats.iqm(scores).tolist() == [3.0, 4.0]


def test_no_interval_below_three_seeds() -> None:
    assert stats.stratified_bootstrap([[1.0, 2.0]], stats.mean) is None
    assert stats.stratified_bootstrap([[1.0, 2.0, 3.0], [1.0, 2.0]], stats.mean) is None
    assert stats.stratified_bootstrap([], stats.mean) is None


def test_interval_of_three_seeds_by_hand() -> None:
    """27 equally likely resamples of (0, 3, 6): each extreme has 3.7 % > 2.5 %."""
    interval = stats.stratified_bootstrap([[0.0, 3.0, 6.0]], stats.mean)
    assert interval == stats.Interval(0.0, 6.0)


def test_seeds_are_drawn_within_their_stratum() -> None:
    """Two constant strata far apart: pooling them would give a wide interval."""
    interval = stats.stratified_bootstrap([[1.0] * 3, [101.0] * 3], stats.mean)
    assert interval == stats.Interval(51.0, 51.0)


def test_interval_narrows_with_confidence() -> None:
    seeds = [np.arange(10.0)]
    wide = stats.stratified_bootstrap(seeds, stats.mean)
    narrow = stats.stratified_bootstrap(seeds, stats.mean, confidence=0.5)
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < 4.5 < narrow.high < wide.high


@given(values)
def test_intervals_repeat_and_stay_within_the_values(seeds: list[float]) -> None:
    first = stats.stratified_bootstrap([seeds], stats.iqm, resamples=50)
    assert first == stats.stratified_bootstrap([seeds], stats.iqm, resamples=50)
    assert first is not None
    slack = 1e-9 * (1 + max(map(abs, seeds)))
    assert min(seeds) - slack <= first.low <= first.high <= max(seeds) + slack


@given(values, st.randoms())
def test_iqm_ignores_order_and_the_extremes(seeds: list[float], random: Random) -> None:
    shuffled = random.sample(seeds, len(seeds))
    assert float(stats.iqm(np.array(shuffled))) == pytest.approx(float(stats.iqm(np.array(seeds))))
    if len(seeds) >= 4:
        stretched = sorted(seeds)
        stretched[-1] += 1e6
        assert float(stats.iqm(np.array(stretched))) == pytest.approx(
            float(stats.iqm(np.array(seeds)))
        )
