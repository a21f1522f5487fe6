"""A small curve of returns for the terminal: braille, or points where that cannot be shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console
from rich.text import Text

from dstrl_cli.terminal.wording import count, number

HEIGHT = 5
"""Lines of the curve."""

FEWEST = 3
"""Evaluations from which there is a curve."""

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character: four rows of two dots."""
BRAILLE = 0x2800

Points = Sequence[tuple[float, float]]


def curve(points: Points, width: int, braille: bool = True) -> list[str]:
    """Return the lines of a curve of (step, return), with the highest and lowest return beside it.

    Args:
        points: by rising step; at least two.
        width: columns of the terminal.
        braille: whether braille characters can be shown; else points are.
    """
    low, high = min(value for _, value in points), max(value for _, value in points)
    names = [number(high), number(low) if low < high else ""]
    margin = max(map(len, names)) + 1
    columns = max(10, width - margin)
    across, down = (2, 4) if braille else (1, 1)
    dots = _dots(points, columns * across, HEIGHT * down)
    rows = [
        "".join(_cell(dots, column, row, braille) for column in range(columns))
        for row in range(HEIGHT)
    ]
    sides = [names[0], *[""] * (HEIGHT - 2), names[1]]
    return [f"{side:>{margin - 1}} {row.rstrip()}" for side, row in zip(sides, rows, strict=True)]


def _dots(points: Points, across: int, down: int) -> set[tuple[int, int]]:
    """Return which dots are set, from the left and from the top; gaps are drawn over."""
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    at = [
        (
            round((step - first) / ((last - first) or 1) * (across - 1)),
            round((high - value) / ((high - low) or 1) * (down - 1)),
        )
        for step, value in points
    ]
    found = set(at)
    for (left, above), (right, below) in pairwise(at):
        length = max(right - left, abs(below - above), 1)
        for part in range(length):
            x, y = (a + part / length * (b - a) for a, b in ((left, right), (above, below)))
            found.add((round(x), round(y)))
    return found


def _cell(dots: set[tuple[int, int]], column: int, row: int, braille: bool) -> str:
    if not braille:
        return "*" if (column, row) in dots else " "
    bits = sum(
        bit
        for down, line in enumerate(DOTS)
        for across, bit in enumerate(line)
        if (2 * column + across, 4 * row + down) in dots
    )
    return chr(BRAILLE + bits) if bits else " "


def shown(points: Points, console: Console) -> Text | None:
    """Return the curve for a terminal, or None where there is no room or there are few points."""
    if len(points) < FEWEST or console.height < 3 * HEIGHT:
        return None
    braille = (console.encoding or "").lower().startswith("utf")
    width = min(console.width - 1, 100)
    first, last = count(points[0][0]), count(points[-1][0])
    title = f"return of evaluations, steps {first} to {last}"
    return Text("\n".join([title, *curve(points, width, braille)]), no_wrap=True)
