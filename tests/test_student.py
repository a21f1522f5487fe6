"""Student's t distribution, against printed tables and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dstrl_cli.report import student

PRINTED = {
    0.90: {1: 3.078, 2: 1.886, 5: 1.476, 10: 1.372, 30: 1.310},
    0.975: {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 19: 2.093, 120: 1.980},
    0.995: {1: 63.657, 2: 9.925, 4: 4.604, 10: 3.169, 60: 2.660},
}
"""Quantiles as every statistics book prints them: probability -> degrees of freedom -> t."""


@pytest.mark.parametrize("probability", PRINTED)
def test_quantiles_are_those_of_printed_tables(probability: float) -> None:
    printed = PRINTED[probability]
    found = student.quantile(probability, list(printed))
    assert found.round(3).tolist() == list(printed.values())


def test_with_many_degrees_of_freedom_it_is_the_normal_distribution() -> None:
    found = student.quantile(0.975, [1e4, 9.9e4, 1.1e5, 1e9])
    assert found == pytest.approx([1.960201240, 1.959988, 1.959985, 1.959963985], abs=1e-6)


def test_one_degree_of_freedom_is_cauchy_s_distribution() -> None:
    """P(T <= t) = 1/2 + arctan(t) / pi."""
    t = np.array([-30.0, -1.0, 0.0, 0.5, 1.0, 200.0])
    assert student.cdf(t, 1) == pytest.approx(0.5 + np.arctan(t) / math.pi, abs=1e-12)


def test_two_degrees_of_freedom_by_their_formula() -> None:
    """P(T <= t) = 1/2 + t / (2 sqrt(2 + t^2))."""
    t = np.array([-4.0, 0.1, 3.0])
    assert student.cdf(t, 2) == pytest.approx(0.5 + t / (2 * np.sqrt(2 + t * t)), abs=1e-12)


@settings(max_examples=40, deadline=None)
@example(0.50000001201, 2.0)
@given(st.floats(0.001, 0.999), st.floats(0.6, 1e4))
def test_a_quantile_has_the_probability_it_was_asked_for(probability: float, df: float) -> None:
    t = student.quantile(probability, df)
    assert float(student.cdf(t, df)) == pytest.approx(probability, abs=1e-9)
    mirrored = float(student.quantile(1 - probability, df))
    assert mirrored == pytest.approx(-float(t), rel=1e-6, abs=1e-9)


def test_it_agrees_with_scipy() -> None:
    scipy = pytest.importorskip("scipy.stats", reason="dstrl does not need SciPy")
    df = np.array([1.0, 1.5, 2.0, 4.7, 9.0, 33.3, 1000.0])
    for probability in (0.6, 0.9, 0.975, 0.999):
        assert student.quantile(probability, df) == pytest.approx(
            scipy.t.ppf(probability, df), rel=1e-9
        )
    t = np.linspace(-8, 8, 33)[:, None]
    assert student.cdf(t, df) == pytest.approx(scipy.t.cdf(t, df), abs=1e-12)
