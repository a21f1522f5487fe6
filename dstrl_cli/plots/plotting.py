"""`dstrl plot`: reads runs, draws the kinds of figures that are wanted, and writes their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dstrl_cli.errors import InputError, suggest
from dstrl_cli.plots import canvas
from dstrl_cli.plots.curves import buffers, learning_curves
from dstrl_cli.plots.groups import environments
from dstrl_cli.plots.neurons import neurons
from dstrl_cli.plots.paths import against_paths
from dstrl_cli.plots.reach import time_to_return
from dstrl_cli.plots.request import Drawing, Request
from dstrl_cli.plots.scores import against_sparsity, cell, interquartile_means, profiles
from dstrl_cli.plots.targets import Targets
from dstrl_cli.report import grids, tables
from dstrl_cli.report.metrics import parse
from dstrl_cli.report.runs import Results, load
from dstrl_cli.report.scaling import NORMALIZED, normalize
from dstrl_cli.report.statistics import CENTERS
from dstrl_cli.report.table import Look
from dstrl_cli.runs.folder import check_writable


@dataclass(frozen=True)
class Kind:
    """A kind of figure: what draws it, and what it takes that not all results have."""

    draw: Callable[[Request], Iterator[Drawing]]
    needs: str


KINDS: dict[str, Kind] = {
    "curves": Kind(learning_curves, "evaluations"),
    "sparsity": Kind(against_sparsity, "runs at two sparsities or more"),
    "profile": Kind(profiles, "dense runs to normalise by, where there are several environments"),
    "iqm": Kind(interquartile_means, "evaluations"),
    "buffers": Kind(buffers, "policy distances in progress.csv (a dynamic buffer)"),
    "neurons": Kind(neurons, "neurons.csv"),
    "paths": Kind(against_paths, "neurons.csv of two methods or more"),
    "time": Kind(time_to_return, "evaluations after step 0"),
}


@dataclass(frozen=True)
class Options:
    """What is wanted; None leaves a choice to the runs.

    Attributes:
        kinds: names of `KINDS`; empty: all that the runs allow.
        formats: of files.
        metric: the number that stands for a run.
        center: `mean`, `median` or `iqm`.
        normalize: `dense` or `random-dense`, for figures over several environments.
        targets: the returns whose time is asked for.
    """

    kinds: Sequence[str] = ()
    formats: Sequence[str] = canvas.FORMATS
    metric: str | None = None
    center: str = "mean"
    normalize: str | None = None
    targets: Targets = field(default_factory=Targets)


@dataclass(frozen=True)
class Plotted:
    """The files that were written, the kinds left out with the reason, and notes on the runs."""

    files: tuple[Path, ...]
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


def plot_results(results: Path | str, out: Path, options: Options) -> Plotted:
    """Draw the runs of a results folder or an archive, and write the figures to the folder `out`.

    Raises InputError, before anything is written, where a name is unknown, matplotlib is missing,
    nothing in `results` is usable, or nothing of a kind that was asked for can be drawn.
    """
    kinds = check(out, options)
    request, notes = prepare(load(results), options)
    drawings: list[Drawing] = []
    left_out: dict[str, str] = {}
    with canvas.settings():
        for name in kinds:
            made = list(KINDS[name].draw(request))
            drawings += made
            if not made:
                left_out[name] = KINDS[name].needs
        if options.kinds and left_out:
            name, needs = next(iter(left_out.items()))
            raise InputError(f"--kind {name}: these runs have nothing for it; it takes {needs}")
        out.mkdir(parents=True, exist_ok=True)
        files = []
        for drawing in drawings:
            for suffix in canvas.check_formats(options.formats):
                path = out / f"{file_name(drawing.name)}.{suffix}"
                canvas.save(drawing.figure, path)
                files.append(path)
    said = [note for drawing in drawings for note in drawing.notes]
    return Plotted(tuple(files), left_out, tuple(dict.fromkeys([*notes, *said])))


def check(out: Path, options: Options) -> list[str]:
    """Return the kinds that are wanted. Raises InputError where anything cannot be had."""
    canvas.check_installed("dstrl plot")
    canvas.check_formats(options.formats)
    for kind, name, valid in (
        ("center", options.center, CENTERS),
        ("normalisation", options.normalize, NORMALIZED),
    ):
        if name is not None and name not in valid:
            raise InputError(suggest(kind, name, valid))
    for name in options.kinds:
        if name not in KINDS:
            raise InputError(suggest("kind of figure", name, KINDS))
    check_writable(out)
    return list(dict.fromkeys(options.kinds or KINDS))


def prepare(results: Results, options: Options) -> tuple[Request, list[str]]:
    """Return what is to be drawn, and what is to be said of the runs."""
    chosen = None if options.metric is None else parse(options.metric)
    table = tables.build(results, chosen, Look(options.center, "interval"))
    request = Request(results.runs, table.metric, options.center, options.targets)
    scaled, why = on_common_scale(request, options.normalize)
    return scaled, [*why, *grids.footer(table)]


def on_common_scale(request: Request, wanted: str | None) -> tuple[Request, list[str]]:
    """Return the request with the cells of all environments on one scale, or why there is none.

    Where it is not `wanted`, it is looked for if there are several environments: percent of the
    dense mean, or of the way to it from random actions. It must be had in every environment.
    """
    cells = {
        (section.algo, line.sparsity, line.method, panel.env): found
        for section in request.sections
        for line in section.lines
        for panel in environments(line.runs)
        if (found := cell(request, section, line, panel, request.center)) is not None
    }
    envs = {env for *_, env in cells}
    if wanted is None and len(envs) < 2:
        return request, []
    for each in [wanted] if wanted else NORMALIZED:
        look = Look(request.center, "interval", each)
        try:
            scaled, not_scaled = normalize(cells, request.runs, look, request.metric)
        except InputError:
            if wanted:
                raise
            continue
        if wanted or {env for *_, env in scaled} == envs:
            return replace(request, normalize=each, scaled=scaled), not_scaled
    why = "no figure over all environments: not all have dense runs to normalise by (--normalize)"
    return request, [why]


def file_name(name: str) -> str:
    """Return a name without characters that a file name should not have."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)
