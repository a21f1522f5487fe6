"""The options of `dstrl plot` and `dstrl inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PlotOut = Annotated[
    Path,
    typer.Option("--out", help="The folder to write figures to.", metavar="FOLDER"),
]
Kinds = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="curves, sparsity, profile, iqm, buffers, neurons, time (default: all that the runs "
        "allow).",
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
