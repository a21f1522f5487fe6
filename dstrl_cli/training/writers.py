"""Curves in TensorBoard and in Weights & Biases: which runs want them, and where they go.

Both are extras, and are imported only where a run asks for them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dstrl_cli.config.keys import flatten
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.errors import InputError
from dstrl_cli.registry import algorithm_name
from dstrl_cli.runs.folder import TENSORBOARD_FOLDER, WANDB_FOLDER
from dstrl_cli.training.scalars import ScalarSink, Writer, write_logged


class TensorBoard:
    """Curves as TensorBoard's event file, in the folder `tensorboard` of the run."""

    def __init__(self, folder: Path, config: RunConfig, label: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        where = folder / TENSORBOARD_FOLDER
        remove(where)
        self._writer = SummaryWriter(str(where))

    def add(self, points: Mapping[str, float], step: int) -> None:
        """Write a point of each curve."""
        for name, value in points.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Bring what was written to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """Curves as a run of Weights & Biases, whose files lie in the folder `wandb` of the run.

    The project is `dstrl`, unless the environment variable WANDB_PROJECT names another. A run that
    goes on keeps its id, so that it replaces what was written of it before.
    """

    def __init__(self, folder: Path, config: RunConfig, label: str) -> None:
        import wandb

        where = folder / WANDB_FOLDER
        own = former_id(where) or secrets.token_hex(8)
        remove(where)
        quiet = wandb.Settings(silent=True, console="off", save_code=False, disable_git=True)
        self._run: Any = wandb.init(
            dir=str(folder.absolute()),
            project=os.environ.get("WANDB_PROJECT") or "dstrl",
            id=own,
            name=label,
            group=f"{algorithm_name(config.algo)}-{config.method}",
            config=flatten(to_dict(config)),
            reinit="create_new",  # members of a population have a run each
            settings=quiet,
        )
        self._run.define_metric("*", step_metric="global_step")

    def add(self, points: Mapping[str, float], step: int) -> None:
        """Write a point of each curve."""
        self._run.log({"global_step": step, **points})

    def flush(self) -> None:
        """Do nothing: what is logged is passed on at once."""

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def former_id(folder: Path) -> str | None:
    """Return the id of the run whose files lie in a folder `wandb`, if there is one."""
    found = [path.name for path in folder.glob("*run-*-*")] if folder.is_dir() else []
    matches = [re.fullmatch(r"(?:offline-)?run-\d+_\d+-(\w+)", name) for name in sorted(found)]
    return next((match[1] for match in reversed(matches) if match), None)


def remove(folder: Path) -> None:
    """Remove a folder of curves; of a link only the link."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


WRITERS: dict[str, Callable[[Path, RunConfig, str], Writer]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}
"""Key of the configuration, package and extra, which are all called alike -> what writes."""


def check(configs: Iterable[RunConfig]) -> None:
    """Raise InputError where runs ask for curves that cannot be written here."""
    wanted = {name for config in configs for name in WRITERS if getattr(config, name)}
    for name in sorted(wanted):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f'--{name}: {name} is not installed: pip install "dstrl[{name}]", or leave it out'
            )
    if "wandb" in wanted and os.environ.get("WANDB_MODE", "online") == "online":
        import wandb

        if not wandb.login(prompt=False):
            raise InputError(
                "--wandb: nobody is logged in: run wandb login, or set the environment variable "
                "WANDB_MODE=offline to write files that wandb sync sends later"
            )


def open_sinks(
    config: RunConfig, folder: Path, label: str, say: Callable[[str], None], resumed: bool
) -> list[ScalarSink]:
    """Return the sinks of the curves that a run asks for; its folder is open.

    Args:
        config: of the run.
        folder: of the run.
        label: the name of the run.
        say: is told where curves cannot be written; the run then goes without them.
        resumed: whether the run goes on, so that its rows so far are written first.
    """
    sinks = []
    for name, make in WRITERS.items():
        if not getattr(config, name):
            continue
        try:
            sink = ScalarSink(make(folder, config, label), name, say)
        except Exception as error:  # of somebody else's package
            say(f"warning: no curves of {label} for {name}: {' '.join(str(error).split())}")
            continue
        if resumed:
            write_logged(folder, sink)
        sinks.append(sink)
    return sinks
