"""Statistics over seeds: mean, standard deviation, interquartile mean, bootstrap intervals.

Plain NumPy on small arrays, as Agarwal et al. (2021, rliable) define them; it knows no runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SEEDS = 3
"""Fewest seeds with an interval: a bootstrap of one or two values says nothing of their spread."""

CONFIDENCE = 0.95
RESAMPLES = 5_000
Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Reduces the last axis: [..., n] -> [...]."""


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float


def mean(values: Array) -> Array:
    """Return the mean over the last axis: [..., n] -> [...]."""
    return np.asarray(np.mean(values, axis=-1))


def std(values: ArrayLike) -> float:
    """Return the standard deviation over all values, of the population (ddof=0)."""
    return float(np.std(np.asarray(values, dtype=float)))


def iqm(values: Array) -> Array:
    """Return the interquartile mean over the last axis: [..., n] -> [...].

    int(n / 4) values are cut at either end, as scipy's `trim_mean(values, 0.25)` in rliable does;
    with fewer than 4 values it is the mean.
    """
    n = np.shape(values)[-1]
    cut = int(0.25 * n)
    return mean(np.sort(values, axis=-1)[..., cut : n - cut])


CENTERS: dict[str, Statistic] = {"mean": mean, "iqm": iqm}


def stratified_bootstrap(
    strata: Sequence[ArrayLike],
    statistic: Statistic,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Return the percentile bootstrap interval of `statistic` over all strata pooled.

    Args:
        strata: the values of each stratum, one per seed; a table cell is one stratum, an
            aggregate over environments has one per environment. Seeds are drawn with replacement
            within their stratum, so that every resample has the same number of each.
        statistic: what is estimated.
        confidence: coverage of the interval.
        resamples: number of bootstrap resamples.

    The result is the same on every call. None where a stratum has fewer than `MIN_SEEDS` values.
    """
    arrays = [np.asarray(values, dtype=float) for values in strata]
    if not arrays or min(len(values) for values in arrays) < MIN_SEEDS:
        return None
    indices = _resampled(tuple(map(len, arrays)), resamples)
    drawn = [values[each] for values, each in zip(arrays, indices, strict=True)]  # [resamples, n]
    estimates = statistic(np.concatenate(drawn, axis=1))  # [resamples]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(estimates, [tail, 100 - tail])
    return Interval(float(low), float(high))


@lru_cache(maxsize=16)
def _resampled(counts: tuple[int, ...], resamples: int) -> list[NDArray[np.int64]]:
    """Return which seeds each resample draws, [resamples, n] per stratum of n seeds.

    The cells of a table mostly have the same number of seeds, so that drawing once is enough.
    """
    rng = np.random.default_rng(0)
    return [rng.integers(count, size=(resamples, count)) for count in counts]
