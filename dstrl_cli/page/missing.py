"""What is missing in a chapter: unfinished and failed runs, seeds, damaged files, other commits."""

from __future__ import annotations

from collections.abc import Iterator

from dstrl_cli.page.gather import Chapter
from dstrl_cli.page.html import Markup, element
from dstrl_cli.report.notes import MAX_VALUES, lacking_seeds
from dstrl_cli.report.runs import LoggedRun

Block = tuple[str, list[str]]


def missing(chapter: Chapter) -> Markup:
    """Return what is missing, or that nothing is."""
    blocks = [(heading, lines) for heading, lines in _blocks(chapter) if lines]
    if not blocks:
        return element("p", "Nothing: all runs that are here finished, and no row lacks a seed.")
    parts = []
    for heading, lines in blocks:
        items = [element("li", line) for line in lines]
        parts.append(element("h4", f"{heading} ({len(lines)})"))
        parts.append(element("ul", *items, class_="missing"))
    return element("div", *parts)


def _blocks(chapter: Chapter) -> Iterator[Block]:
    unfinished = [run for run in chapter.runs if not run.finished]
    yield "unfinished runs", [_ended(run) for run in unfinished]
    table = chapter.table
    if table is None:
        yield "no table", [chapter.why]
        yield "damaged", [f"{each.path}: {each.cause}" for each in chapter.results.damaged]
        return
    seeds = list(dict.fromkeys(line for each in table.sections for line in lacking_seeds(each)))
    yield "seeds", seeds
    damaged = dict.fromkeys((*table.damaged, *chapter.results.damaged))
    yield "damaged", [f"{each.path}: {each.cause}" for each in damaged]
    told = {*seeds, f"{len(seeds) - MAX_VALUES} more lack seeds that others have"}
    yield "to be known of the table", [note for note in table.notes if note not in told]


def _ended(run: LoggedRun) -> str:
    """Return how a run ended that did not finish."""
    steps, wanted = run.summary.get("steps"), run.config.get("steps")
    reached = f", {steps:,} of {wanted:,} steps" if _counts(steps, wanted) else ""
    error = run.summary.get("error")
    return f"{run.path}: {run.status}{reached}{f': {error}' if error else ''}"


def _counts(*values: object) -> bool:
    return all(isinstance(each, int) for each in values)
