"""Figures of one number per run: against sparsity (XU Figs. 5-6), IQMs, performance profiles."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean as mean_of
from typing import TYPE_CHECKING

import numpy as np

from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.plots import canvas
from dstrl_cli.plots.canvas import plain
from dstrl_cli.plots.curves import runs_of
from dstrl_cli.plots.groups import Array, Line, Panel, Section, environments, panels
from dstrl_cli.plots.request import Drawing, Request, counted_label
from dstrl_cli.report import intervals
from dstrl_cli.report.cells import make_cell
from dstrl_cli.report.grids import CENTER_WORDS
from dstrl_cli.report.marks import Mark, ordered
from dstrl_cli.report.scaling import NORMALIZED
from dstrl_cli.report.statistics import mean
from dstrl_cli.report.table import DENSE, Cell, Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROFILE_POINTS, PROFILE_RESAMPLES = 101, 2000


def cell(request: Request, section: Section, line: Line, panel: Panel, center: str) -> Cell | None:
    """Return the seeds of a line in a panel, in numbers; None where nothing is logged."""
    logged = [(run, request.metric.compute(run)) for run in line.runs if panel.has(run)]
    # as in tables, finished runs that logged nothing say nothing of the others
    members = [(run, value) for run, value in logged if value is not None or not run.finished]
    if not any(value is not None for _, value in members):
        return None
    key = (section.algo, line.sparsity, line.method, panel.env)
    return make_cell(key, members, Look(center, "interval"), None)


def _errors(found: Cell) -> tuple[float, float] | None:
    """Return how far the interval reaches below and above the center."""
    if found.interval is None:
        return None
    return found.center - found.interval.low, found.interval.high - found.center


def interval_words(cells: Sequence[Cell], center: str) -> str:
    """Return what bars are: how the intervals of some cells' centers were computed."""
    methods = sorted({each.interval.method for each in cells if each.interval})
    if not methods:
        return f"no intervals: fewer than {intervals.least_seeds(center)} seeds"
    return f"bars: 95 % interval ({', '.join(methods)})"


def reservations(cells: Sequence[Cell]) -> tuple[Mark, ...]:
    """Return what a table would mark the cells with, but for the number of seeds."""
    return ordered({mark for each in cells for mark in each.marks} - {Mark.FEW_SEEDS})


def mark_words(cells: Sequence[Cell]) -> str:
    """Return what the marks in a figure mean, each begun by a semicolon."""
    return "".join(f"; {mark.symbol} {mark.meaning}" for mark in reservations(cells))


def mark_symbols(cells: Sequence[Cell]) -> str:
    """Return the marks of some cells."""
    return "".join(mark.symbol for mark in reservations(cells))


def draw_marks(axis: Axes, found: Cell, at: tuple[float, float]) -> None:
    """Write the marks of a cell beside its point."""
    if symbols := mark_symbols([found]):
        axis.annotate(plain(symbols), at, (4, 3), textcoords="offset points", fontsize="small")


# --- against sparsity ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A line's seeds at one sparsity."""

    sparsity: float
    cell: Cell


def mean_sparsity(label: str) -> float:
    """Return the sparsity that a label names; where actor and critics differ, their mean."""
    return round(mean_of(parse_sparsity_label(label)), 10)


def sparsity_points(
    request: Request, sections: Sequence[Section], panel: Panel
) -> tuple[dict[Line, list[Point]], dict[Line, Cell]]:
    """Return the points of each method, by rising sparsity, and the cells of dense lines."""
    points: dict[str, list[Point]] = defaultdict(list)
    lines: dict[str, Line] = {}
    dense: dict[Line, Cell] = {}
    for section in sections:
        for line in section.lines:
            found = cell(request, section, line, panel, request.center)
            if found is None:
                continue
            if line.sparsity == DENSE:
                if line.method not in {each.method for each in dense}:
                    dense[line] = found
                continue
            lines.setdefault(line.method, line)
            points[line.method].append(Point(mean_sparsity(line.sparsity), found))
    ordered = {
        lines[method]: sorted(each, key=lambda point: point.sparsity)
        for method, each in points.items()
    }
    return ordered, dense


def against_sparsity(request: Request) -> Iterator[Drawing]:
    """Yield a figure per algorithm that was trained at several sparsities."""
    by_algo: dict[str, list[Section]] = defaultdict(list)
    for section in request.sections:
        if section.sparsity != DENSE:
            by_algo[section.algo].append(section)
    for algo, sections in by_algo.items():
        if len(sections) < 2:
            continue
        shown = panels([run for section in sections for run in runs_of(section)])
        found = {panel: sparsity_points(request, sections, panel) for panel in shown}
        shown = [panel for panel in shown if found[panel][0]]
        if not shown:
            continue
        figure, axes = canvas.grid(len(shown))
        for axis, panel in zip(axes, shown, strict=True):
            _draw_sparsity(axis, request, *found[panel])
            axis.set_title(plain(panel.title))
            axis.set_xlabel("sparsity")
        for axis in axes[:: canvas.MAX_COLUMNS]:
            axis.set_ylabel(request.metric.name)
        cells = [p.cell for lines, _ in found.values() for each in lines.values() for p in each]
        cells += [each for _, dense in found.values() for each in dense.values()]
        words = (
            f"{CENTER_WORDS[request.center]} over seeds; "
            f"{interval_words(cells, request.center)}; faint marks: single seeds{mark_words(cells)}"
        )
        figure.suptitle(plain(algo.upper()))
        canvas.legend(figure, axes, words)
        yield Drawing(f"sparsity-{algo}", figure)


def _draw_sparsity(
    axis: Axes, request: Request, lines: Mapping[Line, list[Point]], dense: Mapping[Line, Cell]
) -> None:
    every = sorted({point.sparsity for points in lines.values() for point in points})
    gap = min(np.diff(every), default=0.1)
    for line, found in dense.items():
        style = request.styles[line.method]
        axis.axhline(
            found.center, color=style.color, linestyle=(0, (1, 1)), label=plain(line.label)
        )
        if found.interval is not None:
            axis.axhspan(
                found.interval.low, found.interval.high, color=style.color, alpha=0.08, linewidth=0
            )
        draw_marks(axis, found, (every[-1], found.center))
    for number, (line, points) in enumerate(lines.items()):
        style = request.styles[line.method]
        shift = (number - (len(lines) - 1) / 2) * gap * 0.5 / max(len(lines), 1)
        x = [point.sparsity + shift for point in points]
        label = plain(counted_label(line.label, [point.cell.n for point in points]))
        axis.plot(x, [p.cell.center for p in points], **style.line, markersize=4, label=label)
        for at, point in zip(x, points, strict=True):
            draw_marks(axis, point.cell, (at, point.cell.center))
            if errors := _errors(point.cell):
                bar = [[errors[0]], [errors[1]]]
                axis.errorbar(
                    [at], [point.cell.center], bar, color=style.color, capsize=2, linewidth=1
                )
            seeds = list(point.cell.values.values())
            if len(seeds) > 1:
                axis.plot(
                    [at] * len(seeds), seeds, style.marker, color=style.color, ms=2.5, alpha=0.35
                )
    axis.set_xticks(every, [f"{each:.6g}" for each in every], fontsize="small")


# --- interquartile means ------------------------------------------------------------------------


def interquartile_means(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section: a row per method, a panel per environment and for all of them."""
    for section in request.sections:
        found: dict[Panel, dict[Line, Cell]] = {}
        for panel in panels(runs_of(section)):
            found[panel] = {
                line: each
                for line in section.lines
                if (each := cell(request, section, line, panel, "iqm")) is not None
            }
        found = {panel: cells for panel, cells in found.items() if cells}
        overall = _overall_iqm(request, section)
        if not found:
            continue
        names = [line for line in section.lines if any(line in cells for cells in found.values())]
        figure, axes = canvas.grid(len(found) + bool(overall), 0.24 * len(names) + 1.1)
        for axis, (panel, cells) in zip(axes, found.items(), strict=False):
            rows = {line: (each.center, each.interval) for line, each in cells.items()}
            _draw_rows(axis, request, names, rows)
            for line, each in cells.items():
                draw_marks(axis, each, (each.center, names.index(line)))
                seeds = list(each.values.values())
                at = [names.index(line)] * len(seeds)
                axis.plot(seeds, at, "|", color=request.styles[line.method].color, ms=6, alpha=0.6)
            axis.set_title(plain(panel.title))
            axis.set_xlabel(request.metric.name)
        if overall:
            _draw_rows(axes[-1], request, names, overall)
            axes[-1].set_title("all environments")
            axes[-1].set_xlabel(NORMALIZED[request.normalize or "dense"], fontsize="small")
        every = [each for cells in found.values() for each in cells.values()]
        figure.suptitle(plain(section.title))
        bars, marks = interval_words(every, "iqm"), mark_words(every)
        words = f"{CENTER_WORDS['iqm']} over seeds; {bars}; ticks: single seeds{marks}"
        canvas.legend(figure, [], words)
        yield Drawing(f"iqm-{section.name}", figure)


Rows = Mapping[Line, tuple[float, intervals.Interval | None]]


def _overall_iqm(request: Request, section: Section) -> Rows:
    """Return the IQM of each line over all environments, where it has them all on one scale."""
    envs = [panel.env for panel in environments(runs_of(section))]
    if request.scaled is None or len(envs) < 2:
        return {}
    found = {}
    for line in section.lines:
        cells = _scaled_cells(request, section, line, envs)
        if cells is not None:
            strata = _values(cells)
            found[line] = (
                intervals.estimate(strata, "iqm"),
                intervals.interval(strata, "iqm"),
            )
    return found


def _scaled_cells(
    request: Request, section: Section, line: Line, envs: Sequence[str]
) -> list[Cell] | None:
    """Return a line's cell in each environment on the common scale; None where it lacks one.

    A cell without finished runs is none here: lines are compared over all environments.
    """
    cells = [request.scaled_cell(section, line, env) for env in envs]
    found = [each for each in cells if each is not None and Mark.UNFINISHED not in each.marks]
    return found if len(found) == len(envs) else None


def _values(cells: Sequence[Cell]) -> list[Array]:
    """Return the values of each cell [seeds]."""
    return [np.array(list(each.values.values())) for each in cells]


def _draw_rows(axis: Axes, request: Request, names: Sequence[Line], rows: Rows) -> None:
    for line, (center, interval) in rows.items():
        at, style = names.index(line), request.styles[line.method]
        axis.plot([center], [at], style.marker or "o", color=style.color, markersize=5)
        if interval is not None:
            axis.plot([interval.low, interval.high], [at, at], color=style.color, linewidth=1.8)
    axis.set_yticks(range(len(names)), [plain(line.label) for line in names], fontsize="small")
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.xaxis.set_major_locator(_few())
    axis.grid(axis="y", visible=False)


def _few():  # type: ignore[no-untyped-def]
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


# --- performance profiles -----------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """The share of runs above each score: [T] scores and shares, and its 95 % interval."""

    scores: Array
    share: Array
    low: Array | None
    high: Array | None


def profile(strata: Sequence[Array], scores: Array) -> Profile:
    """Return which share of the runs of all environments is above each of `scores`.

    Agarwal et al. 2021, eq. 2. The interval is the stratified expanded bootstrap, pointwise.

    Args:
        strata: one value per seed, for each environment.
        scores: [T].
    """
    above = [(values[None, :] > scores[:, None]).astype(float) for values in strata]  # [T, seeds]
    share = mean(np.concatenate(above, axis=1))
    if min(len(values) for values in strata) < intervals.MIN_SEEDS:
        return Profile(scores, share, None, None)
    low, high = intervals.bootstrap(mean, True, above, PROFILE_RESAMPLES)
    return Profile(scores, share, low, high)


def profiles(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section: the share of runs above each score.

    Several environments need a common scale; of a single one the scores are those of the metric.
    """
    for section in request.sections:
        envs = environments(runs_of(section))
        scale, found = request.metric.name, {}
        if request.scaled is not None:
            scale = f"{request.metric.name}, {NORMALIZED[request.normalize or 'dense']}"
            names = [panel.env for panel in envs]
            scaled = {each: _scaled_cells(request, section, each, names) for each in section.lines}
            found = {line: cells for line, cells in scaled.items() if cells is not None}
        elif len(envs) == 1:
            single = {line: cell(request, section, line, envs[0], "mean") for line in section.lines}
            found = {line: [each] for line, each in single.items() if each is not None}
        if not found:
            continue
        strata = [values for cells in found.values() for values in _values(cells)]
        every = np.concatenate(strata)
        margin = 0.05 * (np.ptp(every) or abs(every[0]) or 1.0)
        scores = np.linspace(every.min() - margin, every.max() + margin, PROFILE_POINTS)
        figure, (axis,) = canvas.grid(1, 2.9)
        alpha = canvas.faint(0.12, len(found))
        made = {line: profile(_values(cells), scores) for line, cells in found.items()}
        for number, (line, cells) in enumerate(found.items()):
            _draw_profile(axis, request, line, made[line], number, cells, alpha)
        axis.set_xlabel(scale, fontsize="small")
        axis.set_ylabel("share of runs above it")
        axis.set_ylim(-0.03, 1.03)
        missing = [line.label for line in section.lines if line not in found]
        figure.suptitle(plain(section.title))
        enough = any(each.low is not None for each in made.values())
        words = "95 % interval at each score (stratified expanded bootstrap)"
        words = f"band: {words}" if enough else f"no bands: fewer than {intervals.MIN_SEEDS} seeds"
        words += mark_words([each for cells in found.values() for each in cells])
        canvas.legend(figure, [axis], words)
        note = f"profile of {section.title}: left out, unfinished or not in all environments: "
        noted = (note + ", ".join(missing),) if missing else ()
        yield Drawing(f"profile-{section.name}", figure, noted)


def _draw_profile(
    axis: Axes,
    request: Request,
    line: Line,
    found: Profile,
    number: int,
    cells: Sequence[Cell],
    alpha: float,
) -> None:
    style = request.styles[line.method]
    every = PROFILE_POINTS // 6
    label = counted_label(line.label, [each.n for each in cells]) + mark_symbols(cells)
    axis.plot(
        found.scores,
        found.share,
        **style.line,
        drawstyle="steps-post",
        markersize=4,
        markevery=(3 * number % every, every),
        label=plain(label),
    )
    if found.low is not None and found.high is not None:
        axis.fill_between(
            found.scores,
            found.low,
            found.high,
            step="post",
            color=style.color,
            alpha=alpha,
            linewidth=0,
        )
