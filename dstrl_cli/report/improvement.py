"""The probability that a run of one method beats a run of another, and its 95 % interval.

The probability of improvement of Agarwal et al. (2021): over all pairs of a run of each, the share
that the first wins; a tie counts half. It is Mann and Whitney's statistic, and needs no common
scale, so that it can be averaged over environments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dstrl_cli.report.intervals import MIN_SEEDS, UPPER, critical

Array = NDArray[np.float64]

BISECTIONS = 50
NORMAL = NormalDist().inv_cdf(UPPER)
METHOD = "Newcombe's score interval"


@dataclass(frozen=True)
class Improvement:
    """One method's probability of improvement over another; no interval below three seeds."""

    value: float
    interval: tuple[float, float] | None


def probability(first: ArrayLike, second: ArrayLike) -> Array:
    """Return the share of pairs that the first wins: [..., n], [..., m] -> [...]."""
    a, b = np.asarray(first, dtype=float)[..., None], np.asarray(second, dtype=float)[..., None, :]
    return np.asarray(((a > b) + 0.5 * (a == b)).mean((-2, -1)))


def bounds(value: Array, n: int, m: int, width: float = NORMAL) -> tuple[Array, Array]:
    """Return the interval of a probability [...] that was estimated from n and m runs.

    Newcombe (2006, Statistics in Medicine 25:559, method 5): all probabilities from which the
    estimate is not further than `width` standard errors, each with the standard error that it
    implies itself. So it has an interval too where all runs of one method beat all of the other.
    """
    value = np.asarray(value, dtype=float)
    return (
        _solve(value, np.zeros_like(value), width, n, m),
        _solve(value, np.ones_like(value), width, n, m),
    )


def _solve(value: Array, end: Array, width: float, n: int, m: int) -> Array:
    """Halve the way between the estimate, which is inside, and an end of [0, 1]."""
    inside, outside = value, end
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        holds = np.abs(value - middle) <= width * _standard_error(middle, n, m)
        inside, outside = np.where(holds, middle, inside), np.where(holds, outside, middle)
    return (inside + outside) / 2


def _standard_error(theta: Array, n: int, m: int) -> Array:
    """Return the standard error where the probability is `theta` (Hanley and McNeil 1982)."""
    others = (n + m) / 2 - 1
    shared = (1 - theta) / (2 - theta) + theta / (1 + theta)
    return np.asarray(np.sqrt(theta * (1 - theta) * (1 + others * shared) / (n * m)))


def improvement(first: Sequence[ArrayLike], second: Sequence[ArrayLike]) -> Improvement:
    """Return the probability that the first method beats the second, averaged over environments.

    The two sequences have the runs of each environment. The interval of an average adds up the
    squares of how far the environments' intervals reach from their estimates, each computed with
    Student's t (n + m - 2 degrees of freedom), without which it would cover 90 % at three runs.
    """
    pairs = [
        (np.asarray(a, float), np.asarray(b, float)) for a, b in zip(first, second, strict=True)
    ]
    values = np.array([float(probability(a, b)) for a, b in pairs])
    middle = float(values.mean())
    if min(min(len(a), len(b)) for a, b in pairs) < MIN_SEEDS:
        return Improvement(middle, None)
    ends = []
    for value, (a, b) in zip(values, pairs, strict=True):
        width = NORMAL if len(pairs) == 1 else critical(len(a) + len(b) - 2)
        ends.append(bounds(value, len(a), len(b), width))
    lows, highs = np.array(ends, dtype=float).T
    low = middle - math.sqrt(((values - lows) ** 2).sum()) / len(pairs)
    high = middle + math.sqrt(((highs - values) ** 2).sum()) / len(pairs)
    return Improvement(middle, (low, high))
