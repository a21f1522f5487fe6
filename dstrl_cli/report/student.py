"""Student's t distribution: its probabilities and quantiles, for any real degrees of freedom.

Written out because SciPy is not among the packages that dstrl needs. All functions take arrays.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MAX_TERMS = 500
"""Terms of the continued fraction; it needs about as many as the root of the degrees of freedom."""

MAX_STEPS = 100
LARGE_DF = 1e5
"""From here on an expansion about the normal distribution is exact to ten digits."""

TINY = 1e-300
"""What stands for a zero that would be divided by."""

_log_gamma = np.frompyfunc(math.lgamma, 1, 1)


def cdf(t: ArrayLike, df: ArrayLike) -> Array:
    """Return P(T <= t) for T of Student's t distribution with `df` > 0 degrees of freedom."""
    t, df = np.broadcast_arrays(np.asarray(t, dtype=float), np.asarray(df, dtype=float))
    x, rest = df / (df + t * t), t * t / (df + t * t)
    tail = 0.5 * _incomplete_beta(df / 2, np.full(df.shape, 0.5), x, rest)
    return np.where(t > 0, 1 - tail, tail)


def density(t: ArrayLike, df: ArrayLike) -> Array:
    """Return the density of Student's t distribution with `df` degrees of freedom at `t`."""
    t, df = np.asarray(t, dtype=float), np.asarray(df, dtype=float)
    log_peak = -0.5 * np.log(df) - _log_beta(df / 2, np.full(df.shape, 0.5))
    return np.asarray(np.exp(log_peak - (df + 1) / 2 * np.log1p(t * t / df)))


def quantile(probability: float, df: ArrayLike) -> Array:
    """Return the t with P(T <= t) = `probability`, which lies strictly between 0 and 1."""
    if probability < 0.5:
        return -quantile(1 - probability, df)
    df = np.asarray(df, dtype=float)
    normal = NormalDist().inv_cdf(probability)
    expanded = normal + (normal**3 + normal) / (4 * df)  # Abramowitz and Stegun 26.7.5
    return np.where(
        df >= LARGE_DF, expanded, _solved(probability, np.minimum(df, LARGE_DF), normal)
    )


def _solved(probability: float, df: Array, start: float) -> Array:
    """Return the quantile by Newton's steps from one that is smaller.

    The distribution function is concave above 0, so that no step passes the solution.
    """
    t = np.full(df.shape, start)
    for _ in range(MAX_STEPS):
        step = (probability - cdf(t, df)) / density(t, df)
        t = t + step
        if np.all(step <= 1e-13 * t):
            break
    return t


def _incomplete_beta(a: Array, b: Array, x: Array, rest: Array) -> Array:
    """Return the regularised incomplete beta function I_x(a, b), for 0 <= x <= 1.

    The continued fraction of Numerical Recipes 6.4, on the side on which it converges fast. `rest`
    is 1 - x, which has no digits left where it is computed from an x near 1.
    """
    swapped = x > (a + 1) / (a + b + 2)
    p, q, z = np.where(swapped, b, a), np.where(swapped, a, b), np.where(swapped, rest, x)
    with np.errstate(divide="ignore"):  # the logarithm of 0 at the ends, where the value is 0
        log_front = p * np.log(z) + q * np.log1p(-z) - np.log(p) - _log_beta(p, q)
    value = np.exp(log_front) * _fraction(p, q, z)
    return np.where(swapped, 1 - value, value)


def _log_beta(a: Array, b: Array) -> Array:
    first, second, both = (np.asarray(_log_gamma(each), dtype=float) for each in (a, b, a + b))
    return np.asarray(first + second - both)


def _fraction(a: Array, b: Array, x: Array) -> Array:
    """Return the continued fraction of the incomplete beta function by Lentz's method."""
    c = np.ones(x.shape)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            value = value * c * d
        if np.all(np.abs(c * d - 1) < 1e-14):
            break
    return value


def _away_from_zero(values: Array) -> Array:
    return np.where(np.abs(values) < TINY, TINY, values)
