"""Simulated studies: how often tests of methods find a difference, or one that is none.

`python tests/power_samples.py` prints the power at a difference of one standard deviation, and how
often any of six methods that do not differ is called different; it takes some minutes.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from dstrl_cli.report.permutation import Plan, decide


class Rates(NamedTuple):
    """Shares of studies with any wrong decision, and of differences found; seeds of a method."""

    wrong: float
    found: float
    seeds: float


def rates(
    effects: list[float],
    plan: Plan,
    studies: int,
    deviations: float = 1.0,
    environments: int = 1,
    seed: int = 0,
) -> Rates:
    """Simulate studies of methods with these means, in standard deviations, in each environment.

    `deviations` is the standard deviation of the first method; that of the others is 1.
    """
    rng = np.random.default_rng(seed)
    assert plan.seeds is not None
    methods = len(effects)
    pairs = [
        (env * methods + a, env * methods + b)
        for env in range(environments)
        for a, b in combinations(range(methods), 2)
    ]
    effects = effects * environments
    truths = np.array([np.sign(effects[a] - effects[b]) for a, b in pairs])
    wrong, found, seeds = [], [], []
    for _ in range(studies):
        scores = rng.normal(size=(len(effects), plan.rounds * plan.seeds))
        scores[::methods] *= deviations
        scores += np.array(effects)[:, None]
        decisions = decide([(scores[a], scores[b]) for a, b in pairs], plan).decisions
        signs = np.array([each.sign for each in decisions])
        wrong.append(((signs != 0) & (signs != truths)).any())
        found.append((signs == truths)[truths != 0].mean() if truths.any() else 1.0)
        used = [0] * len(effects)
        for (a, b), decision in zip(pairs, decisions, strict=True):
            used[a], used[b] = (max(used[k], decision.seeds[0]) for k in (a, b))
        seeds.append(np.mean(used))
    return Rates(float(np.mean(wrong)), float(np.mean(found)), float(np.mean(seeds)))


def main() -> None:
    for rounds, seeds in ((1, 5), (1, 10), (1, 20), (4, 5)):
        found = rates([1.0, 0.0], Plan(rounds, seeds), studies=10_000)
        print(
            f"{rounds} look{'s' * (rounds > 1)} of {seeds} seeds: {found.found:.1%} found, "
            f"{found.seeds:.1f} seeds on average"
        )
    for environments, seeds in ((1, 5), (4, 5), (4, 10)):
        plan = Plan(1, seeds, permutations=999)
        wrong = np.mean(
            [
                rates([0.0] * 6, plan, studies=1_500, environments=environments, seed=seed).wrong
                for seed in range(4)
            ]
        )
        named = "environment" if environments == 1 else "environments"
        print(f"six equal methods in {environments} {named}, {seeds} seeds: {wrong:.1%} wrong")
    plan = Plan(1, 5, permutations=999)
    for named, deviations in (("as noisy", 1.0), ("five times as noisy", 5.0)):
        found = rates([0.0, 0.0, 0.0, 2.0, 2.0, 4.0], plan, 2_000, deviations)
        print(
            f"six methods with means 0, 0, 0, 2, 2, 4, one of them {named}, 5 seeds: "
            f"{found.found:.1%} found, {found.wrong:.1%} wrong"
        )


if __name__ == "__main__":
    main()
