"""Statistics over seeds: mean, median, interquartile mean, and their spread.

Plain NumPy on small arrays; it knows no runs. Confidence intervals are in `intervals`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Reduces the last axis: [..., n] -> [...]."""


def mean(values: Array) -> Array:
    """Return the mean over the last axis: [..., n] -> [...]."""
    return np.asarray(np.mean(values, axis=-1))


def mean_by_step(steps: Array, values: Array) -> tuple[Array, Array]:
    """Return the distinct steps [m], ascending, and the mean of the values [n] at each of them."""
    distinct, where = np.unique(steps, return_inverse=True)
    sums = np.bincount(where, weights=values, minlength=len(distinct))
    return distinct, sums / np.bincount(where, minlength=len(distinct))


def median(values: Array) -> Array:
    """Return the median over the last axis: [..., n] -> [...]."""
    return np.asarray(np.median(values, axis=-1))


def std(values: ArrayLike) -> float:
    """Return the standard deviation over all values, of the population (ddof=0)."""
    return float(np.std(np.asarray(values, dtype=float)))


def standard_error(values: ArrayLike) -> float | None:
    """Return the standard error of the mean (ddof=1); None of a single value."""
    array = np.asarray(values, dtype=float)
    return float(np.std(array, ddof=1) / np.sqrt(array.size)) if array.size > 1 else None


def cut(n: int) -> int:
    """Return how many of n values the interquartile mean leaves out at either end."""
    return n // 4


def iqm(values: Array) -> Array:
    """Return the interquartile mean over the last axis: [..., n] -> [...].

    int(n / 4) values are cut at either end, as scipy's `trim_mean(values, 0.25)` in rliable
    (Agarwal et al. 2021) does; with fewer than 4 values it is the mean.
    """
    n = np.shape(values)[-1]
    return mean(np.sort(values, axis=-1)[..., cut(n) : n - cut(n)])


CENTERS: dict[str, Statistic] = {"mean": mean, "median": median, "iqm": iqm}
"""What may stand in a table's cells, by the name that asks for it."""
