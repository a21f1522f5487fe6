"""What a section says beyond single cells: improvement over a method, all environments at once.

Values of different environments are averaged only where they are normalised. The probability of
improvement over a method has no scale, so that it always is.
"""

from __future__ import annotations

from dataclasses import replace

from dstrl_cli.report import intervals
from dstrl_cli.report.improvement import improvement
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.table import Cell, Look, Overall, Row, Section


def with_overall(section: Section, look: Look) -> Section:
    """Return the section with what `look` asks for beyond single cells."""
    rows = section.rows
    # Of a method with a dense and a sparse row the sparse one, which is the second.
    rival = next((row for row in reversed(rows) if row.method == look.against), None)
    if rival is not None:
        rows = tuple(_with_improvements(row, rival) for row in rows)
    if len(section.envs) > 1 and (look.normalize or rival):
        rows = tuple(replace(row, overall=_overall(row, section, look, rival)) for row in rows)
    return replace(section, rows=rows)


def _scores(cell: Cell) -> list[float]:
    return list(cell.values.values())


def _with_improvements(row: Row, rival: Row) -> Row:
    if row is rival:
        return row
    cells = {
        env: replace(cell, improvement=improvement([_scores(cell)], [_scores(rival.cells[env])]))
        if env in rival.cells
        else cell
        for env, cell in row.cells.items()
    }
    return replace(row, cells=cells)


def _overall(row: Row, section: Section, look: Look, rival: Row | None) -> Overall | None:
    """Return a row over all environments of its section; None where one has no finished run."""
    unfinished = any(Mark.UNFINISHED in cell.marks for cell in row.cells.values())
    if unfinished or set(row.cells) != set(section.envs):
        return None
    strata = [_scores(row.cells[env]) for env in section.envs]
    better = None
    if rival is not None and row.method != rival.method and set(rival.cells) == set(section.envs):
        better = improvement(strata, [_scores(rival.cells[env]) for env in section.envs])
    return Overall(
        counts=tuple(map(len, strata)),
        center=intervals.estimate(strata, look.center) if look.normalize else None,
        interval=intervals.interval(strata, look.center) if look.normalize else None,
        improvement=better,
    )
