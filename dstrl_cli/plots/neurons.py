"""Figures of `neurons.csv`: how many neurons are dormant, cut off or hubs, over time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dstrl_cli.plots.curves import Curves, rows_over_steps, runs_of, section_curves
from dstrl_cli.plots.groups import Array, environments
from dstrl_cli.plots.request import Drawing, Request
from dstrl_cli.report.layerfile import LayerRows
from dstrl_cli.report.neurons import (
    DORMANT,
    FILE,
    MAX_FAN_IN,
    NO_INPUT,
    NO_OUTPUT,
    PATHS,
    RANK,
    ROLES,
    SATURATED,
    Quantity,
    over_time,
)
from dstrl_cli.report.runs import LoggedRun


@dataclass(frozen=True)
class Axis:
    """What one row of the figure shows.

    Attributes:
        quantity: its values.
        words: the label of its axis.
        by_powers: whether its axis is logarithmic, since dense networks have so much more.
    """

    quantity: Quantity
    words: str
    by_powers: bool = False


AXES = (
    Axis(DORMANT, "dormant, % of\nneurons"),
    Axis(NO_INPUT, "without input,\n% of neurons"),
    Axis(NO_OUTPUT, "without output,\n% of neurons"),
    Axis(MAX_FAN_IN, "largest\nfan-in"),
    Axis(PATHS, "paths to last\nlayer", by_powers=True),
    Axis(RANK, "rank of last\nhidden layer"),
    Axis(SATURATED, "share of actions\nsaturated"),
)


def neurons(request: Request) -> Iterator[Drawing]:
    """Yield a figure per section, environment and role with anything logged: a row per quantity."""
    logged = {run.path: run.layers(FILE) for run in request.runs}
    logged = {path: rows for path, rows in logged.items() if len(rows)}
    if not logged:
        return
    for section in request.sections:
        there = [run for run in runs_of(section) if run.path in logged]
        panels = environments(there)
        for role in ROLES:
            rows: list[Curves] = []
            shown: list[Axis] = []
            for axis in AXES:
                read = functools.partial(_read, logged, axis.quantity, role)
                if found := section_curves(section, panels, read):
                    rows.append(found)
                    shown.append(axis)
            if rows:
                words = [axis.words for axis in shown]
                by_powers = [number for number, each in enumerate(shown) if each.by_powers]
                figure = rows_over_steps(
                    section, panels, words, rows, request.styles, role, by_powers
                )
                yield Drawing(f"neurons-{role}-{section.name}", figure)


def _read(
    logged: dict[str, LayerRows], quantity: Quantity, role: str, run: LoggedRun
) -> tuple[Array, Array]:
    rows = logged.get(run.path)
    return (np.empty(0), np.empty(0)) if rows is None else over_time(rows, quantity, role)
