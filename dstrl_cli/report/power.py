"""The power of a plan of comparisons, simulated: how many differences it finds, by which seeds.

Scores are drawn from normal distributions of equal spread. As for every test, a difference that is
not found is not shown to be absent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dstrl_cli.report.permutation import Plan, decide

STUDIES = 1_000
PERMUTATIONS = 499
"""Fewer than in a real test, which they make a little less powerful, so that it takes seconds."""


@dataclass(frozen=True)
class Power:
    """What simulated studies found.

    Attributes:
        found: share of the differences that were decided, the right way.
        seeds: of each method, on average over comparisons and studies.
        studies: how many were simulated.
    """

    found: float
    seeds: float
    studies: int


def power(
    plan: Plan, *, effect: float = 1.0, comparisons: int = 1, studies: int = STUDIES
) -> Power:
    """Return the power of a plan with a number of seeds per round.

    `effect` is the difference in each of the comparisons, in standard deviations of the seeds of
    one method. The result is the same on every call.
    """
    each_round = plan.seeds
    if each_round is None:
        raise ValueError("a plan without a number of seeds has no power")
    plan = replace(plan, permutations=min(plan.permutations, PERMUTATIONS))
    studies = max(studies // comparisons, 100)
    rng = np.random.default_rng(0)
    found, seeds = 0, 0
    for _ in range(studies):
        first, second = rng.normal(size=(2, comparisons, plan.rounds * each_round))
        decided = decide(list(zip(first + effect, second, strict=True)), plan).decisions
        found += sum(each.sign == 1 for each in decided)
        seeds += sum(each.seeds[0] for each in decided)
    return Power(found / (studies * comparisons), seeds / (studies * comparisons), studies)
