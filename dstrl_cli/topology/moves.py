"""How a layer's number of connections moves from that at the start to that at the end of a run.

A way of moving is a class with one method, also somebody else's, named `module:Class`. Plain
arithmetic, no tensors, so that planning needs no torch. Which connections come and go is decided by
scores.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from typing_extensions import override

from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.registry import BUDGETS, load


class Budget(ABC):
    """How a density moves between the updates of `budget_start` and of `budget_end`.

    Args:
        config: the keys of the rule.
    """

    def __init__(self, config: TopologyConfig) -> None:
        self.config = config

    @abstractmethod
    def moved(self, progress: float) -> float:
        """Return which share of the way from first to last density is done, in [0, 1].

        Progress runs from 0 at `budget_start` to 1 at `budget_end`, where the share must be 1.
        """


class Constant(Budget):
    """The number of connections stays as it is: there is no way to go."""

    @override
    def moved(self, progress: float) -> float:
        return 1.0


class Linear(Budget):
    """By the same number at every topology update (the growth of Liu et al. 2025, NE's code)."""

    @override
    def moved(self, progress: float) -> float:
        return progress


class Cubic(Budget):
    """Fast at first and slow in the end: 1 - (1 - p)^3 (Zhu and Gupta 2017, eq. 1)."""

    @override
    def moved(self, progress: float) -> float:
        return 1.0 - (1.0 - progress) ** 3


class AtOnce(Budget):
    """All at once at `budget_start`."""

    @override
    def moved(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class LayerMove:
    """The way of one layer of one member.

    Attributes:
        size: connections of the full layer.
        densities: shares of them that are active at first and at last.
        budgets: the whole numbers that belong to the densities.
    """

    size: int
    densities: tuple[float, float]
    budgets: tuple[int, int]

    @property
    def rises(self) -> bool:
        """Whether the layer has more connections in the end."""
        return self.budgets[1] > self.budgets[0]

    def target(self, moved: float) -> int:
        """Return the active connections after the share `moved` of the way.

        That is size * density, rounded, and exactly the last budget at the end of the way.
        """
        if moved == 1.0:
            return self.budgets[1]
        first, last = self.densities
        found = math.floor(round(self.size * (first + (last - first) * moved), 6) + 0.5)
        return min(max(found, min(self.budgets)), max(self.budgets))


SAMPLES = 1000
"""Moments of a run of which the mean share is taken."""


def mean_moved(config: TopologyConfig) -> float:
    """Return the share of the way that is done, averaged over a run."""
    budget: Budget = load(BUDGETS, config.budget)(config)
    start, end = config.budget_window
    total = 0.0
    for sample in range(SAMPLES):
        now = (sample + 0.5) / SAMPLES
        if now >= end:
            total += 1.0
        elif now >= start:
            total += budget.moved((now - start) / (end - start))
    return total / SAMPLES
