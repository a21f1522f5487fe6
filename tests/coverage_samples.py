"""Simulated studies: how often intervals cover the true value.

`python tests/coverage_samples.py` prints the table of coverages; it takes some minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.report import improvement, intervals
from dstrl_cli.report.statistics import CENTERS

Array = NDArray[np.float64]
CHUNK = 50
"""Studies computed at once: their resamples take memory."""


def normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape)


def exponential(rng: np.random.Generator, *shape: int) -> Array:
    return rng.exponential(size=shape)


def failures(rng: np.random.Generator, *shape: int) -> Array:
    """One run of five fails and returns 0, the others return about 1."""
    return np.where(rng.random(shape) < 0.2, 0.0, rng.normal(1.0, 0.1, shape))


POPULATIONS = {"normal": normal, "exponential": exponential, "failures": failures}


@cache
def truth(population: str, center: str) -> float:
    """The center of the population itself, from a million values."""
    values = POPULATIONS[population](np.random.default_rng(99), 1_000_000)
    return float(CENTERS[center](values))


def coverage(
    population: str,
    center: str,
    n: int,
    envs: int = 1,
    studies: int = 1000,
    resamples: int | None = None,
) -> float:
    """Return in what percentage of studies the interval of `n` seeds covers the true value.

    `resamples` takes fewer than a table does.
    """
    rng = np.random.default_rng(n)
    method = intervals.choose(center, [n] * envs)
    assert method is not None
    bounds = method.bounds
    if resamples is not None and "bootstrap" in method.name:
        bounds = partial(bounds, resamples=resamples)
    target, covered = truth(population, center), 0
    for start in range(0, studies, CHUNK):
        size = min(CHUNK, studies - start)
        strata = [POPULATIONS[population](rng, size, n) for _ in range(envs)]
        low, high = bounds(strata)
        covered += int(((low <= target) & (target <= high)).sum())
    return 100 * covered / studies


def improvement_coverage(shift: float, n: int, envs: int, studies: int, seed: int = 0) -> float:
    """The same of the probability that normal runs beat others that are `shift` std worse."""
    rng = np.random.default_rng(seed)
    target, covered = NormalDist().cdf(shift / 2**0.5), 0
    for _ in range(studies):
        better, worse = rng.normal(size=(2, envs, n))
        interval = improvement.improvement(list(better + shift), list(worse)).interval
        assert interval is not None
        covered += interval[0] <= target <= interval[1]
    return 100 * covered / studies


def table(studies: int, seeds: tuple[int, ...] = (3, 5, 10, 20)) -> Iterator[str]:
    """Yield the lines of the table of coverages, in Markdown; standard error 0.5."""
    heads = " | ".join(f"{name}, n = {' '.join(map(str, seeds))}" for name in POPULATIONS)
    yield f"| interval | {heads} |"
    yield "|---|" + "---|" * len(POPULATIONS)
    for envs in (1, 2, 5):
        for center in CENTERS:
            rows = [_row(name, center, seeds, envs, studies) for name in POPULATIONS]
            where = f"{center} of a cell" if envs == 1 else f"{center} over {envs} environments"
            yield f"| {where} | {' | '.join(rows)} |"


def _row(population: str, center: str, seeds: tuple[int, ...], envs: int, studies: int) -> str:
    enough = [bool(intervals.choose(center, [n] * envs)) for n in seeds]
    cells: list[str] = [
        f"{coverage(population, center, n, envs, studies, resamples=2000):.0f}" if exists else "–"
        for n, exists in zip(seeds, enough, strict=True)
    ]
    return " ".join(cells)


def main(print_line: Callable[[str], None] = print) -> None:
    for line in table(studies=2000):
        print_line(line)


if __name__ == "__main__":
    main()
