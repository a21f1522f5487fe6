"""Figures of the time to a given return: in environment steps, training FLOPs and seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dstrl_cli.algos.flops import flops_per_sample
from dstrl_cli.plots import canvas
from dstrl_cli.plots.canvas import plain
from dstrl_cli.plots.curves import evaluations, runs_of
from dstrl_cli.plots.groups import Array, Line, Panel, Section, environments, panels
from dstrl_cli.plots.request import Drawing, Request
from dstrl_cli.plots.scores import cell
from dstrl_cli.registry import ALGORITHMS
from dstrl_cli.report.metrics import last_untrained_step, parse
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import DENSE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEASURES = ("environment steps", "training FLOPs", "seconds")


@dataclass(frozen=True)
class Reached:
    """When one run first had an evaluation at the target; None: never, or not known.

    Attributes:
        reached: whether it had.
        at: steps, FLOPs and seconds.
        logged: the last evaluation in the same measures: what is known of a run that never had.
    """

    reached: bool
    at: tuple[float | None, ...]
    logged: tuple[float | None, ...]


def reached(run: LoggedRun, target: float) -> Reached | None:
    """Return when a run reached a target; None where it logged no evaluation after training began.

    What a network does before that, it has not learned.
    """
    steps, returns = evaluations(run)
    later = steps > last_untrained_step(run)
    steps, returns = steps[later], returns[later]
    if not len(steps):
        return None
    hits = np.flatnonzero(returns >= target)
    last = _measures(run, float(steps[-1]))
    if not len(hits):
        return Reached(False, (None,) * len(MEASURES), last)
    return Reached(True, _measures(run, float(steps[hits[0]])), last)


def _measures(run: LoggedRun, step: float) -> tuple[float | None, ...]:
    return step, flops_until(run, step), seconds_until(run, step)


def seconds_until(run: LoggedRun, step: float) -> float | None:
    """Return the wall time at an evaluation, evaluations included; None where it is not logged."""
    logged = run.progress
    times = logged.get("time_s", np.full(len(logged["step"]), np.nan))[logged["step"] == step]
    return float(times[-1]) if len(times) and np.isfinite(times[-1]) else None


def flops_until(run: LoggedRun, step: float) -> float | None:
    """Return the training FLOPs up to an evaluation; None where the summary does not have them.

    The run's own total is divided among its updates by the connections that were active at the
    evaluations between them, which matters where the number of connections moves.
    """
    try:
        total = float(run.summary["flops"]["train_total"])
    except (KeyError, TypeError, ValueError):
        return None
    logged = run.progress
    steps = logged["step"]
    if not math.isfinite(total) or not len(steps) or step > steps[-1]:
        return None
    starts = run.config.get("learning_starts")
    trained = np.maximum(steps - (starts if isinstance(starts, int) else 0), 0)
    of_interval = np.diff(trained, prepend=0) * _cost_of_update(run)
    if of_interval.sum() <= 0:
        return None
    return float(total * of_interval[steps <= step].sum() / of_interval.sum())


def _cost_of_update(run: LoggedRun) -> Array:
    """Return the relative cost of an update before each row of `progress.csv` [rows]."""
    row, logged = ALGORITHMS.get(run.identity.algo), run.progress
    ones = np.ones(len(logged["step"]))
    if row is None or not {"actor_active", "critic_active"} <= set(logged):
        return ones
    actor, critics = (_between(logged[f"{name}_active"]) for name in ("actor", "critic"))
    delay, nstep = run.config.get("policy_delay"), run.config.get("nstep")
    if not isinstance(delay, int) or not isinstance(nstep, int):
        return ones
    count = max(row.critics, 1)
    costs = [
        flops_per_sample(row, a, c / count, policy_delay=max(delay, 1), nstep=max(nstep, 1))
        for a, c in zip(actor.tolist(), critics.tolist(), strict=True)
    ]
    return np.array(costs) if np.isfinite(costs).all() else ones


def _between(active: Array) -> Array:
    """Return the mean of each value and the one before it."""
    before = np.concatenate([active[:1], active[:-1]])
    return (active + before) / 2


# --- targets ------------------------------------------------------------------------------------


def target_of(request: Request, section: Section, panel: Panel) -> float | None:
    """Return the return to reach in a panel; None where there is nothing to go by.

    The metric of `request` is a mean return of evaluations.
    """
    cells = {line: cell(request, section, line, panel, "mean") for line in section.lines}
    means = {line: each.mean for line, each in cells.items() if each is not None}
    if not means:
        return None
    dense = [mean for line, mean in means.items() if line.sparsity == DENSE]
    firsts = [_first(run) for line in means for run in line.within(panel)]
    known = [value for value in firsts if value is not None]
    untrained = float(np.mean(known)) if known else 0.0
    reference = dense[0] if dense else max(means.values())
    return request.targets.of(panel.env, untrained, reference)


def _first(run: LoggedRun) -> float | None:
    steps, returns = evaluations(run)
    return float(returns[0]) if len(steps) and steps[0] == 0 else None


# --- the figure ---------------------------------------------------------------------------------


def time_to_return(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section: a row per environment, a column per measure.

    What is reached is the return of an evaluation. Where the metric is nothing of that kind, the
    return to reach is set by the last evaluations.
    """
    if request.metric.returns != "evaluations":
        request = replace(request, metric=parse("final"))
    envs = [panel.env for panel in environments(request.runs)]
    request.targets.check(envs)
    for section in request.sections:
        found: dict[Panel, tuple[float, dict[Line, list[Reached]]]] = {}
        for panel in _single_tasks(panels(runs_of(section))):
            target = target_of(request, section, panel)
            if target is None:
                continue
            lines = {}
            for line in section.lines:
                times = [reached(run, target) for run in line.within(panel)]
                if known := [each for each in times if each is not None]:
                    lines[line] = known
            if lines:
                found[panel] = target, lines
        if found:
            yield _figure(request, section, found)


def _single_tasks(every: Sequence[Panel]) -> list[Panel]:
    """Return the panels without the means over tasks: a return is reached in one task."""
    tasks = {panel.env for panel in every if panel.task is not None}
    return [panel for panel in every if panel.task is not None or panel.env not in tasks]


def _figure(
    request: Request,
    section: Section,
    found: Mapping[Panel, tuple[float, Mapping[Line, list[Reached]]]],
) -> Drawing:
    most = max(len(lines) for _, lines in found.values())
    figure, axes = canvas.sheet(len(found), len(MEASURES), 0.24 * most + 0.75, sharey="row")
    for row, (panel, (target, lines)) in zip(axes, found.items(), strict=True):
        for number, axis in enumerate(row):
            _draw(axis, request, lines, number)
            axis.set_xlabel(MEASURES[number])
        row[0].set_title(plain(f"{panel.title}: return {target:.5g}"), loc="left")
        names = [f"{line.label} {_count(each)}" for line, each in lines.items()]
        row[0].set_yticks(range(len(names)), [plain(name) for name in names], fontsize="small")
        row[0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(plain(section.title))
    words = (
        "marks: runs, at their first evaluation with this return; bar: median of all runs; hollow "
        "marks: runs that never had it, at their last evaluation. Numbers: runs that reached it"
        f"{share_words(request, section)}"
    )
    canvas.legend(figure, [], words)
    return Drawing(f"time-{section.name}", figure)


def share_words(request: Request, section: Section) -> str:
    """Return where the returns to reach come from, unless they were given."""
    targets = request.targets
    if targets.value is not None or targets.by_env:
        return ""
    dense = any(line.sparsity == DENSE for line in section.lines)
    reference = "that of dense agents" if dense else "the best method's"
    return (
        f". Return: {targets.share:g} % of the way from that of untrained agents to {reference} "
        f"({request.metric.name})"
    )


def _count(runs: Sequence[Reached]) -> str:
    return f"{sum(run.reached for run in runs)}/{len(runs)}"


def _draw(
    axis: Axes, request: Request, lines: Mapping[Line, Sequence[Reached]], measure: int
) -> None:
    for at, (line, runs) in enumerate(lines.items()):
        style = request.styles[line.method]
        look: dict[str, Any] = {
            "color": style.color,
            "marker": style.marker or "o",
            "linestyle": "",
            "clip_on": False,  # marks at the very beginning are whole, over the axis
            "in_layout": False,  # unclipped marks would take the room of the axes
            "zorder": 3,
        }
        done = _known(run.at[measure] for run in runs)
        never = _known(run.logged[measure] for run in runs if not run.reached)
        axis.plot(done, [at] * len(done), **look, markersize=4.5, alpha=0.8)
        axis.plot(never, [at] * len(never), **look, markersize=4.5, fillstyle="none")
        middle = median_time([run.at[measure] for run in runs])
        if middle is not None:
            axis.plot([middle, middle], [at - 0.3, at + 0.3], color=style.color, linewidth=1.6)
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)
    canvas.few_ticks(axis)


def _known(times: Iterable[float | None]) -> list[float]:
    return [time for time in times if time is not None]


def median_time(times: Sequence[float | None]) -> float | None:
    """Return the median time, runs that never got there last; None where it is one of those."""
    ordered = np.array([math.inf if time is None else time for time in times])
    middle = float(np.median(ordered))
    return middle if math.isfinite(middle) else None
