"""A stored run again: its exact configuration, from its `config.yaml`, in another folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dstrl_cli.config.identity import run_path
from dstrl_cli.config.keys import flatten
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import Origin, from_dict, to_dict
from dstrl_cli.config.resolving import flag_name
from dstrl_cli.errors import InputError
from dstrl_cli.registry import note_source
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.summary import CONFIG_FILE
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training.run import Run

CURVES = ("tensorboard", "wandb")
"""Keys that a stored run does not pass on: who trains it again asks for curves anew."""

ALLOWED = ("out", "device", "replay_device", "checkpoint_every", "keep_checkpoint", *CURVES)
"""Keys whose flags may stand beside `--config`: they say where a run happens, not what it is."""


def stored_run(file: Path, flags: Mapping[str, Any]) -> Run:
    """Return the run whose `config.yaml` is `file`, with its engine and threads.

    With `out` among the flags it has its folder there, else the one that `file` is in.
    Raises InputError for a file that is not a run's `config.yaml`.
    """
    if file.name != CONFIG_FILE or not file.is_file():
        raise InputError(
            f"--config {file}: there is no such {CONFIG_FILE} of a run (keys of your own go into a "
            "file for --preset)"
        )
    given = {key: value for key, value in flags.items() if value is not None}
    origins = {key: Origin(flag_name(key), flag_name(key)) for key in given}
    folder = file.absolute().parent
    stored = to_dict(stored_config(file.parent)) | dict.fromkeys(CURVES, False)
    config = from_dict({**stored, **given}, origins)
    label = stored_label(folder, config)
    run = prepare(config, label)
    return run if "out" in given else replace(run, path=file.parent)


def stored_config(folder: Path) -> RunConfig:
    """Return the configuration of a run's folder; modules that it names count as named by it.

    Raises InputError where it cannot be read.
    """
    config = read_config(folder)
    note_source(list(flatten(to_dict(config)).values()), str(folder / CONFIG_FILE))
    return config


def stored_label(folder: Path, config: RunConfig) -> Path:
    """Return the folder of a run relative to its results, also where a sweep added to its names.

    A folder that was given another name counts as named by its configuration.
    """
    named, own = run_path(config), Path(*folder.parts[-4:])
    _, method, sparsity, seed = named.parts
    if len(own.parts) < 4 or own.parts[2:] != (sparsity, seed):
        return named
    both = (False, True)
    envs = {run_path(config, with_task=t, with_module=m).parts[0] for t in both for m in both}
    same_method = own.parts[1] == method or own.parts[1].startswith(f"{method}+")
    return own if own.parts[0] in envs and same_method else named
