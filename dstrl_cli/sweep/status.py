"""How far the runs of a plan are, read from their folders. Nothing is trained or written."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrl_cli.config.readfile import MAX_TABLE, check_file
from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.lock import holders
from dstrl_cli.runs.logs import COLUMNS
from dstrl_cli.runs.status import RUNNING, SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE, last_status, read_summary
from dstrl_cli.sweep.states import is_another
from dstrl_cli.training.run import Run

TAIL = 4096
"""Bytes at the end of a CSV file in which its last row is looked for."""

ANOTHER = "another configuration"
"""The state of a run whose folder holds a run with other keys."""


@dataclass(frozen=True)
class Status:
    """What the folder of a run says.

    Attributes:
        run: the run.
        state: `new`, `running`, `unfinished` (it died), `another configuration`, or the status in
            its summary.
        step: the environment steps that its files tell of.
        value: the mean return of its last evaluation.
        age_s: seconds since it last wrote something.
        holder: the process that trains it.
    """

    run: Run
    state: str
    step: int | None = None
    value: float | None = None
    age_s: float | None = None
    holder: str | None = None


def look(runs: Iterable[Run]) -> list[Status]:
    """Return the status of every run, in order."""
    runs = list(runs)
    held = holders(run.path for run in runs)
    return [_look(run, held.get(run.path)) for run in runs]


def _look(run: Run, who: str | None) -> Status:
    if not is_file(run.path / CONFIG_FILE):
        return Status(run, RUNNING if who else "new", holder=who)
    state = RUNNING if who else last_status(run.path)
    if is_another(run):
        return Status(run, ANOTHER, holder=who)
    evaluation = _last_row(run.path, "progress.csv")
    steps = [_number(row.get("step")) for row in (evaluation, _last_row(run.path, "episodes.csv"))]
    if state != RUNNING:
        steps.append(_number((read_summary(run.path) or {}).get("steps")))
    known = [step for step in steps if step is not None]
    return Status(
        run,
        state,
        step=int(max(known)) if known else None,
        value=_number(evaluation.get("eval_return_mean")),
        age_s=_age(run.path),
        holder=who,
    )


def _last_row(folder: Path, name: str) -> dict[str, str]:
    """Return the last whole row of a CSV file by its columns; empty where there is none."""
    try:
        check_file(folder / name, MAX_TABLE)
        with (folder / name).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().decode(errors="replace").split("\n")[:-1]  # after the last: half
    except OSError:
        return {}
    cells = next(csv.reader(lines[-1:]), [])
    if len(cells) != len(COLUMNS[name]) or cells[0] == "step":
        return {}
    return dict(zip(COLUMNS[name], cells, strict=True))


def _number(value: Any) -> float | None:
    """Return a number of a file, or None where it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _age(folder: Path) -> float | None:
    """Return the seconds since one of the files that grow was last written."""
    times = []
    for name in (CONFIG_FILE, SUMMARY_FILE, *COLUMNS):
        with suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(0.0, time.time() - max(times)) if times else None
