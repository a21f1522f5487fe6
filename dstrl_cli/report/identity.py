"""What a run is: environment, task, algorithm, method, sparsity and seed.

All but the sparsity is read from the path; the sparsity is that of the networks in `config.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from dstrl_cli.config.identity import env_name
from dstrl_cli.config.labels import LABEL_PATTERN
from dstrl_cli.config.stored import stored_sparsity_label

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
    """What a run is; `method` includes what a sweep varied beside it, as in `rlx2+nstep5`."""

    env: str
    algo: str
    method: str
    sparsity: str
    seed: int
    task: int = 0


def identify(folder: PurePath, config: Mapping[str, Any]) -> Identity | None:
    """Return what the run in `folder` is, or None where neither path nor configuration say it.

    Args:
        folder: its absolute path; where it has the layout of runs, it decides all but the sparsity.
        config: its configuration by dotted keys; it decides the sparsity, and the rest for a
            folder that was moved or renamed.
    """
    sparsity, task = stored_sparsity_label(config), _configured_task(config)
    if match := LAYOUT.search(folder.as_posix()):
        return Identity(
            env=match["env"],
            algo=match["algo"],
            method=match["method"],
            sparsity=sparsity or match["sparsity"],
            seed=int(match["seed"]),
            task=int(match["task"] or task),
        )
    if sparsity is None:
        return None
    try:
        return Identity(
            env=env_name(str(config.get("env.id") or config["env"])),
            algo=str(config["algo"]),
            method=str(config["method"]),
            sparsity=sparsity,
            seed=int(config["seed"]),
            task=task,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _configured_task(config: Mapping[str, Any]) -> int:
    task = config.get("env.task", 0)
    return task if isinstance(task, int) else 0
