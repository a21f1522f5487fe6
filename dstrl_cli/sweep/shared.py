"""What other processes do with the folders of a sweep while it trains.

Several sweeps may share the runs of one results folder. Before a run is started its folder is
looked at again: another process may hold it, or may have trained the run since it was planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dstrl_cli.errors import InputError
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, written_at
from dstrl_cli.runs.files import is_file
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


class SharedFolders:
    """The folders of runs that are to be trained, compared with what they held before."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._before: dict[str, Summary | None] = {}
        self._saved: dict[str, int | None] = {}
        for run in runs:
            self._remember(run)

    def _remember(self, run: Run) -> None:
        self._before[run.label] = read_summary(run.path)
        self._saved[run.label] = written_at(run.path / CHECKPOINT_FOLDER)

    def left(self, run: Run) -> Summary | None:
        """Return the summary that a run left since it was last looked at; None where it is old."""
        summary = read_summary(run.path)
        return None if summary == self._before[run.label] else summary

    def look(self, run: Run) -> Run | Held | Ended:
        """Return the run as it can be started now, or why it need not be."""
        if (who := holder(run.path)) is not None:
            return Held(who)
        summary = read_summary(run.path)
        if summary != self._before[run.label]:
            if summary is not None and summary.get("status") in ENDED:
                return Ended(summary)
        elif run.start == "new":
            if not is_file(run.path / CONFIG_FILE):
                return run
        elif written_at(run.path / CHECKPOINT_FOLDER) == self._saved[run.label]:
            return run  # nobody has been here since the run was planned
        return self.again(run)

    def again(self, run: Run) -> Run | Held | Ended:
        """Return the run planned anew, from what its folder holds now.

        Whoever trains a run removes the summary in its folder first: where that is still there, the
        attempt never came so far, and the plan stays.
        """
        summary, before = read_summary(run.path), self._before[run.label]
        if run.start != "new" and summary is not None and summary == before:
            return run
        self._remember(run)
        try:
            (planned,) = resumed([replace(run, start="new", step=0, evaluated=-1)], overwrite=False)
        except InputError as error:
            return Ended({"status": FAILED, "error": str(error)})
        if not planned.to_do:
            return Ended(summary or {})
        return planned.run
