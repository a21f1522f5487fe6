"""Figures over environment steps: learning curves; buffer size and policy distance (RLX Fig. 5)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dstrl_cli.plots import canvas
from dstrl_cli.plots.canvas import Style, plain
from dstrl_cli.plots.groups import Array, Curve, Line, Panel, Read, Section, curve
from dstrl_cli.plots.groups import environments as environments_of
from dstrl_cli.plots.groups import panels as panels_of
from dstrl_cli.plots.request import FEW_RUNS, Drawing, Request, counted_label
from dstrl_cli.report.grids import CENTER_WORDS
from dstrl_cli.report.intervals import least_seeds
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.statistics import mean_by_step

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS_A_LINE = 6

Curves = Mapping[tuple[Line, Panel], Curve]
"""The curves of a figure's lines in its panels, where anything is logged."""


def evaluations(run: LoggedRun) -> tuple[Array, Array]:
    """Return the step of each evaluation, step 0 included, and its mean return."""
    return mean_by_step(run.evaluations["step"], run.evaluations["return"])


def column(name: str) -> Read:
    """Return what reads a column of `progress.csv`, where it holds a number."""

    def read(run: LoggedRun) -> tuple[Array, Array]:
        logged = run.progress
        values = logged.get(name, np.full(len(logged["step"]), np.nan))
        there = np.isfinite(values)
        return logged["step"][there], values[there]

    return read


def section_curves(
    section: Section, panels: Sequence[Panel], read: Read, center: str = "mean"
) -> Curves:
    """Return the curves of a section's lines in some panels."""
    found: dict[tuple[Line, Panel], Curve] = {}
    for line in section.lines:
        for panel in panels:
            made = curve(line.within(panel), read, center)
            if made is not None:
                found[line, panel] = made
    return found


def panels_with(found: Curves, panels: Sequence[Panel]) -> list[Panel]:
    """Return those of the panels that have a curve."""
    return [panel for panel in panels if any(each is panel for _, each in found)]


def runs_of(section: Section) -> list[LoggedRun]:
    """Return the runs of all lines of a section."""
    return [run for line in section.lines for run in line.runs]


def learning_curves(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section: return over steps, a panel per environment and task."""
    for section in request.sections:
        every = panels_of(runs_of(section))
        found = section_curves(section, every, evaluations, request.center)
        panels = panels_with(found, every)
        if not panels:
            continue
        figure, axes = canvas.grid(len(panels))
        for axis, panel in zip(axes, panels, strict=True):
            axis.set_title(plain(panel.title))
            draw(axis, found, panel, request.styles)
            axis.set_xlabel("environment steps")
        for axis in axes[:: canvas.MAX_COLUMNS]:
            axis.set_ylabel("return of an evaluation")
        figure.suptitle(plain(section.title))
        canvas.legend(figure, axes, footnote(found.values(), request.center))
        yield Drawing(f"curves-{section.name}", figure, tuple(notes(found)))


def draw(axis: Axes, found: Curves, panel: Panel, styles: dict[str, Style]) -> None:
    """Draw the curves of one panel: center, shaded interval, and single runs where they are few.

    The axis shows where the runs are. An interval may go beyond, also to what no run can have.
    """
    lines = list(dict.fromkeys(line for line, _ in found))
    alpha = canvas.faint(0.15, len(lines))
    for number, line in enumerate(lines):
        made, style = found.get((line, panel)), styles[line.method]
        if made is None:
            continue
        if 1 < made.seeds <= FEW_RUNS:
            axis.plot(
                made.steps, made.values, color=style.color, linestyle="-", linewidth=0.5, alpha=0.45
            )
        if made.low is not None and made.high is not None:
            axis.fill_between(
                made.steps, made.low, made.high, color=style.color, alpha=alpha, linewidth=0
            )
        every = max(1, len(made.steps) // MARKERS_A_LINE)
        axis.plot(
            made.steps,
            made.center,
            **style.line,
            markersize=4,
            linewidth=1.4,
            markevery=(number % every, every),
            label=plain(label(line, found)),
        )
    low, high = _range(found, panel)
    axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    canvas.few_ticks(axis)


def label(line: Line, found: Curves) -> str:
    """Return the text of a line, with its seeds and a `*` where it has not finished."""
    of_line = [made for (each, _), made in found.items() if each is line]
    mark = "" if all(made.finished for made in of_line) else "*"
    return counted_label(line.label, [made.seeds for made in of_line]) + mark


def footnote(curves: Iterable[Curve], center: str, single: bool = True) -> str:
    """Return what lines and bands are; `single`: whether few seeds are drawn one by one."""
    curves = list(curves)
    methods = sorted({made.method for made in curves if made.method})
    parts = [f"{CENTER_WORDS[center]} over seeds"]
    if methods:
        parts.append(f"band: 95 % interval ({', '.join(methods)}), within the range of the runs")
    else:
        parts.append(f"no intervals: fewer than {least_seeds(center)} seeds")
    few = [1 < made.seeds <= FEW_RUNS for made in curves]
    if single and any(few):
        parts.append(f"thin lines: single seeds{'' if all(few) else f', where at most {FEW_RUNS}'}")
    if not all(made.finished for made in curves):
        parts.append("*: not finished")
    return "; ".join(parts)


def notes(found: Curves) -> Iterator[str]:
    """Yield which curves leave out steps that only some of their seeds logged."""
    for (line, panel), made in found.items():
        if made.cut:
            last = canvas.short(float(made.steps[-1]))
            yield (
                f"{panel.title}, {line.label}: only the {len(made.steps)} steps are shown that all "
                f"seeds logged (the last is {last})"
            )


# --- buffer and policy distance -----------------------------------------------------------------

BUFFER_ROWS: Sequence[tuple[str, str]] = (
    ("buffer_size", "transitions in the buffer"),
    ("policy_distance", "policy distance"),
)


def buffers(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section in which a policy distance was measured (RLX Fig. 5)."""
    for section in request.sections:
        panels = environments_of(runs_of(section))
        rows = [section_curves(section, panels, column(name)) for name, _ in BUFFER_ROWS]
        if not rows[1]:
            continue
        figure = rows_over_steps(
            section, panels, [words for _, words in BUFFER_ROWS], rows, request.styles
        )
        yield Drawing(f"buffers-{section.name}", figure)


def _range(found: Curves, panel: Panel) -> tuple[float, float]:
    """Return the smallest and the largest value of the runs in a panel, never the same twice."""
    values = [made.values.ravel() for (_, where), made in found.items() if where is panel]
    every = np.concatenate([np.zeros(0), *values])
    every = every[np.isfinite(every)]
    low, high = float(every.min(initial=np.inf)), float(every.max(initial=-np.inf))
    if not len(every):
        return 0.0, 1.0
    return (low, high) if low < high else (low - 1, high + 1)


def rows_over_steps(
    section: Section,
    panels: Sequence[Panel],
    words: Sequence[str],
    rows: Sequence[Curves],
    styles: dict[str, Style],
    subject: str = "",
    by_powers: Collection[int] = (),
) -> Figure:
    """Return a figure with a row per quantity and a column per panel.

    Args:
        section: what the figure is about; `subject` is added to its heading.
        panels: the columns.
        words: what each row shows.
        rows: the curves of each row.
        styles: of the methods.
        by_powers: the rows, from 0 on, whose axis is logarithmic; 0 has its place on it, too.
    """
    figure, axes = canvas.sheet(len(rows), len(panels), 1.5, sharex="col")
    for number, (line, found, text) in enumerate(zip(axes, rows, words, strict=True)):
        for axis, panel in zip(line, panels, strict=True):
            if number in by_powers:
                axis.set_yscale("symlog", linthresh=1)
            draw(axis, found, panel, styles)
            if number in by_powers:
                lowest, _ = _range(found, panel)
                axis.set_ylim(bottom=lowest / 2 if lowest >= 1 else 0)
        line[0].set_ylabel(text, fontsize="small")
    for axis, panel in zip(axes[0], panels, strict=True):
        axis.set_title(plain(panel.title))
    for axis in axes[-1]:
        axis.set_xlabel("environment steps")
    figure.suptitle(plain(f"{section.title}, {subject}" if subject else section.title))
    every = [made for found in rows for made in found.values()]
    canvas.legend(figure, [axis for line in axes for axis in line], footnote(every, "mean"))
    return figure
