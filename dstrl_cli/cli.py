"""The command line: parses, calls, prints. What takes long to import is imported by the commands.

What the commands do is in `commands`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dstrl_cli import __version__
from dstrl_cli.bench.cli import app as bench
from dstrl_cli.registry import only_asked
from dstrl_cli.terminal import eval_cli, look_cli, table_options
from dstrl_cli.terminal.edge import interruptible, run_app
from dstrl_cli.terminal.hints import HintingCommand
from dstrl_cli.terminal.options import (
    ActorSparsity,
    Address,
    Algo,
    Algos,
    Alpha,
    AsJson,
    CheckpointEvery,
    Collect,
    Compare,
    CriticSparsity,
    Device,
    DeviceMemory,
    DryRun,
    Dst,
    Dsts,
    Engine,
    Env,
    Envs,
    Episodes,
    Expert,
    ExpertQ,
    FailFast,
    InitMaskFrom,
    InitWeightsFrom,
    Jobs,
    KeepCheckpoint,
    LauncherName,
    MaxSeeds,
    MembersPerDevice,
    Metric,
    Ours,
    Out,
    Overwrite,
    OverwriteAll,
    PrefillFrom,
    Preset,
    ReplayDevice,
    Resume,
    Retries,
    Scale,
    Seed,
    Seeds,
    SeedsPerRound,
    Set,
    Sparsities,
    Sparsity,
    Status,
    Steps,
    StoredConfig,
    Task,
    Tasks,
    Tensorboard,
    Trust,
    UntilDecided,
    Wandb,
)
from dstrl_cli.terminal.streams import kept_for_json

app = typer.Typer(
    name="dstrl",
    help="Train and compare dynamic sparse training methods for deep reinforcement learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(bench)

# --- commands -----------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _dstrl(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(f"dstrl {__version__}")
        raise typer.Exit


@app.command(cls=HintingCommand)
def train(
    algo: Algo = None,
    dst: Dst = None,
    ours: Ours = None,
    env: Env = None,
    task: Task = None,
    sparsity: Sparsity = None,
    actor_sparsity: ActorSparsity = None,
    critic_sparsity: CriticSparsity = None,
    seed: Seed = None,
    seeds: Seeds = None,
    steps: Steps = None,
    episodes: Episodes = None,
    init_mask_from: InitMaskFrom = None,
    init_weights_from: InitWeightsFrom = None,
    expert: Expert = None,
    expert_q: ExpertQ = None,
    prefill_from: PrefillFrom = None,
    preset: Preset = None,
    set_: Set = None,
    device: Device = None,
    engine: Engine = None,
    jobs: Jobs = None,
    device_memory: DeviceMemory = None,
    members_per_device: MembersPerDevice = None,
    replay_device: ReplayDevice = None,
    out: Out = None,
    config: StoredConfig = None,
    resume: Resume = False,
    checkpoint_every: CheckpointEvery = None,
    keep_checkpoint: KeepCheckpoint = False,
    tensorboard: Tensorboard = False,
    wandb: Wandb = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train one method with one seed or several.

    Example: dstrl train --algo td3 --dst rlx2 --ours --env HalfCheetah-v5 --sparsity 0.95
    """
    given = locals()
    from dstrl_cli import commands
    from dstrl_cli.config.ranges import parse_integers

    axes = commands.Axes(
        algos=[] if algo is None else [algo],
        methods=[] if dst is None else [dst],
        seeds=[] if seeds is None else parse_integers(seeds, "--seeds"),
    )
    keys = commands.train_flags(given)
    request = commands.RunRequest(axes, keys, ours, preset, set_ or [], overwrite, resume, config)
    limits = commands.limits(jobs, device_memory, members_per_device)
    options = commands.RunOptions(limits, dry_run, as_json)
    asked = (algo, env, *(set_ or ()))
    code = only_asked(asked, trust) if config is None else only_asked(asked, trust, flags=None)
    with interruptible(), kept_for_json(as_json), code:
        commands.train(request, options)


@app.command(cls=HintingCommand)
def sweep(
    algo: Algos = None,
    dst: Dsts = None,
    ours: Ours = None,
    env: Envs = None,
    task: Tasks = None,
    sparsity: Sparsities = None,
    actor_sparsity: ActorSparsity = None,
    critic_sparsity: CriticSparsity = None,
    seed: Seed = None,
    seeds: Seeds = None,
    steps: Steps = None,
    episodes: Episodes = None,
    init_mask_from: InitMaskFrom = None,
    init_weights_from: InitWeightsFrom = None,
    expert: Expert = None,
    expert_q: ExpertQ = None,
    prefill_from: PrefillFrom = None,
    preset: Preset = None,
    scale: Scale = None,
    set_: Set = None,
    device: Device = None,
    engine: Engine = None,
    jobs: Jobs = None,
    device_memory: DeviceMemory = None,
    members_per_device: MembersPerDevice = None,
    replay_device: ReplayDevice = None,
    out: Out = None,
    metric: Metric = None,
    compare: Compare = None,
    until_decided: UntilDecided = None,
    max_seeds: MaxSeeds = None,
    seeds_per_round: SeedsPerRound = None,
    alpha: Alpha = None,
    checkpoint_every: CheckpointEvery = None,
    keep_checkpoint: KeepCheckpoint = False,
    tensorboard: Tensorboard = False,
    wandb: Wandb = False,
    overwrite: OverwriteAll = False,
    fail_fast: FailFast = False,
    retries: Retries = None,
    launcher: LauncherName = "local",
    address: Address = None,
    collect: Collect = False,
    status: Status = False,
    dry_run: DryRun = False,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train every combination of methods, environments, sparsities and seeds.

    The same command continues a sweep: finished runs are skipped, and those that were stopped go on
    from their checkpoints. The table comes at the end.

    Example: dstrl sweep --dst sst,rlx2,our-rlx2 --sparsity 0.15:0.95 --seeds 0-4
    """
    given = locals()
    from dstrl_cli import commands

    axes = commands.sweep_axes(given)
    keys = commands.run_flags(given) | {"metric": metric}
    request = commands.RunRequest(axes, keys, ours, preset, set_ or [], overwrite, scale=scale)
    limits = commands.limits(jobs, device_memory, members_per_device)
    where = commands.Where(launcher, address, collect)
    on_failure = commands.OnFailure(fail_fast, where.retries(retries))
    options = commands.RunOptions(limits, dry_run, as_json, on_failure, where)
    rounds = commands.Rounds(until_decided, max_seeds, seeds_per_round, alpha)
    asked = (algo, *(env or ()), *(set_ or ()))
    with interruptible(), kept_for_json(as_json), only_asked(asked, trust):
        if status:
            commands.sweep_status(request, as_json, rounds)
        else:
            commands.sweep(request, options, compare, rounds)


app.command(name="eval", cls=HintingCommand)(eval_cli.evaluate)


@app.command(cls=HintingCommand)
def table(
    results: table_options.Results = Path("results"),
    metric: Metric = None,
    center: table_options.Center = "mean",
    spread: table_options.Spread = None,
    normalize: table_options.Normalize = None,
    bold: table_options.Bold = None,
    against: table_options.Against = None,
    compare: Compare = None,
    columns: table_options.Columns = None,
    by_task: table_options.ByTask = False,
    test: table_options.Test = False,
    pairs: table_options.Pairs = None,
    alpha: table_options.Alpha = None,
    max_seeds: table_options.MaxSeeds = None,
    seeds_per_round: table_options.SeedsPerRound = None,
    format_: table_options.Format = None,
    as_json: table_options.AsJson = False,
) -> None:
    """Print the table of the runs in a folder or an archive: mean and spread over seeds."""
    from dstrl_cli import commands

    look = {"center": center, "spread": spread, "normalize": normalize, "bold": bold}
    beside = {
        "metric": metric,
        "against": against,
        "compare": compare,
        "columns": columns,
        "by_task": by_task,
    }
    with interruptible():
        asked = commands.asked_test(test, pairs, alpha, max_seeds, seeds_per_round)
        commands.table(results, format_, as_json, look | beside, asked)


app.command(cls=HintingCommand)(look_cli.plot)
app.command(cls=HintingCommand)(look_cli.inspect)
app.command(cls=HintingCommand)(look_cli.report)


@app.command(cls=HintingCommand)
def archive(
    results: Annotated[Path, typer.Argument(help="A results folder, or one inside it.")],
    out: Annotated[Path, typer.Option(help="The archive to write.", metavar="FILE.zip")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an archive that is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the logs of the runs in a folder, without weights, to one file that table reads.

    Example: dstrl archive results --out runs.zip
    """
    from dstrl_cli import commands

    with interruptible():
        commands.archive(results, out, overwrite, as_json)


@app.command(cls=HintingCommand)
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a policy file.", metavar="RUN")],
    format_: Annotated[
        str, typer.Option("--format", help="onnx, npz or c.", metavar="FORMAT", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write; for c, FILE.c and FILE.h.", metavar="FILE")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained policy for other programs or a small device; print what an action costs.

    Example: dstrl export results/HalfCheetah-v5/td3-rlx2/s0.95/seed0 --format c --out policy
    """
    from dstrl_cli import commands

    with interruptible():
        commands.export(run, format_, out, overwrite, as_json)


@app.command(cls=HintingCommand)
def verify(
    run: Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")],
    updates: Annotated[
        int | None,
        typer.Option(
            min=1, help="Updates of the critics to repeat at least (default: 2000).", metavar="N"
        ),
    ] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Train the beginning of a stored run again, and compare what both logged.

    Equal rows and hashes of the weights mean that this machine gives the run's numbers. Training
    ends at the next evaluation that the run logged; nothing is written to its folder.
    """
    from dstrl_cli import commands

    with interruptible(), kept_for_json(as_json), only_asked((), trust, flags=None):
        commands.verify(run, updates, as_json)


@app.command(name="list", cls=HintingCommand)
def list_(
    what: Annotated[
        str, typer.Argument(help="methods, envs, scores, keys or presets.", metavar="WHAT")
    ],
    as_json: AsJson = False,
) -> None:
    """List what may be chosen: methods, environments, scores, configuration keys or presets."""
    from dstrl_cli import commands

    commands.list_names(what, as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 done, 1 failed, 2 wrong input, 130)."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # third parties' warnings are not the user's
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
