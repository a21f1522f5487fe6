"""What is to be drawn (`Request`), and what a kind of figure gives back (`Drawing`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dstrl_cli.plots.canvas import Style, styles
from dstrl_cli.plots.groups import Line, Section, sections
from dstrl_cli.plots.targets import Targets
from dstrl_cli.report.cells import Key
from dstrl_cli.report.metrics import Metric
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import Cell
from dstrl_cli.report.tables import method_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_RUNS = 5
"""Up to so many seeds are drawn one by one, beside their mean."""


@dataclass(frozen=True)
class Request:
    """The runs to draw, and how.

    Attributes:
        runs: all runs that were read.
        metric: the number that stands for a run, where a figure needs one.
        center: of seeds, in curves and against sparsity: `mean`, `median` or `iqm`.
        targets: the returns whose time is asked for.
        normalize: how values of several environments are brought to one scale; None: they are not.
        scaled: the cells of all lines and environments on that scale; None: there is none.
    """

    runs: Sequence[LoggedRun]
    metric: Metric
    center: str
    targets: Targets
    normalize: str | None = None
    scaled: Mapping[Key, Cell] | None = None

    @property
    def sections(self) -> list[Section]:
        """The sections of tables."""
        return sections(self.runs)

    @property
    def styles(self) -> dict[str, Style]:
        """The look of every method."""
        return styles(method_labels(self.runs))

    def scaled_cell(self, section: Section, line: Line, env: str) -> Cell | None:
        """Return the cell of a line in an environment, on the common scale."""
        return (self.scaled or {}).get((section.algo, line.sparsity, line.method, env))


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its files without suffix, and what the user should know of it."""

    name: str
    figure: Figure
    notes: tuple[str, ...] = ()


def counted_label(label: str, counts: Sequence[int]) -> str:
    """Return a label with the numbers of seeds: `RLx2 (n=3)`, `RLx2 (n=2-3)`."""
    few, many = min(counts), max(counts)
    return f"{label} (n={few})" if few == many else f"{label} (n={few}-{many})"
