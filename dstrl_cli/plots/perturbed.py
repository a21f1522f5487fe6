"""Figures of returns under perturbations: a figure per environment, a panel per kind."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dstrl_cli.plots import canvas
from dstrl_cli.plots.canvas import Style, plain
from dstrl_cli.plots.groups import Array
from dstrl_cli.plots.request import FEW_RUNS, Drawing, counted_label
from dstrl_cli.report import intervals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Answer:
    """What the runs of one group gave in one environment under one kind of perturbation.

    Attributes:
        env, kind: the environment and the kind.
        group: the label of the runs, which differ in their seeds.
        dense: whether they are dense.
        strengths: rising [S].
        returns: mean return of each run [S, runs].
        neutral: the strength that changes nothing.
        meaning: what a strength is, in words.
    """

    env: str
    kind: str
    group: str
    dense: bool
    strengths: Array
    returns: Array
    neutral: float
    meaning: str

    @property
    def center(self) -> Array:
        """The mean over runs [S]."""
        return np.asarray(self.returns.mean(axis=1))


def against_strength(answers: Sequence[Answer]) -> Iterator[Drawing]:
    """Yield a figure per environment: return against the strength of each kind."""
    by_env: dict[str, dict[str, list[Answer]]] = defaultdict(lambda: defaultdict(list))
    for answer in answers:
        by_env[answer.env][answer.kind].append(answer)
    look = _styles(answers)
    for env, kinds in by_env.items():
        every = [one for each in kinds.values() for one in each]
        figure, axes = _panels(len(kinds), np.concatenate([one.returns.ravel() for one in every]))
        for axis, (kind, each) in zip(axes, kinds.items(), strict=True):
            _draw(axis, each, look)
            axis.set_title(plain(kind.replace("_", " ")))
            axis.set_xlabel(canvas.folded(each[0].meaning, 2.2), fontsize="small")
        figure.suptitle(plain(env))
        canvas.legend(figure, axes, _footnote(every))
        yield Drawing(f"perturb-{env}", figure)


def _panels(count: int, returns: Array) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, in rows of about equal length.

    All have the same axis of returns, which reaches over those of single runs: intervals of few
    runs may be many times as wide, and are cut there.
    """
    rows = math.ceil(count / canvas.MAX_COLUMNS)
    figure, sheet = canvas.sheet(rows, math.ceil(count / rows), sharey=True)
    axes = [axis for line in sheet for axis in line]
    for axis in axes[count:]:
        axis.remove()
    for line in sheet:
        line[0].set_ylabel("mean return")
    low, high = float(returns.min()), float(returns.max())
    margin = 0.05 * ((high - low) or abs(low) or 1.0)
    axes[0].set_ylim(low - margin, high + margin)
    return figure, axes[:count]


def _styles(answers: Sequence[Answer]) -> Mapping[str, Style]:
    """Return the look of every group; black is dense, unless there are several such groups."""
    groups = list(dict.fromkeys(answer.group for answer in answers))
    dense = list(dict.fromkeys(answer.group for answer in answers if answer.dense))
    keys = {group: "dense" if [group] == dense else group for group in groups}
    found = canvas.styles(keys.values())
    return {group: found[key] for group, key in keys.items()}


def _draw(axis: Axes, answers: Sequence[Answer], look: Mapping[str, Style]) -> None:
    """Draw the lines of one panel."""
    from matplotlib.ticker import MaxNLocator

    for answer in answers:
        style, runs = look[answer.group], answer.returns.shape[1]
        if 1 < runs <= FEW_RUNS:
            axis.plot(
                answer.strengths, answer.returns, color=style.color, linewidth=0.5, alpha=0.45
            )
        chosen = intervals.choose("mean", [runs])
        if chosen is not None:
            low, high = chosen.bounds([answer.returns])
            axis.fill_between(
                answer.strengths, low, high, color=style.color, alpha=0.15, linewidth=0
            )
        label = plain(counted_label(answer.group, [runs]))
        axis.plot(answer.strengths, answer.center, **style.line, markersize=4, label=label)
    axis.axvline(answers[0].neutral, color="#999999", linestyle=":", linewidth=1)
    canvas.few_ticks(axis)
    whole = bool((answers[0].strengths % 1 == 0).all())  # as delays are: there is no half a step
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], integer=whole))


def _footnote(answers: Sequence[Answer]) -> str:
    """Return what lines and bands are."""
    counts = {answer.returns.shape[1] for answer in answers}
    methods = {chosen.name for each in counts if (chosen := intervals.choose("mean", [each]))}
    parts = ["mean over runs; dotted: unperturbed"]
    if methods:
        parts += [f"band: 95 % interval ({', '.join(sorted(methods))}), cut at the panel's edge"]
    parts += ["thin lines: single runs"] if any(1 < each <= FEW_RUNS for each in counts) else []
    return "; ".join(parts)
