"""The command line of `dstrl eval`; what it does is in `evaluating` and `perturbing`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dstrl_cli.errors import InputError
from dstrl_cli.registry import only_asked
from dstrl_cli.terminal.edge import interruptible
from dstrl_cli.terminal.options import AsJson, Trust
from dstrl_cli.terminal.streams import kept_for_json


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="A run's folder, or a policy file; several with --perturb.", metavar="RUN"
        ),
    ],
    episodes: Annotated[
        int | None, typer.Option(min=1, help="Number of episodes (default: as in training).")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Start as the evaluations of a run with this seed (default: the run's own seed).",
        ),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(help="Another environment than the one trained on.", metavar="ID"),
    ] = None,
    task: Annotated[
        int | None, typer.Option(help="Task of a navigation environment, 0-9.", metavar="N")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(help="Also record the first episode.", metavar="FILE.mp4")
    ] = None,
    render: Annotated[
        str | None, typer.Option(help="Show the episodes in a window: human.", metavar="MODE")
    ] = None,
    perturb: Annotated[
        list[str] | None,
        typer.Option(
            help="Perturb the episodes: observation_noise=0:0.5, action_noise=0:0.5, "
            "action_delay=0-5, gravity=0.5:1.5:0.25 or mass=0.5:1.5:0.25; repeat for more. KIND "
            "alone takes the range named here; a list, as mass=0.8,1.2, is taken too.",
            metavar="KIND=RANGE",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --perturb: the folder for perturb.csv and figures (extra plot).",
            metavar="FOLDER",
        ),
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Run episodes of a trained policy on the CPU, without noise.

    They start as the run's own evaluations do, so that the mean is that of its last evaluation.
    With --perturb, runs are compared under noise, late actions, and other gravity or masses.
    """
    from dstrl_cli.terminal import evaluating, perturbing

    requests = [
        evaluating.EvalRequest(run, episodes, seed, env, task, video, render) for run in runs
    ]
    with interruptible(), kept_for_json(as_json), only_asked((env,), trust, flags="--env"):
        if not perturb:
            _check_one(runs, out)
            evaluating.evaluate(requests[0], as_json)
            return
        if video is not None or render is not None:
            flag = "--video" if video is not None else "--render"
            raise InputError(f"{flag} and --perturb: a perturbed episode is not shown; leave one")
        perturbing.perturb(requests, perturb, out, as_json)


def _check_one(runs: list[Path], out: Path | None) -> None:
    """Raise InputError for what only --perturb takes."""
    if len(runs) > 1:
        raise InputError(f"{len(runs)} runs: give one, or compare them with --perturb KIND=RANGE")
    if out is not None:
        raise InputError(f"--out {out} is for the figures of --perturb KIND=RANGE: give both")
