"""A figure of what runs reach over the paths through their critics, at the end of training.

A path is a chain of active connections from an input to the last layer. It says of a sparse network
how much of it can carry anything, whatever the number of its connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dstrl_cli.plots import canvas
from dstrl_cli.plots.canvas import plain
from dstrl_cli.plots.curves import runs_of
from dstrl_cli.plots.groups import Array, Line, Panel, Section, by_seed, environments
from dstrl_cli.plots.request import Drawing, Request, counted_label
from dstrl_cli.plots.scores import cell, draw_marks, mark_words
from dstrl_cli.report.neurons import FILE, PATHS, at_one_step
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW_LINES = 4
"""Methods from which on their rank correlation is said; two have 1 or -1, whatever they are."""

Paths = Mapping[str, float]
"""How many paths runs have, by their own path: that of their folder."""


@dataclass(frozen=True)
class Points:
    """The seeds of one line in one environment, means over their tasks: paths and values [n].

    `cell` is what a table has of them.
    """

    paths: Array
    values: Array
    cell: Cell


def against_paths(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section: a point per seed, a panel per environment with two methods."""
    counted = {run.path: _paths_of(run) for run in request.runs}
    known = {path: count for path, count in counted.items() if count is not None}
    for section in request.sections:
        found = {
            panel: lines
            for panel in environments(runs_of(section))
            if len(lines := points(request, section, panel, known)) > 1
        }
        if not found:
            continue
        figure, axes = canvas.grid(len(found))
        for axis, (panel, lines) in zip(axes, found.items(), strict=True):
            _draw(axis, request, lines)
            axis.set_title(plain(panel.title))
            axis.set_xlabel("paths through a critic")
        for axis in axes[:: canvas.MAX_COLUMNS]:
            axis.set_ylabel(request.metric.name)
        figure.suptitle(plain(section.title))
        cells = [each.cell for lines in found.values() for each in lines.values()]
        words = f"large: means over seeds; rho: their rank correlation{mark_words(cells)}"
        canvas.legend(figure, axes, words)
        yield Drawing(f"paths-{section.name}", figure)


def _paths_of(run: LoggedRun) -> float | None:
    """Return the paths of a run at its last evaluation, the mean over its critics."""
    return at_one_step(run.layers(FILE, last_step=True), PATHS, "critics")


def points(request: Request, section: Section, panel: Panel, known: Paths) -> dict[Line, Points]:
    """Return the points of a section's lines in a panel, without seeds whose paths are unknown."""
    found = {}
    for line in section.lines:
        made = cell(request, section, line, panel, "mean")
        if made is None:
            continue
        seeds = by_seed(run for run in line.runs if panel.has(run))
        rows = [
            (np.mean([known[run.path] for run in seeds[seed]]), value)
            for seed, value in made.values.items()
            if all(run.path in known for run in seeds[seed])
        ]
        if rows:
            paths, values = np.array(rows).T
            found[line] = Points(paths, values, made)
    return found


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's rank correlation of two quantities [n]; NaN where one is constant."""
    from pandas import Series

    ranks = np.stack([Series(one).rank(), Series(other).rank()])
    return float("nan") if (np.ptp(ranks, axis=1) == 0).any() else float(np.corrcoef(ranks)[0, 1])


def _draw(axis: Axes, request: Request, lines: Mapping[Line, Points]) -> None:
    for line, found in lines.items():
        style = request.styles[line.method]
        marker = style.marker or "o"
        axis.plot(found.paths, found.values, marker, color=style.color, markersize=2.5, alpha=0.4)
        axis.plot(
            [found.paths.mean()],
            [found.values.mean()],
            marker,
            color=style.color,
            markersize=6,
            label=plain(counted_label(line.label, [len(found.values)])),
        )
        draw_marks(axis, found.cell, (found.paths.mean(), found.values.mean()))
    axis.set_xscale("symlog", linthresh=1)
    canvas.ticks_by_powers(axis.xaxis)
    if len(lines) < FEW_LINES:
        return
    means = np.array([[each.paths.mean(), each.values.mean()] for each in lines.values()]).T
    words = f"rho = {rank_correlation(*means):.2f} (n={len(lines)})"
    axis.annotate(words, (0.97, 0.04), xycoords="axes fraction", ha="right")
