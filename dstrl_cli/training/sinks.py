"""The interface that the recorder writes to: one sink receives the rows of one member.

The run folder (`runs.folder.RunFolder`) is one; a member may have several.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol


class Sink(Protocol):
    """Takes the records of one member, in the order in which they were made.

    Rows are mappings with the columns that `runs.logs.COLUMNS` names.
    """

    def progress(self, row: Mapping[str, Any]) -> None:
        """Take one evaluation's row of `progress.csv`."""

    def evaluation(
        self,
        step: int,
        returns: Sequence[float],
        lengths: Sequence[int],
        success: Sequence[float | None] | None = None,
    ) -> None:
        """Take the episodes of one evaluation; success is None where it is not known."""

    def episodes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take training episodes that ended."""

    def topology(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the layers of a topology update."""

    def hashes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the digests of the networks at an evaluation."""

    def neurons(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take what the neurons of the networks do at an evaluation."""

    def policy(
        self, filename: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Take the networks as they are now: arrays by name, and what they were trained for."""

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """Take the state of the training, from which it can go on; it replaces the former one."""

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Take how the run ended; nothing follows."""
