"""Which values of a section are bold: the best of each environment, or all within its interval.

Higher is better for every metric. Unfinished runs take no part, and nothing is bold that stands
alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from dstrl_cli.report.intervals import Interval
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.table import Look, Row, Section

ALL = "all environments"
"""Stands for all environments together where a single one is named otherwise."""

Value = tuple[float, Interval | None]


def bold_cells(section: Section, look: Look) -> set[tuple[str, str]]:
    """Return label and environment of what is bold; `ALL` for all environments together."""
    if look.bold is None:
        return set()
    found = set()
    for env in section.envs:
        values = {row.label: value for row in section.rows if (value := _value(row, env))}
        found |= {(label, env) for label in _best(values, look.bold)}
    overall = {
        row.label: (row.overall.center, row.overall.interval)
        for row in section.rows
        if row.overall and row.overall.center is not None
    }
    return found | {(label, ALL) for label in _best(overall, look.bold)}


def _value(row: Row, env: str) -> Value | None:
    cell = row.cells.get(env)
    if cell is None or Mark.UNFINISHED in cell.marks:
        return None
    return cell.center, cell.interval


def _best(values: Mapping[str, Value], bold: str) -> set[str]:
    """Return the labels of the bold values."""
    if len(values) < 2:
        return set()
    highest = max(center for center, _ in values.values())
    lowest = highest
    if bold == "within":
        ends = [each.low for center, each in values.values() if center == highest and each]
        lowest = min(ends, default=highest)
    return {label for label, (center, _) in values.items() if center >= lowest}
