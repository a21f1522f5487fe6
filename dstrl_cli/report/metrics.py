"""Metrics: from the log of one run to one number. Nothing is averaged over seeds here.

An evaluation is the mean return of its episodes. The evaluation at step 0, of the untrained
policy, never enters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.runs import Run

DEFAULT = "last-steps:125000"


@dataclass(frozen=True)
class Value:
    """A metric of one run, and the reservations it carries."""

    value: float
    marks: frozenset[Mark] = frozenset()


@dataclass(frozen=True)
class Metric:
    """A metric with its parameter filled in: `compute(run)` is None where nothing is logged yet."""

    name: str
    description: str
    compute: Callable[[Run], Value | None]


Log = Callable[[Run], pd.Series]
Reduce = Callable[[pd.Series, int], Value]


@dataclass(frozen=True)
class _Kind:
    """A kind of metric: which log it reads (returns, indexed by step) and how it reduces it."""

    description: str
    reduce: Reduce
    log: Log
    parameter: str = ""

    @property
    def usage(self) -> str:
        return f":{self.parameter}" if self.parameter else ""


def evaluation_returns(run: Run) -> pd.Series:
    """Return the mean return of each evaluation after step 0, indexed and sorted by step."""
    rows = run.evaluations[run.evaluations["step"] > 0]
    return rows.groupby("step")["return"].mean()


def episode_returns(run: Run) -> pd.Series:
    """Return the return of each training episode, indexed by the step at which it ended."""
    return run.episodes.set_index("step")["return"]


def _last_steps(returns: pd.Series, window: int) -> Value:
    last = returns.index[-1]
    marks = frozenset({Mark.WINDOW}) if window > last else frozenset[Mark]()
    return Value(float(returns[returns.index > last - window].mean()), marks)


def _last_evals(returns: pd.Series, count: int) -> Value:
    marks = frozenset({Mark.WINDOW}) if count > len(returns) else frozenset[Mark]()
    return Value(float(returns.iloc[-count:].mean()), marks)


def _mean(returns: pd.Series, _: int) -> Value:
    return Value(float(returns.mean()))


def _learning_curve_area(returns: pd.Series, _: int) -> Value:
    """SOK eq. 9. At an evaluation every 5,000 steps, 5,000 times this is the mean evaluation."""
    return Value(float(returns.sum() / returns.index[-1]))


def _final(returns: pd.Series, _: int) -> Value:
    return Value(float(returns.iloc[-1]))


def _best(returns: pd.Series, _: int) -> Value:
    return Value(float(returns.max()))


KINDS: dict[str, _Kind] = {
    "last-steps": _Kind(
        "mean evaluation return over the last {0:,} steps (XU)",
        _last_steps,
        evaluation_returns,
        "STEPS",
    ),
    "last-evals": _Kind(
        "mean return of the last {0:,} evaluations (10: SOK, 30: RLX)",
        _last_evals,
        evaluation_returns,
        "COUNT",
    ),
    "all-evals": _Kind("mean return of all evaluations", _mean, evaluation_returns),
    "all-episodes": _Kind("mean return of all training episodes (XU)", _mean, episode_returns),
    "lca": _Kind(
        "learning curve area: sum of evaluation returns / environment steps (SOK; printed there as "
        "x5000: times 5,000 it is the mean evaluation return)",
        _learning_curve_area,
        evaluation_returns,
    ),
    "final": _Kind("mean return of the last evaluation", _final, evaluation_returns),
    "best": _Kind("mean return of the best evaluation", _best, evaluation_returns),
}


def parse(text: str) -> Metric:
    """Return the metric that `text` names, such as `last-steps:125000` or `lca`.

    Raises InputError, naming the metric and the valid ones, where it is unknown, lacks its
    number, or has one it does not take.
    """
    name, colon, number = text.strip().partition(":")
    usages = [key + kind.usage for key, kind in KINDS.items()]
    if name not in KINDS:
        raise InputError(suggest("metric", text, usages))
    kind = KINDS[name]
    if bool(colon) != bool(kind.parameter):
        takes = f"takes {f'a number, {name}{kind.usage}' if kind.parameter else 'no number'}"
        raise InputError(f"metric '{text}' {takes}. Valid: {', '.join(sorted(usages))}")
    parameter = _whole_number(text, number) if colon else 0

    def compute(run: Run) -> Value | None:
        returns = kind.log(run)
        return kind.reduce(returns, parameter) if len(returns) else None

    canonical = f"{name}:{parameter}" if colon else name
    return Metric(canonical, kind.description.format(parameter), compute)


def _whole_number(text: str, number: str) -> int:
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not (1 <= value < 1e18 and value.is_integer()):
        raise InputError(
            f"metric '{text}': '{number}' must be a whole number of at least 1, "
            "as in last-steps:125000 or last-evals:10"
        )
    return int(value)
