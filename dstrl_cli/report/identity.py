"""What a run is: environment, task, algorithm, method, sparsity and seed.

The path is where a run lies, and `config.yaml` is what it was. Only what a sweep varied beside the
method, and the name of an algorithm of somebody else's, is read from the path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from dstrl_cli.config.identity import env_folder, env_identity, noise_label
from dstrl_cli.config.labels import LABEL_PATTERN, format_sparsity_label, parse_sparsity_label
from dstrl_cli.config.stored import folder_names_sparsity, stored_sparsity_label
from dstrl_cli.registry import is_outside

LEVELS = 4
"""Folders from the results down to a run: environment, method, sparsity, seed."""

LAYOUT = re.compile(
    r"(?P<env>[^/]+?)(?:\.task(?P<task>\d+))?/"
    r"(?P<algo>[^/-]+)-(?P<method>[^/]+)/"
    rf"(?P<sparsity>{LABEL_PATTERN})/"
    r"seed(?P<seed>\d+)$"
)
"""The end of the path of a run that lies where `dstrl` put it."""


@dataclass(frozen=True, order=True)
class Identity:
    """What a run is; `method` includes what a sweep varied beside it, as in `rlx2+nstep5`.

    `env` names the module that registers the environment, where there is one.
    """

    env: str
    algo: str
    method: str
    sparsity: str
    seed: int
    task: int = 0


def identify(folder: PurePath, config: Mapping[str, Any]) -> Identity | None:
    """Return what the run in `folder` is, or None where neither path nor configuration say it.

    Args:
        folder: its absolute path.
        config: its configuration by dotted keys.
    """
    match = LAYOUT.search(folder.as_posix())
    named: dict[str, Any] = match.groupdict() if match else {}
    task, env_id = config.get("env.task"), config.get("env.id") or config.get("env")
    try:
        return Identity(
            env=env_identity(env_id) + noise_label(_noise(config))
            if isinstance(env_id, str)
            else named["env"],
            algo=named.get("algo") or str(config["algo"]),
            method=named.get("method") or str(config["method"]),
            sparsity=stored_sparsity_label(config) or named["sparsity"],
            seed=int(config.get("seed", named.get("seed"))),
            task=task if isinstance(task, int) else int(named.get("task") or 0),
        )
    except (KeyError, TypeError, ValueError):
        return None


def misplaced(folder: PurePath, config: Mapping[str, Any], stored_format: int) -> str | None:
    """Return in what a folder's path and the configuration in it differ, or None.

    They do where a run was copied or its folder was renamed: its path would make another run of it.

    Args:
        folder: its absolute path; one that does not have the layout of runs says nothing.
        config: its configuration by dotted keys.
        stored_format: the format that it was stored in.
    """
    match = LAYOUT.search(folder.as_posix())
    if match is None:
        return None
    env_id, label = str(config.get("env.id")), stored_sparsity_label(config)
    algo, method = str(config.get("algo")), str(config.get("method"))
    names = [env_folder(env_id, with_module=each, noise=_noise(config)) for each in (False, True)]
    old_label = label is None or not folder_names_sparsity(config, stored_format)
    wrong = {
        "environment": (match["env"] not in names, match["env"], env_id),
        "task": (
            match["task"] is not None and int(match["task"]) != config.get("env.task"),
            match["task"],
            config.get("env.task"),
        ),
        "algorithm": (not is_outside(algo) and match["algo"] != algo, match["algo"], algo),
        "method": (not f"{match['method']}+".startswith(f"{method}+"), match["method"], method),
        "sparsity": (
            not old_label and _written_anew(match["sparsity"]) != label,
            match["sparsity"],
            label,
        ),
        "seed": (int(match["seed"]) != config.get("seed"), match["seed"], config.get("seed")),
    }
    said = [f"{name} {path}, not {own}" for name, (differs, path, own) in wrong.items() if differs]
    if not said:
        return None
    return (
        f"its path says {'; '.join(said)} as its config.yaml: a copied or renamed run, left out "
        "(move it back, or remove the copy)"
    )


def _noise(config: Mapping[str, Any]) -> float:
    """Return the share of noisy features; older runs had none."""
    found = config.get("env.noise_features")
    return float(found) if isinstance(found, int | float) else 0.0


def _written_anew(label: str) -> str:
    """Return a sparsity label as it is written today: `s0.95` for `s0.950`."""
    return format_sparsity_label(*parse_sparsity_label(label))
