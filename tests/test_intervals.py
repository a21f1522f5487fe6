"""Confidence intervals: hand-worked values, and how often they cover the true value."""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

import numpy as np
import pytest
from coverage_samples import POPULATIONS, coverage, improvement_coverage
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrl_cli.report import improvement, intervals
from dstrl_cli.report.intervals import bootstrap, estimate, interval
from dstrl_cli.report.statistics import CENTERS, iqm, mean

values = st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=12)


# --- by hand --------------------------------------------------------------------------------------


def test_student_s_interval_of_a_mean_by_hand() -> None:
    """Mean 3, std sqrt(2.5), standard error sqrt(0.5), t of 4 degrees of freedom 2.776."""
    found = interval([[1.0, 2.0, 3.0, 4.0, 5.0]], "mean")
    assert found is not None
    half = 2.7764451 * math.sqrt(0.5)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    assert found.method == "Student's t"


def test_the_trimmed_interval_of_an_interquartile_mean_by_hand() -> None:
    """Of 1, 2, 4, 9 the winsorised values 2, 2, 4, 4 have a sum of squares of 4: se = sqrt(2)."""
    found = interval([[9.0, 1.0, 2.0, 4.0]], "iqm")
    assert found is not None
    half = 12.7062047 * math.sqrt(4 / (2 * 1))
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    assert found.method == "trimmed t"


def test_of_three_seeds_the_trimmed_interval_is_student_s() -> None:
    seeds = [[3.0, 8.0, 4.0]]
    trimmed, student_s = interval(seeds, "iqm"), interval(seeds, "mean")
    assert trimmed is not None
    assert student_s is not None
    assert (trimmed.low, trimmed.high) == pytest.approx((student_s.low, student_s.high))


@pytest.mark.parametrize(
    ("n", "low"),
    [(5, 0), (6, 0), (8, 0), (9, 1), (10, 1), (16, 3), (20, 5)],
)
def test_the_interval_of_a_median_lies_between_order_statistics(n: int, low: int) -> None:
    """They cover 93.8, 96.9, 99.2, 96.1, 97.9, 97.9 and 95.9 %."""
    found = interval([np.arange(n)], "median")
    assert found == intervals.Interval(low, n - 1 - low, "order statistics")


def test_satterthwaite_s_interval_by_hand() -> None:
    """Variances of the means 1/3 and 0: se = sqrt(1/3) / 2, 2 degrees of freedom."""
    found = interval([[1.0, 2.0, 3.0], [10.0, 10.0, 10.0]], "mean")
    assert found is not None
    half = 4.3026527 * math.sqrt(1 / 3) / 2
    assert (found.low, found.high) == pytest.approx((6 - half, 6 + half))
    assert found.method == "Satterthwaite's t"


def test_equal_variances_add_up_their_degrees_of_freedom() -> None:
    """Variances 1/3 each: se = sqrt(2/3) / 2, and 4 degrees of freedom."""
    found = interval([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]], "mean")
    assert found is not None
    half = 2.7764451 * math.sqrt(2 / 3) / 2
    assert (found.low, found.high) == pytest.approx((7 - half, 7 + half))


def test_seeds_are_drawn_within_their_stratum() -> None:
    """Two constant strata far apart: pooling them would give a wide interval."""
    low, high = bootstrap(mean, False, [np.ones(3), np.full(3, 101.0)])
    assert (float(low), float(high)) == (51.0, 51.0)


def test_the_bootstrap_of_three_seeds_by_hand() -> None:
    """27 equally likely resamples of (0, 3, 6): each extreme has 3.7 % > 2.5 %."""
    low, high = bootstrap(mean, False, [np.array([0.0, 3.0, 6.0])])
    assert (float(low), float(high)) == (0.0, 6.0)


@pytest.mark.parametrize(("n", "tail"), [(5, 0.00095), (10, 0.0086), (20, 0.016)])
def test_the_expanded_interval_takes_quantiles_further_out(n: int, tail: float) -> None:
    assert intervals.expanded_tail([n]) == pytest.approx(tail, rel=0.02)
    assert intervals.expanded_tail([1000]) == pytest.approx(0.025, rel=0.01)


# --- which ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("center", "counts", "name"),
    [
        ("mean", [2], None),
        ("mean", [3], "Student's t"),
        ("iqm", [2], None),
        ("iqm", [4], "trimmed t"),
        ("iqm", [5], "expanded percentile bootstrap"),
        ("iqm", [9], "expanded percentile bootstrap"),
        ("iqm", [10], "percentile bootstrap"),
        ("median", [4], None),
        ("median", [5], "order statistics"),
        ("mean", [], None),
        ("mean", [9, 2], None),
        ("mean", [9, 3], "Satterthwaite's t"),
        ("iqm", [3, 3], "stratified expanded bootstrap"),
        ("median", [3, 3], "stratified expanded bootstrap"),
    ],
)
def test_the_method_follows_from_center_and_seeds(
    center: str, counts: list[int], name: str | None
) -> None:
    found = interval([np.arange(float(n)) for n in counts], center)
    assert (found and found.method) == name


def test_over_environments_means_are_averaged_and_the_others_pooled() -> None:
    strata = [[1.0, 3.0], [10.0, 20.0, 30.0, 40.0]]
    assert estimate(strata, "mean") == 13.5
    assert estimate(strata, "median") == 15.0
    assert estimate(strata, "iqm") == pytest.approx((3 + 10 + 20 + 30) / 4)


@pytest.mark.parametrize("center", CENTERS)
def test_equal_values_have_an_interval_of_no_width(center: str) -> None:
    for strata in ([[0.1] * 5], [[0.1] * 5, [0.1] * 7]):
        found = interval(strata, center)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((0.1, 0.1))


@settings(max_examples=40, deadline=None)
@given(values, st.sampled_from(list(CENTERS)))
def test_intervals_repeat_and_hold_their_center(seeds: list[float], center: str) -> None:
    first = interval([seeds], center)
    assert first is not None
    assert first == interval([seeds], center)
    slack = 1e-9 * (1 + max(map(abs, seeds)))
    assert first.low - slack <= estimate([seeds], center) <= first.high + slack


@settings(max_examples=25, deadline=None)
@given(values, st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_intervals_follow_a_change_of_scale(
    seeds: list[float], factor: float, shift: float
) -> None:
    before = interval([seeds], "iqm")
    after = interval([[factor * value + shift for value in seeds]], "iqm")
    assert before is not None
    assert after is not None
    moved = (factor * before.low + shift, factor * before.high + shift)
    assert (after.low, after.high) == pytest.approx(moved, rel=1e-6, abs=1e-3)


def test_they_agree_with_scipy() -> None:
    scipy = pytest.importorskip("scipy.stats", reason="dstrl does not need SciPy")
    seeds = np.random.default_rng(0).normal(size=12)
    found = interval([seeds], "mean")
    assert found is not None
    assert (found.low, found.high) == pytest.approx(
        scipy.t.interval(0.95, 11, seeds.mean(), scipy.sem(seeds))
    )
    assert float(iqm(seeds)) == pytest.approx(scipy.trim_mean(seeds, 0.25))
    statistic = functools.partial(scipy.trim_mean, proportiontocut=0.25, axis=-1)
    theirs = scipy.bootstrap(
        (seeds,), statistic, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    ours = interval([seeds], "iqm")
    assert ours is not None
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)


# --- how often they cover the truth ---------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize(("center", "studies"), [("mean", 4000), ("median", 4000), ("iqm", 1000)])
def test_intervals_of_normal_data_cover_the_truth(center: str, n: int, studies: int) -> None:
    resamples = 2000 if n < 10 else 1000
    assert 92 <= coverage("normal", center, n, studies=studies, resamples=resamples) <= 98


def test_the_mean_over_environments_covers_the_truth() -> None:
    for n in (5, 10, 20):
        assert 92 <= coverage("normal", "mean", n, envs=5, studies=400) <= 98


@pytest.mark.soak
@pytest.mark.parametrize("envs", [1, 2, 5])
@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("center", CENTERS)
def test_intervals_cover_the_truth_in_many_studies(center: str, n: int, envs: int) -> None:
    assert 92 <= coverage("normal", center, n, envs, studies=2000) <= 98


@pytest.mark.soak
@pytest.mark.parametrize("population", ["exponential", "failures"])
@pytest.mark.parametrize("n", [10, 20])
def test_intervals_of_skewed_data_cover_less_but_most(population: str, n: int) -> None:
    assert population in POPULATIONS
    for center in CENTERS:
        assert coverage(population, center, n, studies=2000) >= 87


# --- improvement ----------------------------------------------------------------------------------


def test_an_improvement_counts_pairs_and_half_of_ties() -> None:
    """Of 6 pairs, 3 beats 1 and 2, 2 beats 1 and ties with 2, 1 ties with 1."""
    found = improvement.improvement([[1.0, 2.0, 3.0]], [[1.0, 2.0]])
    assert found.value == pytest.approx((2 + 1 + 0.5 + 0.5) / 6)
    assert found.interval is None


def test_runs_that_all_win_leave_a_probability_to_lose() -> None:
    """Newcombe's lower end: 1 - theta = 1.96 sqrt(theta (1 - theta) (1 + 4 s) / 25)."""
    found = improvement.improvement([[6.0, 7.0, 8.0, 9.0, 10.0]], [[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert found.interval is not None
    low, high = found.interval
    shared = (1 - low) / (2 - low) + low / (1 + low)
    error = math.sqrt(low * (1 - low) * (1 + 4 * shared) / 25)
    assert (found.value, high) == (1.0, 1.0)
    assert 1 - low == pytest.approx(1.959964 * error)


def test_improvements_are_averaged_over_environments() -> None:
    found = improvement.improvement([[2.0] * 3, [0.0] * 3], [[1.0] * 3, [1.0] * 3])
    assert found.value == 0.5
    assert found.interval is not None
    assert sum(found.interval) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [5, 10, 20])
def test_intervals_of_improvements_cover_the_truth(n: int) -> None:
    rng = np.random.default_rng(n)
    first, second = rng.normal(1.0, size=(2000, n)), rng.normal(size=(2000, n))
    truth = NormalDist().cdf(1 / 2**0.5)
    low, high = improvement.bounds(improvement.probability(first, second), n, n)
    assert 0.92 <= np.mean((low <= truth) & (truth <= high)) <= 0.98


@pytest.mark.soak
@pytest.mark.parametrize("envs", [1, 4])
@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
def test_intervals_of_improvements_cover_the_truth_in_many_studies(
    shift: float, n: int, envs: int
) -> None:
    assert 91 <= improvement_coverage(shift, n, envs, studies=2000) <= 98.5
