"""`summary.json`: how a run ended, and what status a run folder has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstrl_cli.config.readfile import MAX_JSON, parse_json, read_text
from dstrl_cli.errors import InputError
from dstrl_cli.runs import lock
from dstrl_cli.runs.files import as_json, write

CONFIG_FILE = "config.yaml"
SUMMARY_FILE = "summary.json"


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
    if not lock.is_file(path / CONFIG_FILE):
        return None
    return "running" if lock.in_use(path) else last_status(path)


def last_status(path: Path) -> str:
    """Return the status in a run's summary; `unfinished` where it left none."""
    return str((read_summary(path) or {}).get("status", "unfinished"))


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json` of the run folder `path`; numbers that JSON cannot hold become null."""
    write(path / SUMMARY_FILE, as_json(summary))


def mark_ended(path: Path, status: str, error: str | None) -> dict[str, Any]:
    """Return the summary of a run that ended without finishing; write it if the run did not.

    A summary that the run itself wrote with this status is kept. Nothing is written where there is
    no run, or where another process holds the folder.
    """
    written = read_summary(path)
    if written is not None and written.get("status") == status:
        return written
    summary = {"status": status, "error": error}
    if lock.is_file(path / CONFIG_FILE):
        with suppress(InputError, OSError), lock.held(path):
            write_summary(path, summary)
    return summary
