"""What all figures share: matplotlib's settings, files, text that shows as it is, panels, legends.

matplotlib is imported inside the functions that draw, so that nothing else needs it.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrl_cli.config.printable import printable
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.runs.files import not_written, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
REMEDY = 'pip install "dstrl[plot]"'

PANEL_WIDTH, PANEL_HEIGHT = 3.3, 2.5
"""Size of a panel in inches."""
MAX_COLUMNS = 4
ROWS_OF_LEGEND, LEGEND_ROW = 2, 0.2
"""Rows of a legend that a figure has room for, and what each further one adds, in inches."""
MAX_TEXT = 60
"""Characters of one label; a longer one is cut."""

SETTINGS = {
    "font.size": 9,
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "svg.hashsalt": "dstrl",  # the same figure gives the same file
}
DPI = 150
WITHOUT_DATE: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {},
}
"""Metadata of each format, without what would differ each time."""


def check_installed(flag: str, remedy: str = REMEDY) -> None:
    """Raise InputError where matplotlib is not installed; `flag` is what asked for a figure."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"{flag}: matplotlib is not installed: {remedy}")


def check_formats(names: Iterable[str]) -> list[str]:
    """Return names of formats, each once. Raises InputError for one that there is not."""
    chosen = list(dict.fromkeys(name.lower().removeprefix(".") for name in names))
    for name in chosen:
        if name not in FORMATS:
            raise InputError(suggest("format of --format", name, FORMATS))
    return chosen


@contextmanager
def settings() -> Iterator[None]:
    """Draw with dstrl's settings and none of the user's: figures look alike everywhere."""
    import matplotlib as mpl

    with mpl.rc_context(dict(mpl.rcParamsDefault) | SETTINGS):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file in the format of its suffix; a former file is replaced at once.

    Raises DstrlError where it cannot be written.
    """
    metadata = WITHOUT_DATE[path.suffix.removeprefix(".").lower()]
    try:
        with replacing(path, path.suffix) as temporary:
            figure.savefig(temporary, metadata=metadata, dpi=DPI)
    except OSError as error:
        raise not_written(path, error) from error


def plain(text: str) -> str:
    """Return text of a run so that matplotlib shows it as it is: a `$` begins no formula."""
    shown = printable(text)
    if len(shown) > MAX_TEXT:
        shown = shown[: MAX_TEXT - 1] + "…"
    return shown.replace("$", r"\$")


# --- how a method looks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """Colour, dashes and marker of a method: each alone tells most methods apart."""

    color: str
    dashes: Any
    marker: str

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for a line with markers."""
        return {"color": self.color, "linestyle": self.dashes, "marker": self.marker}


DENSE_STYLE = Style("#000000", "-", "")
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#666666")
"""Okabe and Ito's colours, which colour-blind readers tell apart, and a grey; black is dense."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 1, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return the style of each method, in the order given; they are the same in all figures.

    The numbers of colours, dashes and markers have no common divisor, so that a combination comes
    again only after hundreds of methods.
    """
    others = [method for method in dict.fromkeys(methods) if method != "dense"]
    found = {
        method: Style(
            COLORS[number % len(COLORS)],
            DASHES[number % len(DASHES)],
            MARKERS[number % len(MARKERS)],
        )
        for number, method in enumerate(others)
    }
    return found | {"dense": DENSE_STYLE}


# --- panels and legends -------------------------------------------------------------------------


def grid(count: int, height: float = PANEL_HEIGHT) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels in rows, and its panels."""
    columns = min(count, MAX_COLUMNS)
    rows = math.ceil(count / columns)
    figure, axes = sheet(rows, columns, height)
    flat = [axis for line in axes for axis in line]
    for axis in flat[count:]:
        axis.remove()
    return figure, flat[:count]


def sheet(
    rows: int, columns: int, height: float = PANEL_HEIGHT, **shared: Any
) -> tuple[Figure, Sequence[Sequence[Axes]]]:
    """Return a figure with panels in rows and columns."""
    from matplotlib.figure import Figure

    size = (max(PANEL_WIDTH * columns, 4.5), height * rows + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def legend(figure: Figure, axes: Iterable[Axes], footnote: str = "") -> None:
    """Put a footnote and one legend of all panels below them, where they cover no curve."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    width = figure.get_size_inches()[0]
    if not entries:
        figure.supxlabel(folded(footnote, width), fontsize="x-small", color="#444444")
        return
    entry = 0.075 * max(map(len, entries)) + 0.75
    if entry > width:  # one panel, and a name longer than it is wide
        width = entry
        figure.set_figwidth(width)
    text = folded(footnote, width)
    columns = max(1, min(len(entries), int(width / entry)))
    further = math.ceil(len(entries) / columns) - ROWS_OF_LEGEND
    if further > 0:  # many or long names must not take the panels' room
        figure.set_figheight(figure.get_figheight() + further * LEGEND_ROW)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=columns,
        title=text or None,  # where the layout keeps it apart from labels and entries
        title_fontproperties={"size": "x-small"},
    )


def folded(text: str, width: float) -> str:
    """Return a footnote in lines that fit a figure of `width` inches."""
    import textwrap

    return "\n".join(textwrap.wrap(text, max(30, int(width * 17))))


def faint(most: float, bands: int) -> float:
    """Return how opaque each of some bands is that may lie over one another; at most `most`."""
    return most * min(1.0, 3 / max(bands, 1))


def few_ticks(axis: Axes) -> None:
    """Write steps as 200k or 1M, on few ticks that do not touch."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    for side in (axis.xaxis, axis.yaxis):
        _write_shortly(side)


def ticks_by_powers(side: Axis) -> None:
    """Write a logarithmic axis as 10k, and where it has less than two decades also 20k and 50k."""
    from matplotlib.ticker import SymmetricalLogLocator

    low, high = sorted(side.get_view_interval())
    subs = (1.0, 2.0, 5.0) if high < 100 * max(low, 1.0) else (1.0,)
    side.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=subs))
    _write_shortly(side)


def _write_shortly(side: Axis) -> None:
    from matplotlib.ticker import FuncFormatter

    side.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


UNITS: Mapping[str, float] = {"T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3}


def short(value: float) -> str:
    """Return a number in at most about five characters: 950, 25k, 1.5M; beyond, 1e15."""
    if abs(value) >= 1e15:
        return f"{value:.1e}".replace("e+", "e")
    for unit, size in UNITS.items():
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
