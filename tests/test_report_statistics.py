"""Means, medians, interquartile means and their spread over seeds."""

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


def test_the_median_and_the_standard_error_by_hand() -> None:
    assert float(stats.median(np.array([9.0, 1.0, 2.0, 4.0]))) == 3.0
    assert stats.standard_error([1.0, 3.0]) == pytest.approx(1.0)  # sqrt(2) / sqrt(2)
    assert stats.standard_error([5.0]) is None


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
