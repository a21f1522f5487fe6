"""Tables of text that break between words alone, as far as the terminal is wide enough for that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

NARROW = 80
"""Terminals narrower than this show less in a row."""


@dataclass(frozen=True)
class Layout:
    """The headings and the cells of a table, row by row; a cell may have several lines."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def fitting_table(layouts: Sequence[Layout], width: int, right: Collection[str] = ()) -> Table:
    """Return the first layout that needs no broken word in a terminal of `width` columns.

    Where none fits, the last one is returned, and breaks words but for those of the first column.
    Columns whose heading is in `right` are set flush right.
    """
    for layout in layouts:
        if (widths := _widths(layout, width)) is not None:
            break
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, heading in enumerate(layout.headings):
        table.add_column(
            Text(heading),
            width=None if widths is None else widths[number],
            no_wrap=widths is None and number == 0,
            justify="right" if heading in right else "left",
            overflow="fold",
        )
    for row in layout.rows:
        table.add_row(*map(Text, row))
    return table


def _widths(layout: Layout, width: int) -> list[int] | None:
    """Return the width of each column, or None where the longest words do not fit."""
    columns = list(zip(layout.headings, *layout.rows, strict=True))
    found = [max(_longest(cell.split()) for cell in column) for column in columns]
    wanted = [max(_longest(cell.splitlines()) for cell in column) for column in columns]
    left = width - 2 * len(columns) - sum(found)  # two columns are blank at the edges or between
    if left < 0:
        return None
    for _ in range(left):  # the narrowest column that would use it gets one more
        short = [number for number, each in enumerate(found) if each < wanted[number]]
        if not short:
            break
        found[min(short, key=found.__getitem__)] += 1
    return found


def _longest(parts: Sequence[str]) -> int:
    return max(map(len, parts), default=0)
