"""The table of a chapter as HTML: the grids that `dstrl table` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from dstrl_cli.page.html import Markup, element, joined
from dstrl_cli.report.columns import Grid
from dstrl_cli.report.grids import grids, title
from dstrl_cli.report.table import Table


def table(found: Table, costs: Table | None) -> Markup:
    """Return a table, with what its numbers and marks are; that with `costs` is closed at first."""
    parts: list[Markup] = [element("p", title(found), class_="about")]
    parts += [_grid(each) for each in chain.from_iterable(grids(found))]
    marks = [element("li", f"{mark.symbol} {mark.meaning}") for mark in found.marks]
    parts += [element("ul", *marks, class_="marks")] if marks else []
    if costs is not None:
        shown = [_grid(each) for each in chain.from_iterable(grids(costs))]
        parts.append(element("details", element("summary", "with parameters and FLOPs"), *shown))
    return joined(parts)


def _grid(grid: Grid) -> Markup:
    heads = [element("th", grid.corner, scope="col")]
    heads += [element("th", heading, scope="col") for heading in grid.headings]
    body = []
    for label, entries in grid.rows:
        cells = []
        for entry in entries:
            shown = " ".join(entry.parts)
            cells.append(element("td", element("strong", shown) if entry.bold else shown))
        body.append(element("tr", element("th", label, scope="row"), *cells))
    return scrolling(
        element(
            "table",
            element("caption", grid.title),
            element("thead", element("tr", *heads)),
            element("tbody", *body),
            class_="numbers",
        ),
        grid.title,
    )


def spaced(parts: Sequence[Markup], between: str) -> Iterator[str]:
    """Yield pieces with something between them."""
    for number, part in enumerate(parts):
        yield from ([between] if number else [])
        yield part


def scrolling(content: Markup, name: str) -> Markup:
    """Return something wide that a narrow window scrolls, also by keys."""
    return element("div", content, class_="wide", tabindex="0", role="region", aria_label=name)


def pairs(rows: Iterator[tuple[str, str]]) -> Markup:
    """Return names and values, side by side."""
    return element("dl", *(element("div", element("dt", k), element("dd", v)) for k, v in rows))
