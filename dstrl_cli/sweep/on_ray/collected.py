"""Runs on the disks of machines that do not share the results: their files go there and come back.

A run's files lie in a temporary folder of its machine, named for the sweep's results, until they
have been sent. Nothing of Ray is imported here.
"""

from __future__ import annotations

import getpass
import math
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.runs import lock
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, read_values
from dstrl_cli.runs.files import refuse_link, write
from dstrl_cli.runs.folder import RUN_FILES
from dstrl_cli.runs.left import left_in
from dstrl_cli.runs.output import OUTPUT_FILE
from dstrl_cli.runs.status import DIVERGED, FAILED, FINISHED, SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE, last_status
from dstrl_cli.training.run import Run

Files = Mapping[str, bytes]
"""The files of a run by their names relative to its folder."""

NAME_FILE = ".collected-as"
"""Holds, in the results folder, the name under which machines keep its runs."""

NAMES = [name for name in RUN_FILES if name != OUTPUT_FILE]
"""What is sent; what a run printed comes as messages."""


def name_of(out: Path) -> str:
    """Return the name under which machines keep the runs of a results folder; make it once."""
    file = out / NAME_FILE
    with suppress(OSError, ValueError):
        return uuid.UUID(file.read_text().strip()).hex
    out.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    write(file, f"{name}\n".encode())
    return name


def read(folder: Path) -> dict[str, bytes]:
    """Return the files of a run's folder; those of folders inside it have a `/` in their names."""
    found = {}
    for name in NAMES:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and not file.is_symlink() and not file.name.endswith(".part"):
                found[file.relative_to(folder).as_posix()] = file.read_bytes()
    return found


def put(folder: Path, files: Files) -> None:
    """Replace what a run's folder holds; the summary comes last, and makes the run count as ended.

    Before it comes the log whose last row shows that a run without a summary has finished.

    Raises ValueError for a name that is not one of a run's files, DstrlError where one cannot be
    written.
    """
    for name in files:
        parts = Path(name).parts
        if parts[0] not in NAMES or ".." in parts:
            raise ValueError(f"{name} is no file of a run")
    for name in reversed(NAMES):
        path = folder / name
        refuse_link(path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    last = {"progress.csv": 1, SUMMARY_FILE: 2}
    for name in sorted(files, key=lambda name: last.get(name, 0)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, files[name])


# --- on the machine that trains -----------------------------------------------------------------


def folder_of(sweep: str) -> Path:
    """Return the folder of a sweep on this machine's disk.

    It lies in one that nobody else can write to; others could plant runs in a temporary folder.
    Raises DstrlError where somebody has made that one before.
    """
    own = Path(tempfile.gettempdir()) / f"dstrl-{getpass.getuser()}"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = own.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DstrlError(f"{own} can be written by others: remove it, or set TMPDIR")
    return own / sweep


def receive(sweep: str, runs: Iterable[Run], files: Mapping[str, Files]) -> list[Run]:
    """Return runs with their folders on this machine's disk, which hold what was sent."""
    moved = []
    for run in runs:
        folder = folder_of(sweep) / run.label
        shutil.rmtree(folder, ignore_errors=True)
        if run.start == "resume":
            folder.mkdir(parents=True)
            put(folder, files[run.label])
        start: Literal["new", "resume"] = "resume" if run.start == "resume" else "new"
        moved.append(replace(run, path=folder, start=start, left=left_in(folder)))
    return moved


def send(sweep: str, labels: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """Return the files of runs that have ended; they stay here until `forget`."""
    return {label: read(folder_of(sweep) / label) for label in labels}


def forget(sweep: str, labels: Iterable[str]) -> None:
    """Remove runs whose files have arrived."""
    for label in labels:
        shutil.rmtree(folder_of(sweep) / label, ignore_errors=True)


def left_behind(sweep: str) -> dict[str, float]:
    """Return the runs on this disk that nobody trains and that ended or can go on, with the step.

    One that finished is further than any that did not.
    """
    found = {}
    for config in folder_of(sweep).glob(f"*/*/*/*/{CONFIG_FILE}"):
        folder = config.parent
        if not lock.in_use(folder) and (step := _step(folder)) >= 0:
            found[folder.relative_to(folder_of(sweep)).as_posix()] = step
    return found


def is_further(step: float, folder: Path) -> bool:
    """Whether a run that is at `step` elsewhere is further than what its folder here has of it."""
    return step > _step(folder)


def _step(folder: Path) -> float:
    """Return from which step a run's folder goes on; -1: from none, and nothing says how it ended.

    Who asks may hold the folder.
    """
    status = last_status(folder)
    if status == FINISHED:
        return math.inf
    try:
        return int(read_values(folder / CHECKPOINT_FOLDER)["steps"])
    except (InputError, KeyError, ValueError):
        return 0 if status in (FAILED, DIVERGED) else -1
