"""What the folders of a plan's runs hold, and so what is to do: begin, go on, start over, nothing.

Nothing is trained here, and nothing is written but the summaries that finished runs have lost.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dstrl_cli.config.identity import differences
from dstrl_cli.errors import InputError
from dstrl_cli.runs.checksums import differing_logs, own_difference
from dstrl_cli.runs.folder import check_free, check_same, check_writable, read_config
from dstrl_cli.runs.left import left_in
from dstrl_cli.runs.lock import InUse, check_unused, holders, in_use
from dstrl_cli.runs.status import DAMAGED, FINISHED, RUNNING, SUMMARY_FILE
from dstrl_cli.runs.summary import read_status, read_summary, repair_summary
from dstrl_cli.sweep.going_on import going_on, is_longer, longer
from dstrl_cli.training.run import Outcome, Run

HELD = RUNNING
"""The status of a run that another process trains."""


@dataclass(frozen=True)
class Planned:
    """A run of the plan and the state of its folder.

    Attributes:
        run: the run.
        status: `new`, `finished`, `running` (in another process), or how an earlier attempt ended
            (`interrupted`, ...).
        damage: how the logs of a finished run are not what it wrote.
    """

    run: Run
    status: str
    damage: tuple[str, ...] = ()

    @property
    def to_do(self) -> bool:
        """Whether the run will be trained, unless another process does so first."""
        return self.run.start != "new" or self.status in ("new", HELD)


def fresh(runs: Iterable[Run], overwrite: bool) -> list[Planned]:
    """Plan runs that may only start in folders without a run, unless `overwrite`.

    Raises InputError for the first folder that is taken.
    """
    return [_from_the_start(_with_left(run), overwrite) for run in runs]


def resumed(runs: Iterable[Run], overwrite: bool, lengthen: bool = False) -> list[Planned]:
    """Plan runs of which the finished ones are skipped.

    Unfinished ones go on from their checkpoints; those without one start over. Those that another
    process trains are planned as such: a sweep looks at them again. `overwrite` starts all of them
    over, and replaces other configurations. With `lengthen`, a finished run that has fewer steps
    than are wanted goes on, too. Raises InputError where a folder holds another configuration, a
    damaged checkpoint, something that is no run, a run of which it is not known whether it
    finished, or one to go on with whose logs are not as they were at its checkpoint.
    """
    runs = list(runs)
    empty: dict[Path, bool] = {}  # whether there is nothing in a parent folder, which seeds share
    for run in runs:
        parent = run.path.parent
        if parent not in empty:
            empty[parent] = not os.path.lexists(parent)
            if empty[parent]:
                check_writable(run.path, run.config.out)
    held = holders(run.path for run in runs if not empty[run.path.parent])

    def plan(run: Run) -> Planned:
        if empty[run.path.parent]:
            return Planned(run, "new")
        run = _with_left(run)
        return _held(run, overwrite) if run.path in held else _resumed(run, overwrite, lengthen)

    return [plan(run) for run in runs]


def _with_left(run: Run) -> Run:
    """Return a run with what its folder holds, noted before anything else of it is read."""
    return replace(run, left=left_in(run.path))


def _resumed(run: Run, overwrite: bool, lengthen: bool) -> Planned:
    try:
        return _as_it_is(run, overwrite, lengthen)
    except InputError as error:
        if isinstance(error, InUse) or in_use(run.path):  # since the others were looked at
            return _held(run, overwrite, error)
        raise


def _held(run: Run, overwrite: bool, error: InputError | None = None) -> Planned:
    """Plan a run that another process trains.

    Raises `error`, or InUse, where that is no reason to wait.
    """
    if overwrite or is_another(run):
        raise error or InUse(run.path)
    return Planned(run, HELD)


def is_another(run: Run) -> bool:
    """Whether the folder of a run holds another configuration; not where it cannot be read."""
    try:
        return bool(differences(read_config(run.path), run.config))
    except InputError:  # it is being written, or damaged
        return False


def _as_it_is(run: Run, overwrite: bool, lengthen: bool) -> Planned:
    status = read_status(run.path)
    if overwrite or status is None:
        return _from_the_start(run, overwrite)
    check_unused(run.path)
    stored = read_config(run.path)
    if lengthen and is_longer(run, stored):
        same_length = run.config.model_copy(update={"steps": stored.steps})
        if not differences(stored, same_length):
            return _writable(longer(run, stored), status)
    check_same(run.path, stored, run.config)
    if status == DAMAGED:
        raise InputError(
            f"run {run.path}: its {SUMMARY_FILE} cannot be read, and its other files do not show "
            "whether it finished: train it again with --overwrite, or after removing its folder"
        )
    if status == FINISHED:
        summary = read_summary(run.path) or {}
        damage = [f"{name} is {cause}" for name, cause in differing_logs(run.path, summary)]
        if cause := own_difference(summary):
            damage.append(f"{SUMMARY_FILE} is {cause}")
        return Planned(run, status, tuple(damage))
    return _writable(going_on(run, stored), status)


def _from_the_start(run: Run, overwrite: bool) -> Planned:
    """Plan a run that may only start in a folder without a run, unless `overwrite`."""
    check_free(run.path, run.config, overwrite)
    status = read_status(run.path)
    start: Literal["new", "over"] = "over" if overwrite and status is not None else "new"
    return Planned(replace(run, start=start), status or "new")


def _writable(run: Run, status: str) -> Planned:
    """Plan a run that goes on. Raises InputError where its folder cannot be written."""
    check_writable(run.path, run.config.out)
    return Planned(run, status)


def ended(planned: Planned) -> Outcome:
    """Return how a run ended that was there before."""
    return Outcome(planned.run, read_summary(planned.run.path) or {"status": planned.status})


def repaired(planned: Iterable[Planned]) -> list[str]:
    """Write the summaries that finished runs have lost; return a line about each."""
    return [
        f"repaired: {each.run.label} had no {SUMMARY_FILE} to read, it was written again from the "
        "other files"
        for each in planned
        if not each.to_do and repair_summary(each.run.path)
    ]
