"""What stands in the columns of a table, as text: of one environment, or of all together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dstrl_cli.config.printable import printable
from dstrl_cli.report.bold import ALL as OVERALL
from dstrl_cli.report.extra import EXTRA_COLUMNS, Parts
from dstrl_cli.report.improvement import Improvement
from dstrl_cli.report.intervals import Interval
from dstrl_cli.report.marks import Mark, ordered
from dstrl_cli.report.papers import Match, Published
from dstrl_cli.report.table import Cell, Look, Overall, Row, Section, Table

MISSING = "–"

ALL_PARTS = 6
"""The most parts that an entry has."""


@dataclass(frozen=True)
class Entry:
    """The text of one field of a grid, in pieces that may stand beside or below one another."""

    parts: Parts
    bold: bool = False


@dataclass(frozen=True)
class Grid:
    """A block of text in columns.

    Attributes:
        title: what stands above it.
        corner: the heading of the labels.
        groups: the headings of each group of columns.
        rows: label and entries, as many as there are headings.
    """

    title: str
    corner: str
    groups: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[Entry, ...]], ...]

    @property
    def headings(self) -> tuple[str, ...]:
        """The headings of all columns."""
        return tuple(heading for group in self.groups for heading in group)

    def part(self, start: int, stop: int) -> Grid:
        """Return the grid with only some of its groups."""
        first = sum(map(len, self.groups[:start]))
        last = first + sum(map(len, self.groups[start:stop]))
        rows = tuple((label, entries[first:last]) for label, entries in self.rows)
        return Grid(self.title, self.corner, self.groups[start:stop], rows)

    def split(self, size: int) -> Grid:
        """Return the grid with groups of at most `size` columns, 2 or more.

        A group with more becomes several, each with its first column, which says what the others
        belong to.
        """
        picked: list[list[int]] = []
        first = 0
        for group in self.groups:
            others = range(first + 1, first + len(group))
            starts = others[:: size - 1] or [first + 1]
            picked += [[first, *others[s - first - 1 : s - first + size - 2]] for s in starts]
            first += len(group)
        every = self.headings
        return Grid(
            self.title,
            self.corner,
            tuple(tuple(every[at] for at in columns) for columns in picked),
            tuple(
                (label, tuple(entries[at] for columns in picked for at in columns))
                for label, entries in self.rows
            ),
        )


@dataclass(frozen=True)
class Column:
    """One column of a section: its heading, and what is shown of a row."""

    heading: str
    parts: Callable[[Row], Parts | None]
    bold_of: str | None = None  # the environment whose best values are bold here
    cost: bool = False  # whether it shows sizes or FLOPs


def ordered_envs(table: Table, section: Section) -> list[str]:
    """Return the environments of a section, in the order of the published table beside it."""
    if table.paper is None:
        return list(section.envs)
    return sorted(section.envs, key=table.paper.position)


def env_columns(table: Table, section: Section, env: str) -> list[Column]:
    """Return the columns of one environment."""
    look, paper = table.look, table.paper

    def of_cell(parts: Callable[[Cell], Parts | None]) -> Callable[[Row], Parts | None]:
        return lambda row: parts(row.cells[env]) if env in row.cells else None

    found = [Column(printable(env), of_cell(lambda cell: _result_parts(cell, look)), env)]
    if look.against is not None:
        heading = _improvement_heading(section, look)
        found.append(Column(heading, of_cell(lambda cell: _improvement(cell.improvement))))
    if paper is not None:
        found.append(Column(paper.name, of_cell(lambda cell: _paper_parts(cell.paper, paper))))
    for name in table.extra:
        extra = EXTRA_COLUMNS[name]
        found.append(Column(extra.heading, of_cell(extra.text), cost=extra.cost))
        if paper is not None and paper.has_cost(name):
            heading = f"{paper.name} {extra.heading}"
            found.append(Column(heading, of_cell(_published_cost(paper, name)), cost=True))
    return found


def _published_cost(paper: Published, column: str) -> Callable[[Cell], Parts | None]:
    return lambda cell: paper.cost(cell.paper, column) if cell.paper else None


def _published_average(section: Section, paper: Published) -> Callable[[Row], Parts | None]:
    return lambda row: _paper_parts(paper.average(section.algo, row.method), paper)


def overall_columns(table: Table, section: Section) -> list[Column]:
    """Return the columns of all environments together; none where nothing is averaged."""
    look = table.look

    def of_all(parts: Callable[[Overall], Parts | None]) -> Callable[[Row], Parts | None]:
        return lambda row: parts(row.overall) if row.overall else None

    found = []
    if look.normalize is not None:
        found.append(Column(OVERALL, of_all(_overall_parts), OVERALL))
        if table.paper is not None and table.paper.has_average:
            found.append(Column(table.paper.name, _published_average(section, table.paper)))
    if look.against is not None:
        heading = _improvement_heading(section, look)
        heading = heading if found else f"{OVERALL}: {heading}"
        found.append(Column(heading, of_all(lambda overall: _improvement(overall.improvement))))
    return found


def _improvement_heading(section: Section, look: Look) -> str:
    """Return the heading of the probabilities of improvement over a method."""
    labels = [row.label for row in section.rows if row.method == look.against]
    return printable(f"P(> {labels[-1] if labels else look.against})")


def _result_parts(cell: Cell, look: Look) -> Parts:
    digits = digits_of(cell.center)
    spread = f"± {cell.std:.{digits}f}" if cell.n > 1 else ""
    if look.spread == "sem":
        spread = "" if cell.sem is None else f"± {cell.sem:.{digits}f}"
    elif look.spread == "interval":
        spread = _bracketed(cell.interval, digits)
    count = f"n={cell.n}{_symbols(cell.marks)}"
    return [part for part in (f"{cell.center:.{digits}f}", spread, count) if part]


def _overall_parts(overall: Overall) -> Parts | None:
    if overall.center is None:
        return None
    digits = digits_of(overall.center)
    few, many = min(overall.counts), max(overall.counts)
    count = f"n={few}" if few == many else f"n={few}-{many}"
    spread = _bracketed(overall.interval, digits)
    return [part for part in (f"{overall.center:.{digits}f}", spread, count) if part]


def _bracketed(interval: Interval | None, digits: int) -> str:
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval else ""


def _improvement(found: Improvement | None) -> Parts | None:
    if found is None:
        return None
    interval = found.interval
    return [
        f"{found.value:.2f}",
        *([f"[{interval[0]:.2f}, {interval[1]:.2f}]"] if interval else []),
    ]


def _paper_parts(match: Match | None, paper: Published) -> Parts | None:
    if match is None:
        return None
    entry = match.entry
    digits = digits_of(entry.mean)
    spread = "" if entry.std is None else f"± {entry.std:.{digits}f}"
    first = f"{entry.mean:.{digits}f}{paper.unit}"
    *rest, last = [part for part in (first, spread) if part]
    return [*rest, last + _symbols(match.marks)]


def digits_of(value: float) -> int:
    """Return how many decimals to print, about as many as the papers do."""
    return next(digits for digits, low in ((1, 1000), (2, 10), (3, 1), (4, 0)) if abs(value) >= low)


def _symbols(marks: frozenset[Mark]) -> str:
    return "".join(mark.symbol for mark in ordered(marks))
