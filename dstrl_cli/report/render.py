"""How a table looks: rich for a terminal, Markdown and LaTeX for a text, CSV and JSON for programs.

The first three show the same grids; CSV is long, one row per cell, and JSON holds everything
(`documents`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report import documents
from dstrl_cli.report.extra import Parts
from dstrl_cli.report.grids import ALL_PARTS, Entry, Grid, footer, grids, title
from dstrl_cli.report.table import Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable


def render(table: Table, format: str, console: Console | None = None) -> str:
    """Return `table` as text; raises InputError for an unknown format."""
    if format not in RENDERERS:
        raise InputError(suggest("format", format, RENDERERS))
    return RENDERERS[format](table, console)


WHOLE_LABEL = 20
"""Labels of rows that are no longer are not broken where a terminal is too narrow for a table."""

# --- rich -----------------------------------------------------------------------------------------


def _rich(table: Table, console: Console | None) -> str:
    from rich.console import Console
    from rich.text import Text

    console = console or Console()
    with console.capture() as capture:
        console.print(Text(title(table)))
        for alike in grids(table):
            fitting, layout = _fitted(alike, console)
            for part in (part for grid in fitting for part in layout.folded(grid)):
                console.print(_rich_table(part, layout))
        for line in footer(table):
            # A terminal would break a long line in the middle of words.
            console.print(Text(line), soft_wrap=not console.is_terminal)
    return capture.get()


@dataclass(frozen=True)
class _Layout:
    """How a table is folded: groups of columns side by side, and parts of an entry on one line."""

    groups: int
    parts: int

    def folded(self, grid: Grid) -> list[Grid]:
        starts = range(0, len(grid.groups), self.groups)
        return [grid.part(start, start + self.groups) for start in starts]

    def fold(self, parts: Parts) -> str:
        starts = range(0, len(parts), self.parts)
        return "\n".join(" ".join(parts[start : start + self.parts]) for start in starts)


def _fitted(shown: Sequence[Grid], console: Console) -> tuple[Sequence[Grid], _Layout]:
    """Return grids and the widest layout in which they fit the console, or else the narrowest.

    Where even a single group is too wide, groups are split.
    """
    layout = _layout(shown, console)
    widest = max(len(group) for grid in shown for group in grid.groups)
    for size in range(widest - 1, 1, -1):
        if layout is not None:
            break
        shown = [grid.split(size) for grid in shown]
        layout = _layout(shown, console)
    return shown, layout or _Layout(1, 1)


def _layout(shown: Sequence[Grid], console: Console) -> _Layout | None:
    """Return the widest layout that fits the console; None where there is none."""
    count = max(len(grid.groups) for grid in shown)
    side_by_side = sorted({-(-count // blocks) for blocks in range(1, count + 1)}, reverse=True)
    layouts = [_Layout(groups, parts) for groups in side_by_side for parts in (ALL_PARTS, 2, 1)]
    fitting = (layout for layout in layouts if _width(shown, layout, console) <= console.width)
    return next(fitting, None)


def _width(shown: Iterable[Grid], layout: _Layout, console: Console) -> int:
    from rich.measure import Measurement

    unbounded = console.options.update(max_width=10_000)
    drawn = [_rich_table(part, layout) for grid in shown for part in layout.folded(grid)]
    return max(Measurement.get(console, unbounded, block).maximum for block in drawn)


def _rich_table(grid: Grid, layout: _Layout) -> RichTable:
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(
        title=Text(grid.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    longest = max((len(label) for label, _ in grid.rows), default=0)
    drawn.add_column(grid.corner, overflow="fold", min_width=min(longest, WHOLE_LABEL))
    for heading in grid.headings:
        drawn.add_column(Text(heading), justify="right", overflow="fold")
    for label, entries in grid.rows:
        texts = [
            Text(layout.fold(entry.parts), style="bold" if entry.bold else "") for entry in entries
        ]
        drawn.add_row(Text(label), *texts)
    return drawn


# --- Markdown and LaTeX ---------------------------------------------------------------------------


def _markdown(table: Table, _: Console | None) -> str:
    lines = [_plain_markdown(title(table)), ""]
    for grid in chain.from_iterable(grids(table)):
        lines += [f"**{_plain_markdown(grid.title)}**", ""]
        lines.append(_markdown_row(map(_plain_markdown, [grid.corner, *grid.headings])))
        lines.append(_markdown_row(["---", *("---:" for _ in grid.headings)]))
        for label, entries in grid.rows:
            lines.append(_markdown_row([_plain_markdown(label), *map(_markdown_entry, entries)]))
        lines.append("")
    lines += [f"- {_plain_markdown(line.strip())}" for line in footer(table)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _plain_markdown(text: str) -> str:
    return _escape(text, MARKDOWN)


def _markdown_entry(entry: Entry) -> str:
    text = _plain_markdown(" ".join(entry.parts))
    return f"**{text}**" if entry.bold else text


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _latex(table: Table, _: Console | None) -> str:
    lines = ["% needs \\usepackage{booktabs}", f"% {title(table)}"]
    for grid in chain.from_iterable(grids(table)):
        lines += [
            f"% {grid.title}",
            f"\\begin{{tabular}}{{l{'r' * len(grid.headings)}}}",
            "\\toprule",
        ]
        lines.append(_latex_row(map(_plain_latex, [grid.corner, *grid.headings])))
        lines.append("\\midrule")
        for label, entries in grid.rows:
            lines.append(_latex_row([_plain_latex(label), *map(_latex_entry, entries)]))
        lines += ["\\bottomrule", "\\end{tabular}", ""]
    lines += [f"% {line}" for line in footer(table)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _plain_latex(text: str) -> str:
    return _escape(text, LATEX)


def _latex_entry(entry: Entry) -> str:
    text = _plain_latex(" ".join(entry.parts))
    return f"\\textbf{{{text}}}" if entry.bold else text


def _latex_row(cells: Iterable[str]) -> str:
    row = " & ".join(cells) + " \\\\"
    return f"{{}}{row}" if row.startswith("[") else row  # else an argument of the line before


def _escape(text: str, characters: Mapping[str, str]) -> str:
    return "".join(characters.get(character, character) for character in text)


MARKDOWN = {character: f"\\{character}" for character in "\\|*_~#`<>&]"}
LATEX = {
    "\\": "\\textbackslash{}",
    "~": "$^{\\sim}$",
    "^": "\\^{}",
    "±": "$\\pm$",
    "≈": "$\\approx$",
    "–": "--",
    "*": "$^{*}$",
    "°": "$^{\\circ}$",
    "†": "$^{\\dagger}$",
    "‡": "$^{\\ddagger}$",
    "§": "$^{\\S}$",
    "¶": "$^{\\P}$",
    "<": "$<$",
    ">": "$>$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


RENDERERS: dict[str, Callable[[Table, Console | None], str]] = {
    "rich": _rich,
    "md": _markdown,
    "csv": lambda table, _: documents.as_csv(table),
    "latex": _latex,
    "json": lambda table, _: documents.as_json(table),
}
