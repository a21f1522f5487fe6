"""`summary.json`: how a run ended, and what status a run folder has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dstrl_cli.config.identity import env_identity, noise_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.printable import printable
from dstrl_cli.config.readfile import MAX_JSON, MAX_YAML, parse_json, read_text
from dstrl_cli.config.stored import check_whole, parse_document, up_to_date
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.registry import algorithm_name
from dstrl_cli.runs import checksums, lock, repair
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, has_state
from dstrl_cli.runs.files import as_json, is_file, write
from dstrl_cli.runs.status import DAMAGED, FINISHED, RUNNING, SUMMARY_FILE, UNFINISHED

CONFIG_FILE = "config.yaml"

UNITS = {
    "steps": "environment steps",
    "sparsity": "share of connections that are inactive",
    "final_return": "sum of an episode's rewards, not discounted",
    "parameters": "weights, without biases",
    "flops": "floating point operations; ratios are to a dense run",
    "wall_time_s": "seconds",
    "evaluation_time_s": "seconds",
    "checkpoint_time_s": "seconds",
}
"""What the numbers of a summary are in."""


def about(config: RunConfig) -> dict[str, Any]:
    """Return what a summary says of the run itself: its identity, and the units of its numbers.

    `sparsity` is the one asked for, until the realised one is known.
    """
    return {
        "algo": algorithm_name(config.algo),
        "method": config.method,
        "env": env_identity(config.env.id) + noise_label(config.env.noise_features),
        "task": config.env.task,
        "sparsity": {"actor": config.actor.sparsity, "critic": config.critic.sparsity},
        "seed": config.seed,
        "units": dict(UNITS),
    }


def read_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary that the run in `path` left, or None where it left none to read."""
    try:
        summary = parse_json(read_text(path / SUMMARY_FILE, MAX_JSON))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def read_status(path: Path) -> str | None:
    """Return the status of the run in `path`: that of its summary, else `running` or `unfinished`.

    None where `path` holds no run.
    """
    if not is_file(path / CONFIG_FILE):
        return None
    return RUNNING if lock.in_use(path) else last_status(path)


def last_status(path: Path) -> str:
    """Return the status in a run's summary; without one, what its files show (`missing_status`)."""
    summary = read_summary(path)
    if summary is not None and "status" in summary:
        return printable(str(summary["status"]))
    return FINISHED if _from_files(path) else missing_status(path)


def missing_status(path: Path) -> str:
    """Return the status of a run that has no usable summary and is not known to have finished.

    It is `unfinished` where it wrote none, or can go on from a checkpoint. A summary that is there
    but cannot be read makes it `damaged`: to train it again could replace a finished run.
    """
    if has_state(path / CHECKPOINT_FOLDER) or not is_file(path / SUMMARY_FILE):
        return UNFINISHED
    return DAMAGED


def repair_summary(path: Path) -> bool:
    """Write the summary of a finished run that has none to read; return whether that was needed.

    Nothing is written where its files do not show that it finished, or where it is in use.
    """
    summary = read_summary(path)
    if summary is not None and "status" in summary:
        return False
    with suppress(InputError), lock.held(path):
        if made := _from_files(path):
            write_summary(path, made)
            return True
    return False


def _from_files(path: Path) -> dict[str, Any] | None:
    """Return the summary that a run's files give, or None where they show no finished run."""
    try:
        document = parse_document(read_text(path / CONFIG_FILE, MAX_YAML))
        current = up_to_date(document)
        check_whole(current)
        return repair.summary_from_files(path, current)
    except (OSError, ValueError, AttributeError, yaml.YAMLError, InputError):
        return None


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json` of the run folder `path`, with checksums of its files and of itself.

    Numbers that JSON cannot hold become null.
    """
    whole = parse_json(as_json({**summary, checksums.KEY: checksums.of_files(path)}).decode())
    write(path / SUMMARY_FILE, as_json(checksums.with_own(whole)))


def mark_ended(
    path: Path, status: str, error: str | None, config: RunConfig | None = None
) -> dict[str, Any]:
    """Write and return the summary of a run that ended without finishing and left none.

    That of an earlier attempt is replaced. Nothing is written where there is no run, where another
    process holds the folder, or where a run finished: whoever trains it anew removes its summary
    first, so that one that is there is of a run that this end left alone.
    """
    written = read_summary(path)
    before = None if written is None else written.get("status")
    summary = {"status": status, "error": error} | ({} if config is None else about(config))
    if before != FINISHED and is_file(path / CONFIG_FILE):
        with suppress(DstrlError, OSError), lock.held(path):
            write_summary(path, summary)
    return summary
