"""The interface of screens that show runs while they train; `terminal` implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Row = Mapping[str, Any]


class Display(Protocol):
    """Shows runs while they train. `key` is the number of a run's population."""

    def start(self, key: int, title: str, total: int, warm_up: int, runs: Sequence[str]) -> None:
        """Show a population that starts: `total` steps, of which `warm_up` are random.

        `runs` are the labels of its members.
        """

    def placed(self, key: int, title: str, node: str) -> None:
        """Show on which machine a population trains, where there are several."""

    def progress(self, key: int, step: int, total: int, steps_per_s: float) -> None:
        """Show how far a population has come."""

    def episodes(self, key: int, done: int, total: int) -> None:
        """Show how many episodes a population has had, where episodes end the training."""

    def evaluation(self, key: int, label: str, row: Row) -> None:
        """Show a run's evaluation: a row of `progress.csv`."""

    def message(self, text: str) -> None:
        """Show one line of text."""

    def state(self, label: str, state: str) -> None:
        """Show in what state a run is that does not train."""

    def finish(self, label: str, summary: Row) -> None:
        """Show how a run ended."""


class DisplayReporter:
    """What the trainer reports to, where it trains in the process that shows the runs."""

    def __init__(self, display: Display, key: int, labels: Sequence[str]) -> None:
        self._display = display
        self._key = key
        self._labels = labels

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        """Show how far the population has come."""
        self._display.progress(self._key, step, total, steps_per_s)

    def episodes(self, done: int, total: int) -> None:
        """Show how many episodes the population has had."""
        self._display.episodes(self._key, done, total)

    def evaluation(self, member: int, row: Row) -> None:
        """Show one member's evaluation."""
        self._display.evaluation(self._key, self._labels[member], row)

    def message(self, text: str) -> None:
        """Show one line of text."""
        self._display.message(text)
