"""What a person reads of a table, as text in grids; how a grid looks is in `render`.

A grid has groups of columns, one per environment, which stay together where it is folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dstrl_cli.config.printable import printable
from dstrl_cli.report import comparing
from dstrl_cli.report.bold import ALL as OVERALL
from dstrl_cli.report.bold import bold_cells
from dstrl_cli.report.chance import METHOD, Chance
from dstrl_cli.report.extra import EXTRA_COLUMNS, ExtraColumn, Parts
from dstrl_cli.report.intervals import Interval
from dstrl_cli.report.marks import Mark, ordered
from dstrl_cli.report.papers import Match, Published
from dstrl_cli.report.scaling import NORMALIZED
from dstrl_cli.report.table import (
    Cell,
    Comparison,
    Comparisons,
    Look,
    Overall,
    Row,
    Section,
    Table,
    sparsity_title,
)

MISSING = "–"
MAX_LISTED = 10

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


def grids(table: Table) -> list[list[Grid]]:
    """Return the grids of a table: those of its sections, and those of comparisons if any.

    The grids of one list are folded alike.
    """
    found = [[_section_grid(table, section) for section in table.sections]]
    return [*found, list(_test_grids(table.tests))] if table.tests else found


# --- sections -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """One column of a section: its heading, and what is shown of a row."""

    heading: str
    parts: Callable[[Row], Parts | None]
    bold_of: str | None = None  # the environment whose best values are bold here


def _section_grid(table: Table, section: Section) -> Grid:
    groups = [_columns(table, section, env) for env in section.envs]
    if any(row.overall for row in section.rows):
        groups.append(_overall_columns(table, section))
    bold = bold_cells(section, table.look)
    rows = []
    for row in section.rows:
        entries = [
            Entry(column.parts(row) or [MISSING], (row.label, column.bold_of) in bold)
            for group in groups
            for column in group
        ]
        rows.append((printable(row.label), tuple(entries)))
    headings = tuple(tuple(column.heading for column in group) for group in groups)
    return Grid(printable(section.title), "method", headings, tuple(rows))


def _columns(table: Table, section: Section, env: str) -> list[_Column]:
    """Return the columns of one environment."""
    look, paper = table.look, table.paper

    def of_cell(parts: Callable[[Cell], Parts | None]) -> Callable[[Row], Parts | None]:
        return lambda row: parts(row.cells[env]) if env in row.cells else None

    found = [_Column(printable(env), of_cell(lambda cell: _result_parts(cell, look)), env)]
    if look.against is not None:
        found.append(_Column(_beats(section, look), of_cell(lambda cell: _chance(cell.beats))))
    if paper is not None:
        found.append(_Column(paper.name, of_cell(lambda cell: _paper_parts(cell.paper, paper))))
    for name in table.extra:
        extra = EXTRA_COLUMNS[name]
        found.append(_extra_column(extra, of_cell))
        if paper is not None and paper.has_cost(name):
            heading = f"{paper.name} {extra.heading}"
            found.append(_Column(heading, of_cell(_published_cost(paper, name))))
    return found


def _published_cost(paper: Published, column: str) -> Callable[[Cell], Parts | None]:
    return lambda cell: paper.cost(cell.paper, column) if cell.paper else None


def _extra_column(
    extra: ExtraColumn,
    of_cell: Callable[[Callable[[Cell], Parts | None]], Callable[[Row], Parts | None]],
) -> _Column:
    return _Column(
        extra.heading, of_cell(lambda cell: extra.parts(cell.cost) if cell.cost else None)
    )


def _overall_columns(table: Table, section: Section) -> list[_Column]:
    look = table.look

    def of_all(parts: Callable[[Overall], Parts | None]) -> Callable[[Row], Parts | None]:
        return lambda row: parts(row.overall) if row.overall else None

    found = []
    if look.normalize is not None:
        found.append(_Column(OVERALL, of_all(_overall_parts), OVERALL))
    if look.against is not None:
        heading = _beats(section, look)
        heading = heading if found else f"{OVERALL}: {heading}"
        found.append(_Column(heading, of_all(lambda overall: _chance(overall.beats))))
    return found


def _beats(section: Section, look: Look) -> str:
    """Return the heading of the chances to beat a method."""
    labels = [row.label for row in section.rows if row.method == look.against]
    return printable(f"P(> {labels[-1] if labels else look.against})")


def _result_parts(cell: Cell, look: Look) -> Parts:
    digits = _digits(cell.center)
    spread = f"± {cell.std:.{digits}f}"
    if look.spread == "sem":
        spread = "" if cell.sem is None else f"± {cell.sem:.{digits}f}"
    elif look.spread == "interval":
        spread = _bracketed(cell.interval, digits)
    count = f"n={cell.n}{_symbols(cell.marks)}"
    return [part for part in (f"{cell.center:.{digits}f}", spread, count) if part]


def _overall_parts(overall: Overall) -> Parts | None:
    if overall.center is None:
        return None
    digits = _digits(overall.center)
    few, many = min(overall.counts), max(overall.counts)
    count = f"n={few}" if few == many else f"n={few}-{many}"
    spread = _bracketed(overall.interval, digits)
    return [part for part in (f"{overall.center:.{digits}f}", spread, count) if part]


def _bracketed(interval: Interval | None, digits: int) -> str:
    return f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval else ""


def _chance(found: Chance | None) -> Parts | None:
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
    digits = _digits(entry.mean)
    spread = "" if entry.std is None else f"± {entry.std:.{digits}f}"
    first = f"{entry.mean:.{digits}f}{paper.unit}"
    *rest, last = [part for part in (first, spread) if part]
    return [*rest, last + _symbols(match.marks)]


def _digits(value: float) -> int:
    """Return how many decimals to print, about as many as the papers do."""
    return next(digits for digits, low in ((1, 1000), (2, 10), (3, 1), (4, 0)) if abs(value) >= low)


def _symbols(marks: frozenset[Mark]) -> str:
    return "".join(mark.symbol for mark in ordered(marks))


# --- comparisons ----------------------------------------------------------------------------------


def _test_grids(tests: Comparisons) -> Iterator[Grid]:
    """Yield a grid per section: a row for two methods, a column for an environment."""
    by_section: dict[tuple[str, str], list[Comparison]] = {}
    for each in tests.found:
        by_section.setdefault((each.section.algo, each.section.sparsity), []).append(each)
    for (algo, sparsity), here in by_section.items():
        envs = sorted({each.env for each in here})
        by_pair: dict[str, dict[str, Comparison]] = {}
        for each in here:
            label = printable(f"{each.first.label} : {each.second.label}")
            by_pair.setdefault(label, {})[each.env] = each
        rows = []
        for label, found in by_pair.items():
            entries = (
                Entry(_decision_parts(found[env]) if env in found else [MISSING]) for env in envs
            )
            rows.append((label, tuple(entries)))
        title = f"{algo.upper()}, {sparsity_title(sparsity)}: comparisons"
        groups = tuple((printable(env),) for env in envs)
        yield Grid(printable(title), "difference of means", groups, tuple(rows))


def _decision_parts(comparison: Comparison) -> Parts:
    decision = comparison.decision
    first, second = decision.seeds
    count = f"n={first}" if first == second else f"n={first},{second}"
    return [
        comparing.sign(decision),
        f"{decision.difference:+.{_digits(decision.difference)}f}" if first and second else MISSING,
        *([] if decision.p is None else [f"p={decision.p:.3f}"]),
        count,
    ]


# --- above and below ------------------------------------------------------------------------------

CENTER_WORDS = {"mean": "mean", "median": "median", "iqm": "interquartile mean"}
SPREAD_WORDS = {
    "std": " ± standard deviation over seeds (ddof=0)",
    "sem": " ± standard error of the mean over seeds (ddof=1)",
    "interval": " over seeds, 95 % interval",
}


def title(table: Table) -> str:
    """Return what stands above a table."""
    look = table.look
    scale = f"{NORMALIZED[look.normalize]}; " if look.normalize else ""
    shown = f"{CENTER_WORDS[look.center]}{SPREAD_WORDS[look.spread]}"
    return f"{table.metric.name}: {table.metric.description}; {scale}{shown}"


def footer(table: Table) -> Iterator[str]:
    """Yield what stands below a table, each line without characters that would end it."""
    yield from map(printable, _footer_lines(table))


def _footer_lines(table: Table) -> Iterator[str]:
    for mark in table.marks:
        yield f"{mark.symbol} {mark.meaning}"
    yield from _interval_lines(table)
    if table.look.bold == "best":
        yield "bold: the best of its section"
    elif table.look.bold == "within":
        yield "bold: the best of its section, and what lies within its 95 % interval"
    if table.tests is not None:
        yield from comparing.lines(table.tests)
    yield from table.notes
    unfinished = [f"{run.path} ({run.status})" for run in table.unfinished]
    yield from _listing("unfinished runs", unfinished)
    yield from _listing("damaged", [f"{item.path}: {item.cause}" for item in table.damaged])


def _interval_lines(table: Table) -> Iterator[str]:
    """Name how the intervals that are shown were computed, and for how many seeds."""
    counts: dict[str, set[int]] = {}
    if table.look.spread == "interval" or table.look.bold == "within":
        for cell in table.cells:
            if cell.interval is not None:
                counts.setdefault(cell.interval.method, set()).add(cell.n)
    named = [f"{name} (n={_numbers(found)})" for name, found in counts.items()]
    overall = [row.overall for section in table.sections for row in section.rows if row.overall]
    whole = {each.interval.method for each in overall if each.interval}
    named += [f"{name} (all environments)" for name in sorted(whole)]
    if named:
        yield f"95 % intervals: {', '.join(named)}"
    if table.look.against is not None:
        yield (
            "P(> ...): probability that a run of the method beats one of the other, ties half; "
            f"95 % interval: {METHOD}"
        )


def _numbers(found: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(found)))


def _listing(heading: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"{heading} ({len(lines)}):"
        yield from (f"  {line}" for line in lines[:MAX_LISTED])
    if len(lines) > MAX_LISTED:
        yield f"  ... and {len(lines) - MAX_LISTED} more"
