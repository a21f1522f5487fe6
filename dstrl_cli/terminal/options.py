"""The options of `train` and `sweep`, some of which other commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# --- which runs ---------------------------------------------------------------------------------

Algo = Annotated[str | None, typer.Option(help="td3, sac or bc (default: td3).", metavar="ALGO")]
Algos = Annotated[
    str | None, typer.Option(help="Algorithms: td3,sac,bc (default: td3).", metavar="LIST")
]
Dst = Annotated[
    str | None,
    typer.Option(
        help="Method: a name or a YAML file (default: rlx2; dstrl list methods).",
        metavar="METHOD",
    ),
]
Dsts = Annotated[
    str | None,
    typer.Option(
        help="Methods, as in sst,rlx2,our-rlx2 (default: rlx2; dstrl list methods).",
        metavar="LIST",
    ),
]
Env = Annotated[
    str | None, typer.Option(help="Gymnasium id (default: HalfCheetah-v5).", metavar="ID")
]
Envs = Annotated[
    list[str] | None,
    typer.Option(help="Gymnasium id; repeat for more (default: HalfCheetah-v5).", metavar="ID"),
]
Task = Annotated[
    str | None, typer.Option(help="Task of a navigation environment, 0-9.", metavar="N")
]
Tasks = Annotated[
    str | None, typer.Option(help="Tasks of a navigation environment: 0-4.", metavar="LIST")
]
Sparsity = Annotated[
    str | None,
    typer.Option(help="Sparsity of all networks (default: 0.95 TD3, 0.9 SAC).", metavar="S"),
]
Sparsities = Annotated[
    str | None,
    typer.Option(help="Sparsities: 0.95, 0.5,0.9 or 0.15:0.95 (step 0.1).", metavar="RANGE"),
]
Seed = Annotated[str | None, typer.Option(help="Seed (default: 0).", metavar="N")]
Seeds = Annotated[str | None, typer.Option(help="Seeds: 0-4 or 1,3,5.", metavar="SEEDS")]
StoredConfig = Annotated[
    Path | None,
    typer.Option(help="Train the run of a stored config.yaml exactly as it was.", metavar="FILE"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Preset: a name such as quick, or a YAML file (dstrl list presets).",
        metavar="NAME|FILE",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set one configuration key, as in nstep=3; repeat for more (dstrl list keys).",
        metavar="KEY=VALUE",
    ),
]
Ours = Annotated[
    bool | None,
    typer.Option("--ours/--no-ours", help="Let the critics adapt by importance scores."),
]
ActorSparsity = Annotated[
    str | None, typer.Option(help="Sparsity of the actor alone.", metavar="S")
]
CriticSparsity = Annotated[
    str | None, typer.Option(help="Sparsity of the critics alone.", metavar="S")
]
InitMaskFrom = Annotated[
    str | None,
    typer.Option(
        help="Start with the last masks of a run: its folder, or a policy file; {seed} in it "
        "stands for the seed.",
        metavar="RUN",
    ),
]
InitWeightsFrom = Annotated[
    str | None,
    typer.Option(
        help="Start with the first weights of a run: its folder, or a policy file. fresh: with "
        "others than this seed's.",
        metavar="RUN",
    ),
]
Expert = Annotated[
    str | None,
    typer.Option(
        help="With --algo bc: the run whose policy is imitated: its folder, or a policy file.",
        metavar="RUN",
    ),
]
ExpertQ = Annotated[
    str | None,
    typer.Option(
        help="Train the critics towards the values of a run's critics, not TD targets.",
        metavar="RUN",
    ),
]
PrefillFrom = Annotated[
    str | None,
    typer.Option(
        help="Let a run's policy take the first steps (learning_starts), not random actions.",
        metavar="RUN",
    ),
]
Steps = Annotated[str | None, typer.Option(help="Environment steps; 1e6 is accepted.", metavar="N")]
Episodes = Annotated[
    str | None,
    typer.Option(
        help="Training episodes: training ends here or after --steps, whichever comes first "
        "(then --steps defaults to what they can take).",
        metavar="N",
    ),
]

Scale = Annotated[
    float | None,
    typer.Option(
        help="A share of the length, as 0.02: steps, warm-up, intervals and windows shrink along; "
        "not what --set and flags give.",
        metavar="SHARE",
    ),
]

# --- how they are carried out -------------------------------------------------------------------

Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with a run that was stopped; with more --steps, with a longer."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start over where a run is already.")]
OverwriteAll = Annotated[
    bool,
    typer.Option("--overwrite", help="Start all runs over, also finished or different ones."),
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Stop all runs when one fails (default: go on).")
]
Status = Annotated[
    bool, typer.Option("--status", help="Print how far the runs are, and train nothing.")
]
Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu, cuda (all of them) or cuda:N (default: auto).", metavar="DEVICE"),
]
Engine = Annotated[
    str | None, typer.Option(help="auto, masked or sparse (default: auto).", metavar="ENGINE")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Runs trained at once on the CPU (default: as many as there are cores).",
        metavar="N",
    ),
]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        help="Memory to use of each accelerator, as 80GB (default: what is free).", metavar="SIZE"
    ),
]
MembersPerDevice = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most runs trained in lock-step on an accelerator (default: what fits).",
        metavar="N",
    ),
]
ReplayDevice = Annotated[
    str | None,
    typer.Option(
        help="auto (beside the networks) or cpu: where replay buffers lie.", metavar="DEVICE"
    ),
]
Out = Annotated[
    str | None, typer.Option(help="Folder of the results (default: results).", metavar="FOLDER")
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(
        help="Steps, or a time as 10m or 2h, between checkpoints; 0: none (default: 10m).",
        metavar="N|TIME",
    ),
]
KeepCheckpoint = Annotated[
    bool,
    typer.Option("--keep-checkpoint", help="Keep the last checkpoint of a finished run, too."),
]
Tensorboard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Also write curves for TensorBoard (extra tensorboard)."),
]
Wandb = Annotated[
    bool, typer.Option("--wandb", help="Also write curves for Weights & Biases (extra wandb).")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be run, and write nothing.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Metric = Annotated[
    str | None,
    typer.Option(
        help="last-steps:N, last-evals:N, all-episodes, first-episodes:N, all-evals, lca, final, "
        "best or success (default: the preset's or the runs' own, else last-steps:125000).",
        metavar="METRIC",
    ),
]
Compare = Annotated[
    str | None,
    typer.Option(help="Published table to show beside, such as xu2024:I.", metavar="TABLE"),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Also run code of this folder that only a file names."),
]
Retries = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="How often a run is tried again whose process or machine died (default: 0; Ray: 3).",
        metavar="N",
    ),
]
LauncherName = Annotated[
    str,
    typer.Option(
        "--launcher",
        help="local (this machine) or ray (a Ray cluster, extra ray).",
        metavar="local|ray",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the Ray cluster: auto or HOST:PORT (default: one is started for the call).",
        metavar="ADDRESS",
    ),
]
Collect = Annotated[
    bool,
    typer.Option(
        "--collect",
        help="The machines of the Ray cluster do not share --out: they send the files of runs "
        "that end.",
    ),
]

# --- adding seeds until comparisons are decided -------------------------------------------------

UntilDecided = Annotated[
    str | None,
    typer.Option(
        help="Add seeds to these methods, round by round, only until each pair is decided: "
        "our-rlx2:rlx2. The others keep --seeds. (none: not those of the preset.)",
        metavar="A:B,...",
    ),
]
MaxSeeds = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1000,
        help="With --until-decided: seeds of a method after the last round (default: 20).",
        metavar="N",
    ),
]
SeedsPerRound = Annotated[
    int | None,
    typer.Option(
        min=1, max=1000, help="With --until-decided: seeds of a round (default: 5).", metavar="N"
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        help="With --until-decided: probability of any wrong decision (default: 0.05).",
        metavar="P",
    ),
]
