"""Learning curves as SVG; their numbers lie beside them, for whoever points at a curve.

A chart shows as it is without any script. Its attributes hold numbers alone, never text of a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dstrl_cli.page.html import Markup, element, joined
from dstrl_cli.plots.canvas import COLORS, Style, short
from dstrl_cli.plots.curves import (
    evaluations,
    footnote,
    label,
    panels_with,
    runs_of,
    section_curves,
)
from dstrl_cli.plots.groups import Array, Curve, Line, Panel, Section, panels
from dstrl_cli.plots.request import FEW_RUNS, Request

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 56, 22, 12, 40
"""Size of a chart, and the room around its plot."""

MOST_POINTS, LEAST_POINTS, ALL_POINTS = 160, 24, 16_000
"""Points of a curve: at most, at least, and of all curves of a page together."""

MOST_SINGLE = 60
"""Up to so many curves on a page, the seeds of each are drawn as well."""


@dataclass(frozen=True)
class Frame:
    """The numbers that a chart reaches over."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        """Return where a step lies."""
        low, high = self.x
        return LEFT + (value - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Return where a return lies."""
        low, high = self.y
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)


@dataclass(frozen=True)
class Figure:
    """The charts of one section: curves of its lines in each panel."""

    section: Section
    panels: Sequence[Panel]
    curves: Mapping[tuple[Line, Panel], Curve]

    @property
    def lines(self) -> list[Line]:
        """Its lines, in the order of tables."""
        return list(dict.fromkeys(line for line, _ in self.curves))


def figures(request: Request) -> list[Figure]:
    """Return the figures of some runs."""
    found = []
    for section in request.sections:
        shown = panels(runs_of(section))
        curves = section_curves(section, shown, evaluations, request.center)
        if curves:
            found.append(Figure(section, panels_with(curves, shown), curves))
    return found


def drawn(figure: Figure, request: Request, count: int) -> Markup:
    """Return a figure; `count` is how many curves the whole page has."""
    most = max(LEAST_POINTS, min(MOST_POINTS, ALL_POINTS // max(count, 1)))
    single = count <= MOST_SINGLE
    charts = [_chart(figure, panel, request.styles, most, single) for panel in figure.panels]
    made = list(figure.curves.values())
    said = footnote(made, request.center, single)
    if any(len(curve.steps) > most for curve in made):
        said += f"; at most {most} evaluations of a curve are shown, evenly spaced"
    return element(
        "section",
        element("h4", figure.section.title),
        element("div", *_legend(figure, request.styles), class_="legend"),
        element("div", *charts, class_="charts"),
        element("p", said, class_="about"),
        class_="curves",
    )


def _legend(figure: Figure, styles: Mapping[str, Style]) -> Iterator[Markup]:
    """Yield a button for each line, which hides and shows it."""
    for number, line in enumerate(figure.lines):
        swatch = element(
            "svg",
            element("path", d="M1 6H31", **_look(styles[line.method])),
            viewBox="0 0 32 12",
            class_="swatch",
            aria_hidden="true",
        )
        yield element(
            "button",
            swatch,
            " ",
            label(line, figure.curves),
            type="button",
            data_line=str(number),
            aria_pressed="true",
        )


def _chart(
    figure: Figure, panel: Panel, styles: Mapping[str, Style], most: int, single: bool
) -> Markup:
    """Return the chart of one panel."""
    here = [
        (number, line, figure.curves[line, panel])
        for number, line in enumerate(figure.lines)
        if (line, panel) in figure.curves
    ]
    frame = _frame(curve for *_, curve in here)
    parts = [*_axes(frame)]
    data = []
    for number, line, curve in here:
        at = thinned(len(curve.steps), most)
        look = _look(styles[line.method])
        parts.append(element("g", *_curve(curve, at, frame, look, single), data_line=str(number)))
        shown = (curve.center, curve.low, curve.high)
        numbers = [_numbers(curve.steps, at, 12), *(_numbers(each, at) for each in shown)]
        data.append(f"[{number},{','.join(numbers)}]")
    box = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM, *frame.x, *frame.y)
    svg = element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        tabindex="0",
        aria_label=f"{panel.title}: return of evaluations over environment steps; "
        "arrow keys read the curves",
        data_box=" ".join(f"{each:.12g}" for each in box),
        data_curves=f"[{','.join(data)}]",
    )
    return element("figure", element("figcaption", panel.title), svg)


def _curve(
    curve: Curve, at: Array, frame: Frame, look: Mapping[str, str], single: bool
) -> Iterator[Markup]:
    """Yield band, single seeds and center of a curve."""
    steps = curve.steps[at]
    if curve.low is not None and curve.high is not None:
        there = np.isfinite(curve.low[at]) & np.isfinite(curve.high[at])
        forth = steps[there]
        low, high = (each[at][there].clip(*frame.y) for each in (curve.low, curve.high))
        outline = np.concatenate([forth, forth[::-1]]), np.concatenate([high, low[::-1]])
        yield element("path", d=f"{_path(*outline, frame)}Z", class_=f"band {look['class_']}")
    if single and 1 < curve.seeds <= FEW_RUNS:
        for values in curve.values.T:
            yield element(
                "path", d=_path(steps, values[at], frame), class_=f"seed {look['class_']}"
            )
    if len(steps) == 1:
        x, y = frame.across(steps[0]), frame.down(curve.center[at][0])
        yield element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="3", class_=look["class_"])
    yield element("path", d=_path(steps, curve.center[at], frame), **look)


def _look(style: Style) -> dict[str, str]:
    """Return the class that gives a line its colour, and its dashes."""
    name = f"c{COLORS.index(style.color)}" if style.color in COLORS else "cd"
    dashes = (
        {}
        if style.dashes == "-"
        else {"stroke_dasharray": " ".join(f"{each:g}" for each in style.dashes[1])}
    )
    return {"class_": f"line {name}"} | dashes


def _path(x: Array, y: Array, frame: Frame) -> str:
    """Return the path through some points; what is not finite is left out."""
    points = [
        f"{frame.across(a):.1f} {frame.down(b):.1f}"
        for a, b in zip(x, y, strict=True)
        if math.isfinite(b)
    ]
    return f"M{'L'.join(points)}" if points else "M0 0"


def _numbers(values: Array | None, at: Array, digits: int = 5) -> str:
    """Return numbers as JSON."""
    if values is None:
        return "null"
    shown = (f"{each:.{digits}g}" if math.isfinite(each) else "null" for each in values[at])
    return f"[{','.join(shown)}]"


def thinned(count: int, most: int) -> Array:
    """Return the numbers of at most `most` of `count` points, evenly spaced, with both ends."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


# --- axes -----------------------------------------------------------------------------------------


def _frame(curves: Iterable[Curve]) -> Frame:
    """Return where the runs of a chart are; an interval that goes beyond is cut there."""
    every = list(curves)
    steps = np.concatenate([curve.steps for curve in every])
    values = np.concatenate([curve.values.ravel() for curve in every])
    values = values[np.isfinite(values)]
    if not len(values):
        values = np.zeros(1)
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * ((high - low) or abs(low) or 1.0)
    return Frame((float(steps.min()), float(steps.max())), (low - margin, high + margin))


def _axes(frame: Frame) -> Iterator[Markup]:
    """Yield grid lines, the numbers beside them, and the names of the axes."""
    for value in ticks(*frame.y):
        y = f"{frame.down(value):.1f}"
        yield element("path", d=f"M{LEFT} {y}H{WIDTH - RIGHT}", class_="grid")
        yield element("text", short(value), x=LEFT - 6, y=y, class_="tick left")
    for value in ticks(*frame.x):
        x = f"{frame.across(value):.1f}"
        yield element("path", d=f"M{x} {HEIGHT - BOTTOM}v4", class_="axis")
        yield element("text", short(value), x=x, y=HEIGHT - BOTTOM + 16, class_="tick")
    yield element("path", d=f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}", class_="axis")
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield element("text", "environment steps", x=middle, y=HEIGHT - 6, class_="tick")


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return about `count` round numbers between two bounds."""
    if not 0 < high - low < math.inf:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= 0.7 * rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def all_drawn(requests: Sequence[Request]) -> list[Markup]:
    """Return the curves of each chapter."""
    found = [(request, figures(request)) for request in requests]
    count = sum(len(figure.curves) for _, each in found for figure in each)
    return [joined(drawn(figure, request, count) for figure in each) for request, each in found]
