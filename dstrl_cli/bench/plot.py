"""The growth plot: time of one update against density, one panel per algorithm and width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from dstrl_cli.bench.plan import REMEDY
from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.errors import InputError
from dstrl_cli.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

FORMATS = tuple(f".{name}" for name in canvas.FORMATS)
APART = ("dst", "env", "batch", "threads", "members", "jobs", "varied")
"""What rows may differ in beside engine and sparsity, within a panel."""

COLORS = {"masked": "tab:blue", "sparse": "tab:orange", "sb3": "tab:green", "sbx": "tab:red"}


def check(path: Path) -> None:
    """Raise InputError where a plot cannot be written, before anything is measured."""
    if path.suffix not in FORMATS:
        raise InputError(f"--plot {path}: must end in {', '.join(FORMATS)}")
    canvas.check_installed("--plot", REMEDY)


def growth(rows: Sequence[Row], path: Path) -> None:
    """Write the plot of rows of the CSV file (`show.row`): both axes logarithmic."""
    from matplotlib.figure import Figure

    algos = list(dict.fromkeys(row["algo"] for row in rows))
    widths = list(dict.fromkeys(row["width"] for row in rows))
    figure = Figure(figsize=(3.2 * len(widths), 2.8 * len(algos) + 0.6), layout="constrained")
    axes = figure.subplots(len(algos), len(widths), squeeze=False, sharex=True)
    for algo, line in zip(algos, axes, strict=True):
        for width, axis in zip(widths, line, strict=True):
            _panel(axis, [r for r in rows if r["algo"] == algo and r["width"] == width])
            axis.set_title(f"{algo.upper()}, width {width}", fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("density")
    for line in axes:
        line[0].set_ylabel("ms per update")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    canvas.save(figure, path)


def _panel(axis: Axes, rows: Sequence[Row]) -> None:
    """Draw the engines as lines, and as dashed lines the dense network and the arithmetic.

    What else differs among `rows` has a line of its own, too: methods, threads, ...
    """
    axis.set_xscale("log")
    axis.set_yscale("log")
    own = [row for row in rows if row["dst"] != row["engine"]]  # those of peers have one name
    differing = [name for name in APART if len({row[name] for row in own}) > 1]
    lines: dict[str, list[Row]] = {}
    for row in rows:
        said = differing if row in own else ()
        label = ", ".join(str(row[name]) for name in ("engine", *said))
        lines.setdefault(label, []).append(row)
    for label, found in lines.items():
        x, y = zip(*sorted((_density(row), row["ms_median"]) for row in found), strict=True)
        color = None if differing else COLORS.get(label)
        axis.plot(x, y, marker="o", markersize=3, color=color, label=label)
    dense = [r["ms_median"] for r in rows if r["engine"] == "masked" and _density(r) == 1]
    if dense:
        axis.axhline(min(dense), linestyle="--", color="tab:gray", label="dense, masked")
    floor = sorted(
        {(_density(r), r["arithmetic_floor_ms"]) for r in rows if r["arithmetic_floor_ms"]}
    )
    if floor:
        x, y = zip(*floor, strict=True)
        axis.plot(x, y, linestyle="--", color="black", label="arithmetic alone")
    densities = sorted({_density(row) for row in rows})
    axis.set_xticks(densities, [f"{100 * each:.3g}%" for each in densities], fontsize="x-small")
    axis.minorticks_off()
    axis.grid(alpha=0.3)


def _density(row: Row) -> float:
    """Return the density; where actor and critics have one each, the mean of the two."""
    return round(1 - mean(parse_sparsity_label(row["sparsity"])), 6)
