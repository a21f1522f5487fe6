"""Our statistics beside those of rliable 1.2.0 (Agarwal et al. 2021) and SciPy 1.17.1.

The numbers were printed by these packages beside NumPy 2.4.6, arch 7.2.0 and pandas 2.3.3 (rliable
does not import beside pandas 3), bootstraps with 50,000 resamples and seed 0. Of A and B rows are
runs and columns environments; C are runs of one environment.
"""

from __future__ import annotations

import numpy as np
import pytest

from dstrl_cli.report.improvement import improvement, probability
from dstrl_cli.report.intervals import bootstrap, estimate, interval
from dstrl_cli.report.statistics import iqm

A = np.array(
    [
        [0.9, 0.96, 0.845],
        [0.722, 0.809, 0.702],
        [0.912, 1.168, 0.802],
        [0.776, 0.998, 0.971],
        [0.921, 0.714, 0.894],
        [1.039, 0.631, 0.808],
    ]
)
B = np.array(
    [
        [0.275, 0.428, 0.29],
        [0.691, 0.433, 0.818],
        [0.789, 0.703, 0.121],
        [0.615, 0.738, 0.778],
        [0.367, 0.631, 0.505],
    ]
)
C = np.array([0.757, 1.318, 0.758, 0.99, 1.265, 0.825, 0.966, 1.033, 1.019, 0.632, 1.023, 1.408])


def test_the_interquartile_mean_of_one_environment_is_scipy_s_trimmed_mean() -> None:
    """`scipy.stats.trim_mean(A[:, 0], 0.25)`, `metrics.aggregate_iqm(A[:, [j]])`."""
    assert iqm(A.T).tolist() == pytest.approx([0.87725, 0.87025, 0.83725])


def test_aggregates_over_environments_are_rliable_s() -> None:
    """`aggregate_iqm` of A and B, `aggregate_mean` of A."""
    assert estimate(list(A.T), "iqm") == pytest.approx(0.8627)
    assert estimate(list(B.T), "iqm") == pytest.approx(0.5678888888888888)
    assert estimate(list(A.T), "mean") == pytest.approx(0.8651111111111112)


def test_the_probability_of_improvement_is_rliable_s() -> None:
    """`metrics.probability_of_improvement(A, B)`, of each environment and of all."""
    by_env = [0.9333333333333333, 0.8833333333333333, 0.8666666666666667]
    assert probability(A.T, B.T).tolist() == pytest.approx(by_env)
    assert improvement(list(A.T), list(B.T)).value == pytest.approx(0.8944444444444445)


def test_ties_count_half_as_in_rliable() -> None:
    assert float(probability([1.0, 2, 2, 3, 5], [2.0, 2, 3, 4])) == pytest.approx(0.425)


def test_student_s_interval_is_scipy_s() -> None:
    """`scipy.stats.t.interval(0.95, 5, mean, sem)` of each column of A."""
    theirs = [
        (0.7594648064219565, 0.9972018602447101),
        (0.6712356228182286, 1.0887643771817719),
        (0.7413227737185921, 0.932677226281408),
    ]
    for seeds, ends in zip(A.T, theirs, strict=True):
        found = interval([seeds], "mean")
        assert found is not None
        assert (found.low, found.high) == pytest.approx(ends)


def test_the_percentile_bootstrap_of_ten_seeds_and_more_is_rliable_s_and_scipy_s() -> None:
    """`rly.get_interval_estimates` of C: 0.8385 to 1.1548; `scipy.stats.bootstrap`: 0.8413, 1.1538.

    Resampling alone moves the ends by some thousandths.
    """
    found = interval([C], "iqm")
    assert found is not None
    assert found.method == "percentile bootstrap"
    assert (found.low, found.high) == pytest.approx((0.8385, 1.15483333), abs=0.01)


def test_resampling_within_environments_is_rliable_s() -> None:
    """Its percentile interval of the IQM of A: 0.7918 to 0.9257."""
    ends = bootstrap(iqm, False, list(A.T), resamples=20_000)
    assert [float(end) for end in ends] == pytest.approx([0.7918, 0.9257], abs=0.006)


def test_ours_over_environments_is_wider_than_rliable_s_which_covers_too_little() -> None:
    found = interval(list(A.T), "iqm")
    assert found is not None
    assert found.low < 0.7918
    assert found.high > 0.9257
