"""The command line of `dstrl plot`, `dstrl inspect` and `dstrl report`; others do the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dstrl_cli.registry import only_asked
from dstrl_cli.terminal import table_options
from dstrl_cli.terminal.edge import interruptible
from dstrl_cli.terminal.options import AsJson, Metric
from dstrl_cli.terminal.streams import kept_for_json

PlotOut = Annotated[
    Path,
    typer.Option("--out", help="The folder to write figures to.", metavar="FOLDER"),
]
Kinds = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="curves, sparsity, profile, iqm, buffers, neurons, paths, time (default: all that the "
        "runs allow).",
        metavar="LIST",
    ),
]
Formats = Annotated[
    str | None, typer.Option("--format", help="Default: png,svg,pdf.", metavar="LIST")
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        help="Return whose time is shown: 5000, Hopper-v5=2500 or 80% of the way from the "
        "untrained policy to the dense mean, else the best method's (default: 90%).",
        metavar="RETURN",
    ),
]
Center = Annotated[
    str,
    typer.Option(help="Of curves and against sparsity: mean, median or iqm.", metavar="CENTER"),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        help="Over several environments: dense or random-dense (default: what the runs allow).",
        metavar="BY",
    ),
]
PicturesOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Also draw the masks and the connections of every input to this folder (extra plot).",
        metavar="FOLDER",
    ),
]


def plot(
    results: table_options.Results,
    out: PlotOut,
    kind: Kinds = None,
    format_: Formats = None,
    metric: Metric = None,
    center: Center = "mean",
    normalize: Normalize = None,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Draw the runs in a folder or an archive: curves, sparsity, profiles, IQMs, time, and more.

    Example: dstrl plot results --out figures
    """
    from dstrl_cli.terminal import looking

    request = looking.PlotRequest(kind, format_, metric, center, normalize, target or [])
    with interruptible():
        looking.plot(results, out, request, as_json)


def inspect(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a policy file.", metavar="RUN")],
    out: PicturesOut = None,
    as_json: AsJson = False,
) -> None:
    """Look inside a trained agent: connections, degrees, dead neurons, inputs, changes over time.

    Example: dstrl inspect results/HalfCheetah-v5/td3-our-rlx2/s0.95/seed0 --out pictures
    """
    from dstrl_cli.terminal import looking

    with interruptible(), kept_for_json(as_json), only_asked((), trust=False):
        looking.inspect(run, out, as_json)


def report(
    results: Annotated[
        Path,
        typer.Argument(
            help="A results folder, one with results folders or archives in it, or an archive."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.", metavar="FILE.html")] = Path(
        "report.html"
    ),
    metric: Metric = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one page for a browser: tables, curves, masks, settings and what is missing.

    It loads nothing from the network, so that it can be sent to others as it is.

    Example: dstrl report results --out report.html
    """
    from dstrl_cli.terminal import reporting

    with interruptible():
        reporting.report(results, out, metric, overwrite, as_json)
