"""Run folders for figures, and what is read back from a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report_samples import write_run

from dstrl_cli.plots.plotting import Options, prepare
from dstrl_cli.plots.request import Drawing, Request
from dstrl_cli.report.runs import load

METRIC = "final"


def runs(root: Path, path: str, curves: Sequence[Mapping[int, float]], **kwargs: Any) -> None:
    """Write runs `root/path/seed<k>`, each with one episode an evaluation: step -> return."""
    for seed, curve in enumerate(curves):
        evaluations = {step: [value] for step, value in curve.items()}
        write_run(root, f"{path}/seed{seed}", evaluations, **kwargs)


def request(root: Path, **options: Any) -> Request:
    """Return what is to be drawn of a results folder."""
    return prepare(load(root), Options(**{"metric": METRIC} | options))[0]


def only(drawings: Sequence[Drawing]) -> Drawing:
    """Return the only figure."""
    (drawing,) = drawings
    return drawing


def line(axis: Any, label: str) -> tuple[list[float], list[float]]:
    """Return x and y of the line of an axis that the legend names so."""
    (found,) = [each for each in axis.get_lines() if each.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def said(figure: Any) -> str:
    """Return the footnote of a figure on one line."""
    titles = [each.get_title().get_text() for each in figure.legends]
    return " ".join(" ".join([figure.get_supxlabel(), *titles]).split())


def append_progress(folder: Path, header: str, rows: Sequence[str]) -> None:
    """Replace `progress.csv` of a run."""
    (folder / "progress.csv").write_text("\n".join([header, *rows]) + "\n")
