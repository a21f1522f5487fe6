"""The options of `dstrl table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Results = Annotated[
    Path, typer.Argument(help="A results folder, one inside it, or an archive of runs.")
]
Center = Annotated[
    str, typer.Option(help="mean, median, or iqm (interquartile mean).", metavar="CENTER")
]
Spread = Annotated[
    str | None,
    typer.Option(
        help="std, sem (standard error of the mean) or interval (95 %) (default: std for a mean, "
        "else interval).",
        metavar="SPREAD",
    ),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        help="Percent of the dense mean: dense; or of the way there from random actions, for "
        "negative returns: random-dense. Adds a column over all environments. (default: none, or "
        "as the table of --compare is.)",
        metavar="BY",
    ),
]
Bold = Annotated[
    str | None,
    typer.Option(
        help="best, or within: also what lies within the best one's interval.", metavar="WHICH"
    ),
]
Against = Annotated[
    str | None,
    typer.Option(help="Also the probability that a run beats one of METHOD.", metavar="METHOD"),
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Further columns: params,flops,neurons (of the critics at the end: dormant, without "
        "input, largest fan-in, paths, unread inputs), or none (default: those of --compare's "
        "table).",
        metavar="LIST",
    ),
]
ByTask = Annotated[
    bool,
    typer.Option(
        "--by-task", help="Also a row for each task of an environment, below their average."
    ),
]
Test = Annotated[
    bool,
    typer.Option(
        "--test", help="Test which methods differ, with one error for all comparisons together."
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(help="With --test: only these, as our-rlx2:rlx2,dst:sst.", metavar="A:B,..."),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="With --test: probability of any wrong decision (default: 0.05).", metavar="P"
    ),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --test: seeds of a method after the last look (default: one look at all).",
        metavar="N",
    ),
]
SeedsPerRound = Annotated[
    int | None,
    typer.Option(min=1, help="With --test: seeds between two looks.", metavar="N"),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="rich, md, csv, latex or json (default: rich).", metavar="FORMAT"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
