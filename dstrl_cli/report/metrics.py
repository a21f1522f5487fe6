"""Metrics: from the log of one run to one number. Nothing is averaged over seeds here.

An evaluation is the mean return of its episodes. The evaluation at step 0 never enters. Up to step
`learning_starts` the policy is still the one of step 0: no window contains these evaluations, but
metrics over the whole run (`all-evals`, `lca`, `best`) do count them, as the papers' sums do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.config.metrics import DEFAULT_METRIC, METRICS, canonical_metric, parse_metric
from dstrl_cli.errors import InputError
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.statistics import mean_by_step
from dstrl_cli.report.words import counted

Array = NDArray[np.float64]

Of = Literal["evaluations", "training episodes"]
"""What returns are of: of a policy alone, or of one that explores."""


@dataclass(frozen=True)
class Value:
    """A metric of one run, and the reservations it carries."""

    value: float
    marks: frozenset[Mark] = frozenset()


@dataclass(frozen=True)
class Metric:
    """A metric with its parameter filled in: `compute(run)` is None where nothing is logged yet.

    `needs` is what a run must have logged for it, as `evaluation after step 0`; `returns` says what
    its value is a mean return of, and is None where it is no return.
    """

    name: str
    description: str
    needs: str
    compute: Callable[[LoggedRun], Value | None]
    returns: Of | None


@dataclass(frozen=True)
class Returns:
    """What a run logged: returns [n] and their steps [n], ascending.

    Until step `started` the policy was not trained, so returns up to there are those of step 0.
    """

    steps: Array
    values: Array
    started: int = 0

    @property
    def trained(self) -> Returns:
        """The returns of the trained policy; all returns where there are none of it."""
        later = self.steps > self.started
        if not later.any():
            return replace(self, started=0)
        return Returns(self.steps[later], self.values[later], self.started)


def evaluation_returns(run: LoggedRun) -> Returns:
    """Return the mean return of each evaluation after step 0."""
    return _by_evaluation(run, run.evaluations["return"])


def evaluation_success(run: LoggedRun) -> Returns:
    """Return the success rate of each evaluation after step 0 whose episodes say something of it.

    Runs of older versions have no such column.
    """
    unknown = np.full(len(run.evaluations["step"]), np.nan)
    return _by_evaluation(run, run.evaluations.get("success", unknown))


def _by_evaluation(run: LoggedRun, values: Array) -> Returns:
    """Return the mean of each evaluation after step 0 over its episodes with a value [episodes]."""
    steps = run.evaluations["step"]
    used = (steps > 0) & np.isfinite(values)
    return Returns(*mean_by_step(steps[used], values[used]), last_untrained_step(run))


def last_untrained_step(run: LoggedRun) -> int:
    """Return the step before the first training; after episodes, the last one of the warm-up."""
    starts, every = (run.config.get(key) for key in ("learning_starts", "train_freq"))
    if not isinstance(starts, int):
        return 0
    every = every if isinstance(every, int) and every > 0 else 1
    return (starts // every + 1) * every - 1


def episode_returns(run: LoggedRun) -> Returns:
    """Return the return of each training episode, with the step at which it ended."""
    return Returns(run.episodes["step"], run.episodes["return"])


def warm_up_returns(run: LoggedRun) -> Returns:
    """Return the training episodes in which every action was drawn at random.

    There are none where a trained policy acts first (`prefill_from`), or an expert.
    """
    found, starts = episode_returns(run), run.config.get("learning_starts")
    drawn = not (run.config.get("prefill_from") or run.config.get("expert"))
    within = found.steps <= (starts if drawn and isinstance(starts, int) else 0)
    return Returns(found.steps[within], found.values[within])


# --- reducing returns to a number ---------------------------------------------------------------


def _last_steps(returns: Returns, window: int) -> Value:
    trained = returns.trained
    last = trained.steps[-1]
    marks = frozenset({Mark.WINDOW}) if window > last - trained.started else frozenset[Mark]()
    return Value(float(trained.values[trained.steps > last - window].mean()), marks)


def _last_evals(returns: Returns, count: int) -> Value:
    trained = returns.trained
    marks = frozenset({Mark.WINDOW}) if count > len(trained.values) else frozenset[Mark]()
    return Value(float(trained.values[-count:].mean()), marks)


def _first(returns: Returns, count: int) -> Value:
    marks = frozenset({Mark.WINDOW}) if count > len(returns.values) else frozenset[Mark]()
    return Value(float(returns.values[:count].mean()), marks)


def _mean(returns: Returns, _: int) -> Value:
    return Value(float(returns.values.mean()))


def _learning_curve_area(returns: Returns, _: int) -> Value:
    """SOK eq. 9. At an evaluation every 5,000 steps, 5,000 times this is the mean evaluation."""
    return Value(float(returns.values.sum() / returns.steps[-1]))


def _final(returns: Returns, _: int) -> Value:
    return Value(float(returns.values[-1]))


def _best(returns: Returns, _: int) -> Value:
    return Value(float(returns.values.max()))


@dataclass(frozen=True)
class _Kind:
    """A kind of metric: which log it reads and how it reduces that to a number."""

    description: str
    reduce: Callable[[Returns, int], Value]
    log: Callable[[LoggedRun], Returns] = evaluation_returns
    needs: str = "evaluation after step 0"
    returns: Of | None = "evaluations"


KINDS: dict[str, _Kind] = {
    "last-steps": _Kind("mean evaluation return over the last {0:,} steps (XU)", _last_steps),
    "last-evals": _Kind(
        "mean return of the last {0:,} evaluations (10: SOK, 30: RLX)", _last_evals
    ),
    "all-evals": _Kind("mean return of all evaluations", _mean),
    "all-episodes": _Kind(
        "mean return of all training episodes (XU)",
        _mean,
        episode_returns,
        "training episode",
        "training episodes",
    ),
    "first-episodes": _Kind(
        "mean return of the first {0:,} training episodes",
        _first,
        episode_returns,
        "training episode",
        "training episodes",
    ),
    "lca": _Kind(
        "learning curve area: sum of evaluation returns / environment steps (SOK; printed there as "
        "x5000: times 5,000 it is the mean evaluation return)",
        _learning_curve_area,
        returns=None,
    ),
    "final": _Kind("mean return of the last evaluation", _final),
    "best": _Kind("mean return of the best evaluation", _best),
    "success": _Kind(
        "share of successful episodes in the last evaluation",
        _final,
        evaluation_success,
        "evaluation after step 0 whose environment says whether its task is solved",
        None,
    ),
}

WITHOUT_PARAMETER = tuple(name for name, parameter in METRICS.items() if not parameter)


def parse(text: str) -> Metric:
    """Return the metric that `text` names, such as `last-steps:125000` or `lca`.

    Raises InputError, naming the metric and the valid ones, where it is unknown, lacks its
    number, or has one it does not take.
    """
    name, parameter = parse_metric(text)
    kind = KINDS[name]

    def compute(run: LoggedRun) -> Value | None:
        returns = kind.log(run)
        if not len(returns.values):
            return None
        value = kind.reduce(returns, parameter)
        if kind.log is not episode_returns and run.summary.get("eval_cut"):
            value = replace(value, marks=value.marks | {Mark.CUT})
        untrained = returns.steps[-1] <= returns.started
        return replace(value, marks=value.marks | {Mark.UNTRAINED}) if untrained else value

    description = kind.description.format(parameter)
    return Metric(canonical_metric(text), description, kind.needs, compute, kind.returns)


# --- which metric runs ask for ------------------------------------------------------------------


def stored_metric(run: LoggedRun) -> str | None:
    """Return the metric that a run was trained to be shown by, where it names a valid one."""
    stored = run.config.get("metric")
    try:
        return None if stored is None else canonical_metric(str(stored))
    except InputError:
        return None


def common_metric(runs: Iterable[LoggedRun]) -> tuple[Metric, str | None]:
    """Return the metric that all runs name, or else the default, and why where they disagree.

    A run that names none counts as one that names the default.
    """
    counts: dict[str, int] = {}
    for run in runs:
        name = stored_metric(run) or DEFAULT_METRIC
        counts[name] = counts.get(name, 0) + 1
    if len(counts) == 1:
        return parse(*counts), None
    named = ", ".join(f"{name} ({counted(count, 'run')})" for name, count in sorted(counts.items()))
    why = f"the runs ask for different metrics: {named}; shown is the default"
    return parse(DEFAULT_METRIC), why
