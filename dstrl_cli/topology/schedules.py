"""How the fraction of connections that a topology update exchanges moves through training.

A schedule is a class with one method, also somebody else's, named `module:Class`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from typing_extensions import override

from dstrl_cli.config.rulekeys import TopologyConfig


class Schedule(ABC):
    """The fraction of the active connections of a layer that a topology update exchanges.

    Args:
        config: the keys of the rule; `drop_fraction` is where the papers' schedules start.
    """

    def __init__(self, config: TopologyConfig) -> None:
        self.drop_fraction = config.drop_fraction

    @abstractmethod
    def fraction(self, progress: float) -> float:
        """Return the fraction in [0, 1] at a progress in [0, 1].

        Progress is the network's updates so far over those after which its topology stays as it
        is: the whole run, less `stop_before_end`. In a run of N episodes it is the same share of
        its episodes, where that is more.
        """


class Static(Schedule):
    """The topology never changes."""

    @override
    def fraction(self, progress: float) -> float:
        return 0.0


class Constant(Schedule):
    """The same fraction at every topology update (SOK Alg. 1; XU Sec. V-D)."""

    @override
    def fraction(self, progress: float) -> float:
        return self.drop_fraction


class Cosine(Schedule):
    """From the whole fraction at the start down to none at the end, along a cosine (RLX 4.1)."""

    @override
    def fraction(self, progress: float) -> float:
        return self.drop_fraction / 2 * (1 + math.cos(math.pi * progress))
