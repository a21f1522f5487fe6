"""The results that a page shows: those of a folder, and of results folders and archives below it.

Each becomes a chapter, since runs of different studies are never averaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dstrl_cli.errors import InputError
from dstrl_cli.plots.request import Request
from dstrl_cli.plots.targets import Targets
from dstrl_cli.report import tables
from dstrl_cli.report.metrics import Metric, parse
from dstrl_cli.report.runs import LoggedRun, Results, load
from dstrl_cli.report.sources import ARCHIVE, archives_below, deeper_results, find_runs
from dstrl_cli.report.table import Table

COSTS = ("params", "flops")


@dataclass(frozen=True)
class Chapter:
    """The runs of one results folder or archive.

    Attributes:
        place: the folder or archive.
        name: how it is called on the page.
        results: its runs.
        table: of them, or None where no run has what it would show; `why` says so.
        costs: the same with parameters and FLOPs.
    """

    place: Path
    name: str
    results: Results = field(repr=False)
    table: Table | None = field(repr=False)
    costs: Table | None = field(default=None, repr=False)
    why: str = ""

    @property
    def runs(self) -> tuple[LoggedRun, ...]:
        """Its runs."""
        return self.results.runs

    @cached_property
    def request(self) -> Request:
        """What its curves are drawn from; they show evaluations, whatever the metric is."""
        return Request(self.runs, parse("final"), "mean", Targets())

    def folder(self, run: LoggedRun) -> Path:
        """Return the folder of a run; in an archive there is none."""
        return self.place / run.path


@dataclass(frozen=True)
class Gathered:
    """The chapters of a page, and what could not be read."""

    chapters: tuple[Chapter, ...]
    unread: tuple[str, ...]


def gather(root: Path, metric: Metric | None) -> Gathered:
    """Return what there is to show in a folder or an archive.

    Raises InputError where there is nothing.
    """
    chapters, unread = [], []
    first: InputError | None = None
    try:
        chapters.append(_chapter(root, called(root), metric))
    except InputError as error:
        first = error
    below = list(_below(root))
    if chapters and below and not find_runs(root, lambda *_: None):
        below.remove(root / ARCHIVE)  # it stands for the folder, of which there is a chapter
    for place in below:
        try:
            chapters.append(_chapter(place, place.relative_to(root).as_posix(), metric))
        except InputError as error:
            unread.append(f"{place.relative_to(root)}: {error}")
    if not chapters:
        raise first or InputError(f"{root} holds no runs")
    if first is not None and find_runs(root, lambda *_: None):
        unread.insert(0, str(first))
    return Gathered(tuple(chapters), tuple(unread))


def called(root: Path) -> str:
    """Return the name of a folder or an archive, also of one that is given as `.` or `..`."""
    return root.resolve().name or str(root)


def _below(root: Path) -> Iterator[Path]:
    """Yield the results folders below another one, and archives in it, by name."""
    if not root.is_dir():
        return
    yield from sorted({*deeper_results(root), *archives_below(root)})


def _chapter(place: Path, name: str, metric: Metric | None) -> Chapter:
    """Read the runs of a results folder or an archive."""
    results = load(place)
    try:
        table = tables.build(results, metric)
    except InputError as error:
        return Chapter(place, name, results, None, why=str(error))
    costs = tables.build(results, table.metric, extra=COSTS)
    known = any(cell.cost for cell in costs.cells)
    return Chapter(place, name, results, table, costs if known else None)
