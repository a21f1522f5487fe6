"""How a run goes on in the folder that holds it: from its checkpoint, longer, or from the start.

Nothing is written here.
"""

from __future__ import annotations

from dataclasses import replace

from dstrl_cli.config import extension
from dstrl_cli.config.models import RunConfig
from dstrl_cli.errors import InputError
from dstrl_cli.runs import logs
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, has_state, read_values
from dstrl_cli.training.run import Run

KEPT = ("engine", "threads")
"""Keys of a run that stay as they were when it began: they decide how its numbers are rounded."""


def going_on(run: Run, stored: RunConfig) -> Run:
    """Return an unfinished run as it goes on: from its checkpoint, or over where it has none.

    `stored` is the configuration in its folder. Raises InputError for a damaged checkpoint, and
    where the logs are not as they were when it was written.
    """
    folder = run.path / CHECKPOINT_FOLDER
    if not has_state(folder):
        return replace(run, start="over")
    state = read_values(folder)
    logs.check(run.path, state["logs"], state.get("log_checksums", {}))
    kept = {key: getattr(stored, key) for key in KEPT}
    notes = [
        f"{key} stays {value}, with which it began"
        for key, value in kept.items()
        if getattr(run.config, key) not in ("auto", value)
    ]
    kept["keep_checkpoint"] = stored.keep_checkpoint or run.config.keep_checkpoint
    config = run.config.model_copy(update=kept)
    at = {"step": state["steps"], "evaluated": state["evaluated"]}
    return replace(run, config=config, start="resume", notes=(*run.notes, *notes), **at)


def is_longer(run: Run, stored: RunConfig) -> bool:
    """Whether `run` has more steps than the run in its folder, whose configuration is `stored`."""
    return run.config.steps > stored.steps


def longer(run: Run, stored: RunConfig) -> Run:
    """Return a run as it goes on from the end of a shorter one in its folder.

    Raises InputError where that one did not reach its end, kept no checkpoint, or is not what a
    longer run would have been.
    """
    asked = f"--steps {run.config.steps}: {run.path} holds a run of {stored.steps:,} steps"
    over = "choose another --out, or start over with --overwrite"
    folder = run.path / CHECKPOINT_FOLDER
    if reasons := extension.refusals(stored):
        raise InputError(
            f"{asked}, and a longer run would have differed before. {'; '.join(reasons)}: {over}"
        )
    if not has_state(folder):
        raise InputError(f"{asked} without a checkpoint, which --keep-checkpoint keeps: {over}")
    step = read_values(folder)["steps"]
    if step < stored.steps:
        raise InputError(
            f"{asked} that is at step {step:,}: let it finish first, with --resume "
            f"--keep-checkpoint --steps {stored.steps}"
        )
    return going_on(run, stored)
