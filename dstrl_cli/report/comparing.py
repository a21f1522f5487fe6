"""`dstrl table --test`: which methods of a table differ, tested together (`permutation`).

Compared are the methods of a section in each environment, by the seeds' values in ascending order
of the seeds. All comparisons of one table share the probability of an error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.config.ranges import parse_names
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.permutation import PERMUTATIONS, Decision, Plan, decide, smallest_p
from dstrl_cli.report.table import DENSE, Comparison, Comparisons, Row, Section
from dstrl_cli.report.words import counted

BETTER = {1: "first", -1: "second", 0: "undecided"}
"""Which method of a comparison is better, by the sign of its decision: for programs."""

MAX_LISTED = 5
ALPHA = 0.05


@dataclass(frozen=True)
class Asked:
    """What is to be tested.

    Attributes:
        plan: fixed before any seed was looked at.
        pairs: the comparisons wanted, as `our-rlx2:rlx2`; none means all.
        flag: the option that named them, for messages.
    """

    plan: Plan
    pairs: tuple[str, ...] = ()
    flag: str = "--pairs"


def asked_test(
    wanted: bool,
    pairs: str | None = None,
    alpha: float | None = None,
    max_seeds: int | None = None,
    seeds_per_round: int | None = None,
) -> Asked | None:
    """Return the test that the command line asks for, or None.

    Without `max_seeds` and `seeds_per_round` all seeds that there are make up its only round.
    Raises InputError where options contradict each other.
    """
    options = {
        "--pairs": pairs,
        "--alpha": alpha,
        "--max-seeds": max_seeds,
        "--seeds-per-round": seeds_per_round,
    }
    if not wanted:
        given = [name for name, value in options.items() if value is not None]
        if given:
            raise InputError(f"{given[0]} says how to test: give --test too, or leave it out")
        return None
    plan = make_plan(ALPHA if alpha is None else alpha, max_seeds, seeds_per_round)
    return Asked(plan, tuple(parse_names(pairs, "--pairs")) if pairs is not None else ())


MAX_SEEDS, SEEDS_PER_ROUND = 20, 5
"""Of a sweep that adds seeds until its comparisons are decided, where nobody says more."""

UNTIL_DECIDED = "--until-decided"
NOTHING = "none"
"""What `--until-decided` says against a preset that names comparisons."""


def asked_rounds(
    pairs: str | None,
    alpha: float | None = None,
    max_seeds: int | None = None,
    seeds_per_round: int | None = None,
) -> Asked | None:
    """Return what a sweep is to decide, or None. Raises InputError where options contradict."""
    options = {"--max-seeds": max_seeds, "--seeds-per-round": seeds_per_round, "--alpha": alpha}
    if pairs is None or pairs == NOTHING:
        given = [name for name, value in options.items() if value is not None]
        if given and pairs != NOTHING:
            raise InputError(
                f"{given[0]} says how to add seeds: give {UNTIL_DECIDED} too, as in "
                f"{UNTIL_DECIDED} our-rlx2:rlx2, or leave it out"
            )
        return None
    size = seeds_per_round
    if size is None:
        size = SEEDS_PER_ROUND if max_seeds is None else min(SEEDS_PER_ROUND, max_seeds)
    most = max(MAX_SEEDS // size, 1) * size if max_seeds is None else max_seeds
    plan = make_plan(ALPHA if alpha is None else alpha, most, size)
    if not plan.can_decide:
        rounds = next(n for n in count(plan.rounds) if replace(plan, rounds=n).can_decide)
        raise InputError(
            f"--max-seeds {most}: so few seeds can decide nothing at --alpha {plan.alpha:g}, "
            f"however far apart their scores are; give {rounds * size} or more"
        )
    return Asked(plan, tuple(parse_names(pairs, UNTIL_DECIDED)), UNTIL_DECIDED)


def make_plan(alpha: float, max_seeds: int | None, seeds_per_round: int | None) -> Plan:
    """Return the plan of a test. Raises InputError where the numbers do not fit together."""
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha:g}: a probability of error lies between 0 and 1, as 0.05")
    least = 1 / (PERMUTATIONS + 1)
    if alpha < least:
        raise InputError(
            f"--alpha {alpha:g}: of {PERMUTATIONS:,} permutations none can show an error below "
            f"{least:g}; give {least:g} or more"
        )
    if max_seeds is None and seeds_per_round is None:
        return Plan(alpha=alpha)
    if max_seeds is None or seeds_per_round is None:
        raise InputError(
            "--max-seeds and --seeds-per-round: give both (seeds of a method after the last round, "
            "and in each), or none for one test of all seeds that there are"
        )
    if max_seeds % seeds_per_round:
        raise InputError(
            f"--max-seeds {max_seeds}: rounds have {counted(seeds_per_round, 'seed')}; give "
            f"{seeds_per_round * math.ceil(max_seeds / seeds_per_round)}, or another "
            "--seeds-per-round"
        )
    return Plan(rounds=max_seeds // seeds_per_round, seeds=seeds_per_round, alpha=alpha)


CellName = tuple[str, str, str, str]
"""Algorithm, sparsity label, method and environment of a cell."""


def compare(
    sections: Sequence[Section], test: Asked, closed: Collection[CellName] = ()
) -> Comparisons:
    """Test the methods of a table against one another.

    `sections` have values as logged; cells of unfinished runs alone take no part, and those in
    `closed` get no more seeds. Raises InputError where a pair names no method of the table, or
    nothing is left to compare.
    """
    wanted = _parse_pairs(test, sections)
    found = list(_candidates(sections, wanted))
    if not found:
        raise InputError("--test: no two methods have finished runs in one section and environment")
    scores = [(_scores(first, env), _scores(second, env)) for _, env, first, second in found]
    ended = [
        slot for slot, each in enumerate(found) if any(name in closed for name in cell_names(*each))
    ]
    study = decide(scores, test.plan, ended)
    compared = [
        Comparison(*each, decision) for each, decision in zip(found, study.decisions, strict=True)
    ]
    waiting = tuple(compared[index] for index in study.waiting)
    given_up = tuple(compared[index] for index in study.given_up)
    absent = (wanted or set()) - {(first.method, second.method) for _, _, first, second in found}
    missing = tuple(f"{first}:{second}" for first, second in sorted(absent))
    return Comparisons(test.plan, tuple(compared), study.looks, waiting, missing, given_up)


def cell_names(section: Section, env: str, first: Row, second: Row) -> tuple[CellName, CellName]:
    """Return the cells that a comparison is about; those of dense methods have no sparsity."""
    a, b = (
        (section.algo, DENSE if row.dense else section.sparsity_in(env), row.method, env)
        for row in (first, second)
    )
    return a, b


def _parse_pairs(test: Asked, sections: Sequence[Section]) -> set[tuple[str, str]] | None:
    methods = {row.method for section in sections for row in section.rows}
    wanted: set[tuple[str, str]] = set()
    for pair in test.pairs:
        first, _, second = pair.partition(":")
        if not (first and second) or first == second:
            raise InputError(f"{test.flag} {pair!r}: give two methods as our-rlx2:rlx2")
        if (second, first) in wanted:
            raise InputError(
                f"{test.flag}: {second}:{first} and {pair} are one comparison; give one of them"
            )
        for method in (first, second):
            if method not in methods:
                raise InputError(suggest(f"method of {test.flag}", method, methods))
        wanted.add((first, second))
    return wanted or None


def _candidates(
    sections: Sequence[Section], wanted: set[tuple[str, str]] | None
) -> Iterator[tuple[Section, str, Row, Row]]:
    """Yield section, environment and two rows; two dense methods only in their first section."""
    seen = set()
    for section in sections:
        for env in section.envs:
            rows = [row for row in section.rows if _takes_part(row, env)]
            for first, second in combinations(rows, 2):
                if wanted is not None and (first.method, second.method) not in wanted:
                    first, second = second, first
                    if (first.method, second.method) not in wanted:
                        continue
                cells = (section.algo, id(first.cells[env]), id(second.cells[env]))
                if cells not in seen:
                    seen.add(cells)
                    yield section, env, first, second


def _takes_part(row: Row, env: str) -> bool:
    return env in row.cells and Mark.UNFINISHED not in row.cells[env].marks


def _scores(row: Row, env: str) -> NDArray[np.float64]:
    values = row.cells[env].values
    return np.array([values[seed] for seed in sorted(values)])


# --- in words -------------------------------------------------------------------------------------


def sign(decision: Decision) -> str:
    """Return how a table writes a decision."""
    return {1: ">", -1: "<", 0: "?"}[decision.sign]


def lines(tests: Comparisons) -> Iterator[str]:
    """Yield what is to be known of the comparisons of a table."""
    plan, number = tests.plan, len(tests.found)
    together = "" if number == 1 else f", all {number} comparisons together"
    yield "> the first is better, < the second is better, ? not decided"
    yield (
        "group-sequential permutation test (AdaStop): a wrong decision has a probability of "
        f"{plan.alpha:g}{together}"
    )
    if plan.seeds is None:
        yield (
            "one look at all seeds; to add seeds and test again, fix --max-seeds and "
            "--seeds-per-round before the first look"
        )
    else:
        yield (
            f"{counted(tests.looks, 'look')} of {plan.rounds}, {counted(plan.seeds, 'seed')} of "
            "each method a round"
        )
    if tests.absent:
        yield (
            f"not compared: {', '.join(tests.absent)} (no finished runs of both in one section and "
            "environment)"
        )
    yield from _too_few(tests)
    losing = [each for each in tests.found if _loses_seeds(each) and each not in tests.given_up]
    if losing:
        yield (
            "of the finished seeds alone, which favours a method that loses some: "
            f"{_listed([_named(each) for each in losing])}"
        )
    if tests.given_up:
        named = "; ".join(map(_named, tests.given_up))
        yield (
            f"given up, since a run diverged: {named} (a test of the other seeds would favour the "
            "method that loses some)"
        )
    if tests.waiting:
        waiting = [f"{_named(each)} ({_seeds(each)} seeds)" for each in tests.waiting]
        yield f"look {tests.looks + 1} waits for seeds: {_listed(waiting)}"


def _named(comparison: Comparison) -> str:
    return f"{comparison.env}: {comparison.first.label} : {comparison.second.label}"


def _listed(texts: Sequence[str]) -> str:
    """Return the first of some texts, and how many more there are."""
    more = f", and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
    return "; ".join(texts[:MAX_LISTED]) + more


def _loses_seeds(comparison: Comparison) -> bool:
    rows = comparison.first, comparison.second
    return any(Mark.LEFT_OUT in row.cells[comparison.env].marks for row in rows)


def _seeds(comparison: Comparison) -> str:
    first, second = (row.cells[comparison.env].n for row in (comparison.first, comparison.second))
    return f"{first} and {second}"


def _too_few(tests: Comparisons) -> Iterator[str]:
    """Say where no difference, however large, could be decided."""
    plan = tests.plan
    if not plan.can_decide:
        yield f"too few seeds to decide anything, even after {counted(plan.rounds, 'look')}"
    if plan.seeds is not None:
        return
    smallest = []
    for each in tests.found:
        n, m = (row.cells[each.env].n for row in (each.first, each.second))
        smallest.append(smallest_p(n, m))
    if min(smallest) > plan.alpha:
        yield f"too few seeds to decide anything: the smallest p is {min(smallest):.3g}"
