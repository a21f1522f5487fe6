"""Which methods differ: group-sequential permutation tests with one error for all comparisons.

As in AdaStop (Mathieu et al., TMLR 2024): seeds come in rounds; after each round all comparisons
still open are looked at, and those whose difference is beyond what permuted scores show are
decided. The probability of any wrong decision, over all comparisons and all rounds together, is
`alpha`: exactly for two methods, a little less for more. Simulated at 0.05 with six methods that
do not differ (`tests/power_samples.py`): 0.042 in one environment with five seeds, in four
environments 0.040 with five and 0.041 with ten.
Numbers of rounds and seeds and the comparisons must be fixed before the first look.

Two things differ from the authors' package `adastop`. Both the difference and its permutations are
taken without their sign (in the package only the difference is, which doubles the error). And each
difference is in a unit of its own, the standard error that the scores compared imply if they are of
one method, which no permutation changes. This leaves the test of one comparison as it is. Of many,
which are held against the largest permuted difference among them (Westfall and Young 1993), it
keeps noisy methods, and those with few seeds, from hiding differences of others, and lets
environments of any scale share one error.

The hypothesis that is rejected is that two methods' scores have one distribution, not that their
means are equal: equal means with very different spread are told apart too often.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

PERMUTATIONS = 9_999
FAR = 1e6
"""How far apart scores are that differ as much as can be."""

DECIMALS = 9
"""Digits that differences keep: equal ones would else differ by their rounding."""

EQUAL = 1e-13
"""Scores whose standard deviation is a smaller share of the largest of them are equal."""


@dataclass(frozen=True)
class Plan:
    """What is fixed before the first look.

    Attributes:
        rounds: how often is looked at most.
        seeds: seeds of each method that a round adds; None, of one round alone, takes all there
            are.
        alpha: probability of any wrong decision.
        permutations: how many are drawn for each comparison and round.
    """

    rounds: int = 1
    seeds: int | None = None
    alpha: float = 0.05
    permutations: int = PERMUTATIONS

    @property
    def can_decide(self) -> bool:
        """Whether scores as far apart as can be would be told apart at any of the looks."""
        if self.seeds is None:
            return True
        scores = np.arange(float(self.rounds * self.seeds))
        (apart,) = decide([(scores + FAR, scores)], self).decisions
        return apart.sign != 0


def smallest_p(first: int, second: int) -> float:
    """Return the least p that two methods with these numbers of seeds can have.

    Of all ways to deal out the scores, the one observed is as extreme as any, and so is its mirror
    image where both have as many.
    """
    return (2 if first == second else 1) / math.comb(first + second, first)


@dataclass(frozen=True)
class Decision:
    """What is known of one comparison.

    Attributes:
        sign: 1 where the first method is better, -1 where the second is, 0 where it is open.
        difference: mean of the first minus mean of the second, over the seeds looked at.
        seeds: of each of the two, how many were looked at.
        p: adjusted for all comparisons; None where there are several rounds.
    """

    sign: int
    difference: float
    seeds: tuple[int, int]
    p: float | None = None


@dataclass(frozen=True)
class Study:
    """The decisions, one per comparison, and what the next look waits for.

    Attributes:
        decisions: in the order of the comparisons.
        looks: how many rounds were looked at.
        waiting: the comparisons that lack seeds for the next round; where there are any, nothing
            further was looked at.
        given_up: the comparisons that lacked seeds for a round and get no more.
    """

    decisions: tuple[Decision, ...]
    looks: int
    waiting: tuple[int, ...]
    given_up: tuple[int, ...] = ()


@dataclass
class _Comparison:
    """Sums of differences over rounds; `null` has them after each look, [permutations + 1].

    Entry 0 is the difference as observed: it counts as one of its own permutations. The unit is the
    standard error that it had if all scores looked at were of one method.
    """

    first: Array
    second: Array
    total: Array | float = 0.0
    null: list[Array] = field(default_factory=list)

    def look(self, number: int, slot: int, plan: Plan) -> None:
        """Take in the scores of the next round."""
        start = 0 if plan.seeds is None else number * plan.seeds
        stop = None if plan.seeds is None else start + plan.seeds
        a, b = self.first[start:stop], self.second[start:stop]
        pooled = np.concatenate([a, b])
        drawn = _drawn(slot, number, len(a), len(b), plan.permutations).astype(float)
        difference = drawn @ (pooled - pooled.mean()) * (1 / len(a) + 1 / len(b))
        self.total = self.total + difference
        first, second = self.first[:stop], self.second[:stop]
        seen = np.concatenate([first, second])
        unit = float(np.std(seen)) * math.sqrt(1 / len(first) + 1 / len(second))
        if unit <= EQUAL * np.max(np.abs(seen)):  # equal scores: only rounding differs
            unit, self.total = 1.0, np.zeros(plan.permutations + 1)
        self.null.append(np.round(np.abs(self.total) / unit, DECIMALS))

    def decision(self, plan: Plan, decided: bool) -> Decision:
        """Return what is known after the looks taken."""
        stop = None if plan.seeds is None else len(self.null) * plan.seeds
        a, b = self.first[:stop], self.second[:stop]
        difference = float(np.mean(a) - np.mean(b)) if len(a) and len(b) else math.nan
        sign = int(np.sign(difference)) if decided else 0
        return Decision(sign, difference, (len(a), len(b)))


def decide(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]],
    plan: Plan,
    closed: Collection[int] = (),
) -> Study:
    """Look at the scores of all comparisons, round by round, and decide what can be decided.

    The same scores give the same decisions on every call, and scores that are added later change
    no decision made before. Scores beyond the last round are not looked at.

    Args:
        pairs: of each comparison the scores of both methods, higher ones being better. What is
            decided needs no further scores.
        plan: fixed before the first look.
        closed: comparisons that get no more seeds. At the first round for which they lack some
            they are given up: they stay undecided, and the others go on without them, by the
            same error: what the earlier rounds spent stays spent.
    """
    comparisons = [_Comparison(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs]
    open_ = list(range(len(comparisons)))
    looks = 0
    waiting: list[int] = []
    given_up: list[int] = []
    while open_ and looks < plan.rounds:
        lacking = [slot for slot in open_ if _lacks_seeds(comparisons[slot], looks, plan)]
        waiting = [slot for slot in lacking if slot not in closed]
        if waiting:
            break
        given_up += lacking
        open_ = [slot for slot in open_ if slot not in lacking]
        if not open_:
            break
        for slot in open_:
            comparisons[slot].look(looks, slot, plan)
        looks += 1
        while open_ and (found := _beyond([comparisons[slot].null for slot in open_], plan)):
            open_ = [slot for position, slot in enumerate(open_) if position not in found]
    decisions = [
        each.decision(plan, decided=slot not in (*open_, *given_up))
        for slot, each in enumerate(comparisons)
    ]
    if plan.rounds == 1 and not waiting:
        looked = [slot for slot in range(len(comparisons)) if slot not in given_up]
        adjusted = _adjusted([comparisons[slot].null[0] for slot in looked])
        for slot, p in zip(looked, adjusted, strict=True):
            decisions[slot] = replace(decisions[slot], p=p)
    return Study(tuple(decisions), looks, tuple(waiting), tuple(given_up))


def _lacks_seeds(comparison: _Comparison, looks: int, plan: Plan) -> bool:
    fewest = min(len(comparison.first), len(comparison.second))
    return fewest < (1 if plan.seeds is None else (looks + 1) * plan.seeds)


def _beyond(nulls: Sequence[list[Array]], plan: Plan) -> list[int]:
    """Return which of the open comparisons are decided at this look: positions in `nulls`.

    Args:
        nulls: of each open comparison its differences at every look, [permutations + 1] each.
    """
    looks = len(nulls[0])
    largest = [np.max([null[look] for null in nulls], axis=0) for look in range(looks)]
    limit = _limit(largest, plan)
    return [position for position, null in enumerate(nulls) if null[-1][0] > limit]


def _limit(largest: Sequence[Array], plan: Plan) -> float:
    """Return what a difference must exceed at the last of these looks.

    By look k at most the share alpha k / rounds of all permutations has exceeded a limit: a
    permutation that did so at an earlier look is spent.

    Args:
        largest: at every look the largest difference over the open comparisons,
            [permutations + 1].
    """
    unspent = np.ones(len(largest[0]), dtype=bool)
    limit = math.inf
    for look, values in enumerate(largest, start=1):
        allowed = math.floor(plan.alpha * look / plan.rounds * len(values) + 1e-9)
        left = allowed - int((~unspent).sum())
        candidates = values[unspent]
        limit = -math.inf
        if left < len(candidates):
            rank = len(candidates) - 1 - left  # the largest value that may not be exceeded
            limit = float(np.partition(candidates, rank)[rank])
        unspent &= values <= limit
    return limit


def _adjusted(nulls: Sequence[Array]) -> list[float]:
    """Return step-down p-values over all comparisons of one look (Westfall and Young 1993)."""
    order = sorted(range(len(nulls)), key=lambda slot: -float(nulls[slot][0]))
    adjusted = [0.0] * len(nulls)
    highest = 0.0
    largest = np.zeros(len(nulls[0])) if nulls else np.zeros(0)
    shares = {}
    for slot in reversed(order):  # from the smallest difference on, so that sets grow
        largest = np.maximum(largest, nulls[slot])
        shares[slot] = float(np.mean(largest >= nulls[slot][0]))
    for slot in order:
        highest = max(highest, shares[slot])
        adjusted[slot] = highest
    return adjusted


@lru_cache(maxsize=64)
def _drawn(slot: int, look: int, a: int, b: int, permutations: int) -> NDArray[np.bool_]:
    """Return which of the pooled scores count as the first method's, [permutations + 1, a + b].

    Row 0 leaves the scores where they are. Comparisons and looks permute independently.
    """
    rng = np.random.default_rng([slot, look])
    order = rng.random((permutations, a + b), dtype=np.float32).argsort(axis=1)
    return np.concatenate([np.arange(a + b)[None], order]) < a
