"""The command line of `dstrl bench`: parses and calls, as `dstrl_cli.cli` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dstrl_cli.registry import only_asked
from dstrl_cli.terminal.edge import interruptible
from dstrl_cli.terminal.hints import HintingCommand
from dstrl_cli.terminal.streams import kept_for_json

if TYPE_CHECKING:
    from dstrl_cli.bench.plan import BenchRequest

app = typer.Typer(
    name="bench",
    help="Measure how fast dstrl trains, updates and acts, beside other libraries.",
    no_args_is_help=True,
)

Algo = Annotated[str, typer.Option(help="Algorithms: td3,sac.", metavar="LIST")]
Dst = Annotated[
    str | None,
    typer.Option(
        help="Methods (default: sst for update, rlx2 for train with members, else dense, sst, "
        "rlx2, our-rlx2, dst and our-dst).",
        metavar="LIST",
    ),
]
Env = Annotated[list[str] | None, typer.Option(help="Gymnasium id; repeat for more.", metavar="ID")]
Sparsity = Annotated[
    str | None, typer.Option(help="Sparsities (default: the algorithm's).", metavar="RANGE")
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="Engines: auto,masked,sparse (default: auto, and masked beside it).", metavar="LIST"
    ),
]
Width = Annotated[
    str | None, typer.Option(help="Widths of two hidden layers: 64,256.", metavar="LIST")
]
Batch = Annotated[int | None, typer.Option(min=1, help="Transitions per update.", metavar="N")]
Threads = Annotated[
    str | None, typer.Option(help="Threads of one run (default: 1).", metavar="LIST")
]
Members = Annotated[
    str | None, typer.Option(help="Runs in lock-step in one process (default: 1).", metavar="LIST")
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda or cuda:N (default: auto).", metavar="DEVICE")
]
Jobs = Annotated[
    int,
    typer.Option(min=1, help="Also measure as many runs at once: the whole machine.", metavar="N"),
]
PeerOption = Annotated[
    list[str] | None,
    typer.Option(help="Measure sb3, sbx or rltools in turn; repeat for more.", metavar="NAME"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Set one configuration key; repeat for more.", metavar="KEY=VALUE"),
]
Vary = Annotated[
    str | None,
    typer.Option(help="Also compare values of one key, with the first.", metavar="KEY=VALUE,VALUE"),
]
Seconds = Annotated[float, typer.Option(min=0.01, help="Time of one measurement.", metavar="S")]
Repeats = Annotated[int, typer.Option(min=1, help="Rounds of measurements.", metavar="N")]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Also run code of this folder that only a file names."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Csv = Annotated[
    Path | None, typer.Option(help="Also write one row per measurement.", metavar="FILE.csv")
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Also plot time against density (extra bench).", metavar="FILE.png"),
]


@app.command(cls=HintingCommand)
def train(
    algo: Algo = "td3",
    dst: Dst = None,
    env: Env = None,
    sparsity: Sparsity = None,
    engine: Engine = None,
    width: Width = None,
    batch: Batch = None,
    threads: Threads = None,
    members: Members = None,
    device: Device = None,
    jobs: Jobs = 1,
    peer: PeerOption = None,
    set_: Set = None,
    vary: Vary = None,
    seconds: Seconds = 3.0,
    repeats: Repeats = 5,
    csv: Csv = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure whole steps: environment, action, replay, update.

    Example: dstrl bench train --algo td3 --sparsity 0.95 --peer sb3 --peer sbx --jobs 2
    """
    from dstrl_cli.bench import command

    asked = (algo, *(env or ()), *(set_ or ()), vary)
    with interruptible(), kept_for_json(as_json), only_asked(asked, trust):
        request = _request(
            "train", algo, dst, env, sparsity, engine, width, batch, threads, members, device,
            jobs, peer, set_, vary,
        )  # fmt: skip
        command.bench(request, command.BenchOptions(seconds, repeats, as_json, csv))


@app.command(cls=HintingCommand)
def update(
    algo: Algo = "td3",
    dst: Dst = None,
    env: Env = None,
    sparsity: Sparsity = None,
    engine: Engine = None,
    width: Width = None,
    batch: Batch = None,
    threads: Threads = None,
    members: Members = None,
    device: Device = None,
    jobs: Jobs = 1,
    peer: PeerOption = None,
    set_: Set = None,
    vary: Vary = None,
    seconds: Seconds = 3.0,
    repeats: Repeats = 5,
    csv: Csv = None,
    plot: Plot = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure updates alone: sampling a batch and learning from it.

    Example: dstrl bench update --width 256,1024 --sparsity 0,0.5,0.9,0.98 --engine masked,sparse
    """
    from dstrl_cli.bench import command

    asked = (algo, *(env or ()), *(set_ or ()), vary)
    with interruptible(), kept_for_json(as_json), only_asked(asked, trust):
        request = _request(
            "update", algo, dst, env, sparsity, engine, width, batch, threads, members, device,
            jobs, peer, set_, vary,
        )  # fmt: skip
        command.bench(request, command.BenchOptions(seconds, repeats, as_json, csv, plot))


@app.command(cls=HintingCommand)
def topology(
    algo: Algo = "td3",
    dst: Annotated[
        str | None,
        typer.Option(help="Methods (default: dst, rigl, rlx2, our-rlx2).", metavar="LIST"),
    ] = None,
    env: Annotated[str | None, typer.Option(help="Gymnasium id.", metavar="ID")] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Sparsity (default: the algorithm's).", metavar="S")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, masked or sparse (default: auto).", metavar="ENGINE")
    ] = None,
    updates: Annotated[int, typer.Option(min=60, help="Updates that are timed.")] = 1200,
    set_: Set = None,
    csv: Csv = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure topology updates and buffer checks, beside what the papers' formulas say.

    Example: dstrl bench topology --dst dst,rlx2,our-rlx2 --csv topology.csv
    """
    from dstrl_cli.bench import topology_command
    from dstrl_cli.config.ranges import parse_names

    asked = (algo, env, *(set_ or ()))
    with interruptible(), kept_for_json(as_json), only_asked(asked, trust):
        methods = parse_names(dst, "--dst") if dst else []
        topology_command.bench(
            parse_names(algo, "--algo"), methods, env, sparsity, engine, updates, set_ or [], csv,
            as_json,
        )  # fmt: skip


@app.command(cls=HintingCommand)
def infer(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders, or policy files.", metavar="RUN...")
    ],
    seconds: Seconds = 1.0,
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Measure one action of saved policies: its time, and the bytes of the file."""
    from dstrl_cli.bench import command

    with interruptible(), kept_for_json(as_json):
        command.infer(runs, command.BenchOptions(seconds, repeats, as_json))


def _request(
    kind: str,
    algo: str,
    dst: str | None,
    env: list[str] | None,
    sparsity: str | None,
    engine: str | None,
    width: str | None,
    batch: int | None,
    threads: str | None,
    members: str | None,
    device: str | None,
    jobs: int,
    peers: list[str] | None,
    sets: list[str] | None,
    vary: str | None,
) -> BenchRequest:
    from dstrl_cli.bench.plan import BenchRequest
    from dstrl_cli.config.ranges import parse_integers, parse_names, parse_numbers

    return BenchRequest(
        kind,
        algos=parse_names(algo, "--algo"),
        methods=parse_names(dst, "--dst") if dst else [],
        envs=parse_names(env, "--env") if env else [],
        sparsities=parse_numbers(sparsity, "--sparsity") if sparsity else [],
        engines=parse_names(engine, "--engine") if engine else [],
        widths=parse_integers(width, "--width") if width else [],
        batch=batch,
        threads=parse_integers(threads, "--threads") if threads else [],
        members=parse_integers(members, "--members") if members else [],
        device=device,
        jobs=jobs,
        peers=parse_names(peers, "--peer") if peers else [],
        sets=sets or [],
        vary=vary or "",
    )
