"""How a table looks: rich for a terminal, Markdown and LaTeX for a text, CSV and JSON for programs.

The first three show the same cells; CSV is long, one row per cell, and JSON holds everything.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from dstrl_cli.config.printable import printable
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report.extra import EXTRA_COLUMNS, ExtraColumn, Parts
from dstrl_cli.report.marks import Mark, ordered
from dstrl_cli.report.papers import Match, Published
from dstrl_cli.report.table import Cell, Section, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

MISSING = "–"
MAX_LISTED = 10
ALL_PARTS = 6
"""The most parts that a cell has."""


def render(table: Table, format: str, console: Console | None = None) -> str:
    """Return `table` as text; raises InputError for an unknown format."""
    if format not in RENDERERS:
        raise InputError(suggest("format", format, RENDERERS))
    return RENDERERS[format](table, console)


# --- what the cells say ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column: an environment, and what is shown of its cells."""

    env: str
    header: str
    parts: Callable[[Cell], Parts | None]


def columns(table: Table, env: str) -> list[Column]:
    """Return the columns of one environment."""
    found = [Column(env, printable(env), lambda cell: _result_parts(cell, table.center))]
    if table.paper is not None:
        paper = table.paper
        found.append(Column(env, paper.name, lambda cell: _paper_parts(cell.paper, paper)))
    return found + [_extra_column(env, EXTRA_COLUMNS[name]) for name in table.extra]


def _extra_column(env: str, extra: ExtraColumn) -> Column:
    return Column(env, extra.heading, lambda cell: extra.parts(cell.cost) if cell.cost else None)


def _result_parts(cell: Cell, center: str) -> Parts:
    digits = _digits(cell.center)
    spread = f"± {cell.std:.{digits}f}"
    if center != "mean":
        interval = cell.interval
        spread = f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]" if interval else ""
    count = f"n={cell.n}{_symbols(cell.marks)}"
    return [part for part in (f"{cell.center:.{digits}f}", spread, count) if part]


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


def _grid(
    table: Table, section: Section, shown: Iterable[Column]
) -> Iterator[tuple[str, list[Parts]]]:
    """Yield each row's label and the parts of its cells."""
    columns = list(shown)
    for row in section.rows:
        cells = [row.cells.get(column.env) for column in columns]
        yield (
            printable(row.label),
            [
                (column.parts(cell) if cell else None) or [MISSING]
                for column, cell in zip(columns, cells, strict=True)
            ],
        )


def _title(table: Table) -> str:
    spread = {
        "mean": "mean ± standard deviation over seeds (ddof=0)",
        "iqm": "interquartile mean over seeds, 95 % bootstrap interval",
    }[table.center]
    return f"{table.metric.name}: {table.metric.description}; {spread}"


def _footer(table: Table) -> Iterator[str]:
    """Yield what stands below a table, each line without characters that would end it."""
    yield from map(printable, _footer_lines(table))


def _footer_lines(table: Table) -> Iterator[str]:
    for mark in table.marks:
        yield f"{mark.symbol} {mark.meaning}"
    yield from table.notes
    unfinished = [f"{run.path} ({run.status})" for run in table.unfinished]
    yield from _listing("unfinished runs", unfinished)
    yield from _listing("damaged", [f"{item.path}: {item.cause}" for item in table.damaged])


def _listing(heading: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield f"{heading} ({len(lines)}):"
        yield from (f"  {line}" for line in lines[:MAX_LISTED])
    if len(lines) > MAX_LISTED:
        yield f"  ... and {len(lines) - MAX_LISTED} more"


# --- rich -----------------------------------------------------------------------------------------


def _rich(table: Table, console: Console | None) -> str:
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    layout = _layout(table, console)
    with console.capture() as capture:
        console.print(Text(_title(table)))
        for section in table.sections:
            for block in _rich_blocks(table, section, layout):
                console.print(block)
        for line in _footer(table):
            console.print(Text(line), soft_wrap=True)
    return capture.get()


@dataclass(frozen=True)
class _Layout:
    """How a table is folded: environments side by side, and parts of a cell on one line."""

    envs: int
    parts: int

    def fold(self, parts: Parts) -> str:
        starts = range(0, len(parts), self.parts)
        return "\n".join(" ".join(parts[start : start + self.parts]) for start in starts)


def _layout(table: Table, console: Console) -> _Layout:
    """Return the widest layout that fits the console, or else the narrowest."""
    count = max(len(section.envs) for section in table.sections)
    side_by_side = sorted({-(-count // blocks) for blocks in range(1, count + 1)}, reverse=True)
    layouts = [_Layout(envs, parts) for envs in side_by_side for parts in (ALL_PARTS, 2, 1)]
    fitting = (layout for layout in layouts if _width(table, layout, console) <= console.width)
    return next(fitting, layouts[-1])


def _width(table: Table, layout: _Layout, console: Console) -> int:
    from rich.measure import Measurement

    unbounded = console.options.update(max_width=10_000)
    drawn = [block for section in table.sections for block in _rich_blocks(table, section, layout)]
    return max(Measurement.get(console, unbounded, block).maximum for block in drawn)


def _rich_blocks(table: Table, section: Section, layout: _Layout) -> Iterator[RichTable]:
    """Yield a section as one or several tables of as many environments as the layout allows."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    for start in range(0, len(section.envs), layout.envs):
        envs = section.envs[start : start + layout.envs]
        shown = [column for env in envs for column in columns(table, env)]
        drawn = RichTable(
            title=Text(printable(section.title)),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
        )
        drawn.add_column("method", overflow="fold")
        for column in shown:
            drawn.add_column(Text(column.header), justify="right", overflow="fold")
        for label, cells in _grid(table, section, shown):
            drawn.add_row(Text(label), *(Text(layout.fold(parts)) for parts in cells))
        yield drawn


# --- Markdown and LaTeX ---------------------------------------------------------------------------


def _markdown(table: Table, _: Console | None) -> str:
    lines = [_escape(_title(table), MARKDOWN), ""]
    for section in table.sections:
        shown = [column for env in section.envs for column in columns(table, env)]
        lines += [f"**{_escape(printable(section.title), MARKDOWN)}**", ""]
        lines.append(_markdown_row(["method", *(column.header for column in shown)]))
        lines.append(_markdown_row(["---", *("---:" for _ in shown)]))
        for label, cells in _grid(table, section, shown):
            lines.append(_markdown_row([label, *(" ".join(parts) for parts in cells)]))
        lines.append("")
    lines += [f"- {_escape(line.strip(), MARKDOWN)}" for line in _footer(table)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escape(cell, MARKDOWN) for cell in cells) + " |"


def _latex(table: Table, _: Console | None) -> str:
    lines = ["% needs \\usepackage{booktabs}", f"% {_title(table)}"]
    for section in table.sections:
        shown = [column for env in section.envs for column in columns(table, env)]
        lines += [
            f"% {printable(section.title)}",
            f"\\begin{{tabular}}{{l{'r' * len(shown)}}}",
            "\\toprule",
        ]
        lines.append(_latex_row(["method", *(column.header for column in shown)]))
        lines.append("\\midrule")
        for label, cells in _grid(table, section, shown):
            lines.append(_latex_row([label, *(" ".join(parts) for parts in cells)]))
        lines += ["\\bottomrule", "\\end{tabular}", ""]
    lines += [f"% {line}" for line in _footer(table)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(_escape(cell, LATEX) for cell in cells) + " \\\\"


def _escape(text: str, characters: Mapping[str, str]) -> str:
    return "".join(characters.get(character, character) for character in text)


MARKDOWN = {character: f"\\{character}" for character in "\\|*_~#`<>&]"}
LATEX = {
    "\\": "\\textbackslash{}",
    "~": "$^{\\sim}$",
    "^": "\\^{}",
    "±": "$\\pm$",
    "–": "--",
    "*": "$^{*}$",
    "°": "$^{\\circ}$",
    "†": "$^{\\dagger}$",
    "‡": "$^{\\ddagger}$",
    "§": "$^{\\S}$",
    "¶": "$^{\\P}$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


# --- CSV and JSON ---------------------------------------------------------------------------------


def _csv(table: Table, _: Console | None) -> str:
    """One row per cell; dense rows appear once per section, as in the other formats."""
    rows = []
    for section in table.sections:
        for row in section.rows:
            where = {"algo": section.algo, "sparsity": section.sparsity, "method": row.method}
            for env, cell in row.cells.items():
                flat = where | {"label": row.label, "env": env} | _flat_cell(cell, table)
                rows.append({name: _harmless(value) for name, value in flat.items()})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: text that looks like one is quoted."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text


FORMULA_SIGNS = ("=", "+", "-", "@")


def _flat_cell(cell: Cell, table: Table) -> dict[str, Any]:
    interval, paper = cell.interval, cell.paper
    flat: dict[str, Any] = {
        "metric": table.metric.name,
        "center": cell.center,
        "mean": cell.mean,
        "std": cell.std,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "n": cell.n,
        "seeds": " ".join(map(str, cell.seeds)),
        "marks": " ".join(ordered(cell.marks)),
    }
    if table.paper is not None:
        flat |= {
            "paper_mean": paper.entry.mean if paper else None,
            "paper_std": paper.entry.std if paper else None,
            "paper_marks": " ".join(ordered(paper.marks)) if paper else None,
        }
    if table.extra:
        names = [name for extra in table.extra for name in EXTRA_COLUMNS[extra].fields]
        flat |= {name: getattr(cell.cost, name) if cell.cost else None for name in names}
    return flat


def _json(table: Table, _: Console | None) -> str:
    document = {
        "metric": table.metric.name,
        "description": table.metric.description,
        "center": table.center,
        "compare": table.paper.name if table.paper else None,
        "envs": list(table.envs),
        "sections": [
            {
                "algo": section.algo,
                "sparsity": section.sparsity,
                "rows": [
                    {
                        "method": row.method,
                        "label": row.label,
                        "cells": {env: _json_cell(cell) for env, cell in row.cells.items()},
                    }
                    for row in section.rows
                ],
            }
            for section in table.sections
        ],
        "marks": {mark.value: mark.meaning for mark in table.marks},
        "unfinished": [{"path": run.path, "status": run.status} for run in table.unfinished],
        "damaged": [asdict(damage) for damage in table.damaged],
        "unchecked": table.unchecked,
        "notes": list(table.notes),
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _json_cell(cell: Cell) -> dict[str, Any]:
    paper = cell.paper
    return {
        "center": cell.center,
        "mean": cell.mean,
        "std": cell.std,
        "interval": [cell.interval.low, cell.interval.high] if cell.interval else None,
        "n": cell.n,
        "seeds": list(cell.seeds),
        "values": list(cell.values.values()),
        "left_out": list(cell.left_out),
        "tasks": list(cell.tasks),
        "marks": list(ordered(cell.marks)),
        "differing": list(cell.differing),
        "paper": asdict(paper.entry) | {"marks": list(ordered(paper.marks))} if paper else None,
        "cost": asdict(cell.cost) if cell.cost else None,
    }


RENDERERS: dict[str, Callable[[Table, Console | None], str]] = {
    "rich": _rich,
    "md": _markdown,
    "csv": _csv,
    "latex": _latex,
    "json": _json,
}
