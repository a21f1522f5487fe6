"""The whole page: chapters, style and script in one file that loads nothing.

A content security policy lets the browser run this script alone, known by its hash, and load
nothing: what a run's text might smuggle in would neither run nor reach the network.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dstrl_cli import __version__
from dstrl_cli.page.charts import all_drawn
from dstrl_cli.page.gather import Chapter, Gathered, called, gather
from dstrl_cli.page.html import Markup, element, joined, raw
from dstrl_cli.page.masks import Budget, masks
from dstrl_cli.page.missing import missing
from dstrl_cli.page.runs import settings_and_runs
from dstrl_cli.page.tables import spaced, table
from dstrl_cli.report.metrics import parse
from dstrl_cli.report.words import counted


@dataclass(frozen=True)
class Page:
    """A page, and what is on it.

    Attributes:
        html: the file.
        chapters: how many results folders and archives it shows.
        runs, unfinished: how many runs, and how many of them did not finish.
        unread: what could not be read.
    """

    html: str
    chapters: int
    runs: int
    unfinished: int
    unread: tuple[str, ...]


def page(results: Path, metric: str | None = None) -> Page:
    """Return the page of the runs in a folder or an archive, and in results folders below it.

    Raises InputError where there are none, or the metric is unknown.
    """
    chosen = None if metric is None else parse(metric)
    found = gather(results, chosen)
    runs = [run for chapter in found.chapters for run in chapter.runs]
    title = f"dstrl: {called(results)}"
    return Page(
        html=_document(title, _body(title, found)),
        chapters=len(found.chapters),
        runs=len(runs),
        unfinished=sum(not run.finished for run in runs),
        unread=found.unread,
    )


def _document(title: str, body: Markup) -> str:
    style, script = (_own(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"dstrl {__version__}"),
        element("title", title),
        raw("style", style),
    )
    whole = element("html", head, element("body", body, raw("script", script)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _body(title: str, found: Gathered) -> Markup:
    chapters = found.chapters
    curves = all_drawn([each.request for each in chapters])
    budget = Budget()
    parts = [
        _chapter(chapter, f"chapter{number}", drawn, budget)
        for number, (chapter, drawn) in enumerate(zip(chapters, curves, strict=True))
    ]
    unread = element("ul", *(element("li", each) for each in found.unread), class_="missing")
    return joined(
        [
            element("a", "to the results", href="#main", class_="skip"),
            element("header", element("h1", title), element("p", _overview(chapters))),
            _contents(chapters),
            element("main", *parts, id="main"),
            *([element("section", element("h2", "Not read"), unread)] if found.unread else []),
            element("footer", element("p", f"made by dstrl {__version__}")),
            element("div", role="status", class_="tip", hidden=True),
        ]
    )


def _overview(chapters: Sequence[Chapter]) -> str:
    """Return how many runs there are, and how they ended."""
    statuses = Counter(run.status for chapter in chapters for run in chapter.runs)
    said = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    envs = sorted({run.identity.env for chapter in chapters for run in chapter.runs})
    places = counted(len(chapters), "results folder")
    return f"{counted(statuses.total(), 'run')} ({said}) in {places}: {', '.join(envs)}"


PARTS = ("table", "curves", "masks", "missing", "runs")


def _contents(chapters: Sequence[Chapter]) -> Markup:
    items = []
    for number, chapter in enumerate(chapters):
        links = [element("a", part, href=f"#chapter{number}-{part}") for part in PARTS]
        own = element("a", chapter.name, href=f"#chapter{number}")
        items.append(element("li", own, ": ", joined(spaced(links, ", "))))
    return element("nav", element("ul", *items), aria_label="contents")


def _chapter(chapter: Chapter, name: str, curves: Markup | None, budget: Budget) -> Markup:
    nothing = "None: masks are in policy files, and no sparse run here has one (archives never do)."
    no_table = element("p", chapter.why)
    parts = {
        "table": table(chapter.table, chapter.costs) if chapter.table else no_table,
        "curves": curves or element("p", "No evaluations are logged."),
        "masks": masks(chapter, budget) or element("p", nothing),
        "missing": missing(chapter),
        "runs": settings_and_runs(chapter),
    }
    titles = {"missing": "What is missing"}
    sections = [
        element(
            "section",
            element("h3", titles.get(part, part.capitalize())),
            content,
            id=f"{name}-{part}",
        )
        for part, content in parts.items()
    ]
    return element("article", element("h2", chapter.name), *sections, id=name)
