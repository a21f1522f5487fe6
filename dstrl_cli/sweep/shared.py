"""What other processes do with the folders of a sweep while it trains.

Several sweeps may share the runs of one results folder. Before a run is started its folder is
looked at again: another process may hold it, or may have trained the run since it was planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.left import left_in
from dstrl_cli.runs.lock import holder
from dstrl_cli.runs.status import DIVERGED, FAILED, FINISHED
from dstrl_cli.runs.summary import CONFIG_FILE, read_summary
from dstrl_cli.sweep.states import resumed
from dstrl_cli.training.run import Run

Summary = Mapping[str, Any]

ENDED = (FINISHED, FAILED, DIVERGED)
"""A run that another process ended like this is not trained again; an interrupted one is."""


@dataclass(frozen=True)
class Held:
    """Another process trains the run; `holder` says which."""

    holder: str


@dataclass(frozen=True)
class Ended:
    """The run needs no training; `summary` says how it ended."""

    summary: Summary


def new_summary(run: Run) -> Summary | None:
    """Return the summary that a run left since it was planned; None where it is old."""
    summary = read_summary(run.path)
    return None if summary == run.left.summary else summary


def look(run: Run) -> Run | Held | Ended:
    """Return the run as it can be started now, itself where nothing changed, or why it need not."""
    if (who := holder(run.path)) is not None:
        return Held(who)
    summary = new_summary(run)
    if summary is not None and summary.get("status") in ENDED:
        return Ended(summary)
    begun = run.start == "new" and is_file(run.path / CONFIG_FILE)
    return again(run) if begun or left_in(run.path) != run.left else run


def again(run: Run) -> Run | Held | Ended:
    """Return the run planned anew, from what its folder holds now.

    The plan stays where the summary is that of before, since whoever trains a run removes it, and
    where a run that is to start over was only removed in part.
    """
    now = left_in(run.path)
    if run.start != "new" and now.summary is not None and now == run.left:
        return run
    removed = now.summary in (None, run.left.summary) and now.saved in (None, run.left.saved)
    if run.start == "over" and removed:
        return replace(run, left=now)
    try:
        (planned,) = resumed([replace(run, start="new", step=0, evaluated=-1)], overwrite=False)
    except InputError as error:
        return Ended({"status": FAILED, "error": str(error)})
    if not planned.to_do:
        return Ended(now.summary or {})
    return planned.run
