"""What a person reads of a table, as text in grids; how a grid looks is in `render`.

A grid has groups of columns, one per environment, which stay together where it is folded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dstrl_cli.config.printable import printable
from dstrl_cli.report import comparing
from dstrl_cli.report.bold import bold_cells
from dstrl_cli.report.columns import (
    ALL_PARTS,
    MISSING,
    Entry,
    Grid,
    digits_of,
    env_columns,
    ordered_envs,
    overall_columns,
)
from dstrl_cli.report.crosswise import task_grids, turned_grids
from dstrl_cli.report.extra import Parts
from dstrl_cli.report.improvement import METHOD
from dstrl_cli.report.scaling import NORMALIZED
from dstrl_cli.report.table import (
    Comparison,
    Comparisons,
    Section,
    Table,
)

__all__ = ["ALL_PARTS", "Entry", "Grid", "footer", "grids", "title"]

MAX_LISTED = 10


def grids(table: Table) -> list[list[Grid]]:
    """Return the grids of a table: those of its sections, and those of comparisons if any.

    The grids of one list are folded alike.
    """
    if table.paper is not None and table.paper.methods_are_columns:
        turned = (list(turned_grids(table, costs)) for costs in (False, True))
        found = [grids for grids in turned if grids]
    else:
        found = [[_section_grid(table, section) for section in table.sections]]
    if table.by_task:
        found.append(list(task_grids(table)))
    return [*found, list(_test_grids(table.tests))] if table.tests else found


# --- sections -------------------------------------------------------------------------------------


def _section_grid(table: Table, section: Section) -> Grid:
    groups = [env_columns(table, section, env) for env in ordered_envs(table, section)]
    if any(row.overall for row in section.rows):
        groups.append(overall_columns(table, section))
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


# --- comparisons ----------------------------------------------------------------------------------


def _test_grids(tests: Comparisons) -> Iterator[Grid]:
    """Yield a grid per section: a row for two methods, a column for an environment."""
    by_section: dict[tuple[str, str], list[Comparison]] = {}
    for each in tests.found:
        by_section.setdefault((each.section.algo, each.section.sparsity), []).append(each)
    for here in by_section.values():
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
        title = f"{here[0].section.title}: comparisons"
        groups = tuple((printable(env),) for env in envs)
        yield Grid(printable(title), "difference of means", groups, tuple(rows))


def _decision_parts(comparison: Comparison) -> Parts:
    decision = comparison.decision
    first, second = decision.seeds
    count = f"n={first}" if first == second else f"n={first},{second}"
    return [
        comparing.sign(decision),
        f"{decision.difference:+.{digits_of(decision.difference)}f}"
        if first and second
        else MISSING,
        *([] if decision.p is None else [_p_part(decision.p)]),
        count,
    ]


def _p_part(p: float) -> str:
    return "p<0.001" if p < 0.0005 else f"p={p:.3f}"


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
