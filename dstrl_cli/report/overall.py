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


def with_improvements(section: Section, look: Look) -> Section:
    """Return the section with the probability of improvement of each cell, where asked for."""
    rival = _rival(section, look)
    if rival is None:
        return section
    return replace(section, rows=tuple(_compared(row, rival) for row in section.rows))


def with_overall(section: Section, look: Look) -> Section:
    """Return the section with what `look` asks for beyond single cells."""
    section = with_improvements(section, look)
    rival = _rival(section, look)
    if len(section.envs) < 2 or not (look.normalize or rival):
        return section
    rows = tuple(replace(row, overall=_overall(row, section, look, rival)) for row in section.rows)
    return replace(section, rows=rows)


def _rival(section: Section, look: Look) -> Row | None:
    """Return the row to improve over; of a dense and a sparse one the sparse, which is second."""
    return next((row for row in reversed(section.rows) if row.method == look.against), None)


def _scores(cell: Cell) -> list[float]:
    return list(cell.values.values())


def _compared(row: Row, rival: Row) -> Row:
    if row is rival:
        return row
    cells = {
        env: replace(cell, improvement=improvement([_scores(cell)], [_scores(rival.cells[env])]))
        if env in rival.cells and not _unfinished(cell, rival.cells[env])
        else cell
        for env, cell in row.cells.items()
    }
    return replace(row, cells=cells)


def _unfinished(*cells: Cell) -> bool:
    return any(Mark.UNFINISHED in cell.marks for cell in cells)


def _overall(row: Row, section: Section, look: Look, rival: Row | None) -> Overall | None:
    """Return a row over all environments of its section; None where one has no finished run."""
    if _unfinished(*row.cells.values()) or set(row.cells) != set(section.envs):
        return None
    strata = [_scores(row.cells[env]) for env in section.envs]
    better = None
    if (
        rival is not None
        and row.method != rival.method
        and set(rival.cells) == set(section.envs)
        and not _unfinished(*rival.cells.values())
    ):
        better = improvement(strata, [_scores(rival.cells[env]) for env in section.envs])
    return Overall(
        counts=tuple(map(len, strata)),
        center=intervals.estimate(strata, look.center) if look.normalize else None,
        interval=intervals.interval(strata, look.center) if look.normalize else None,
        improvement=better,
    )
