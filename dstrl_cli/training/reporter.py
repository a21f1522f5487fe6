"""The interface through which training reports its progress; screens implement it."""

from __future__ import annotations

from typing import Any, Protocol


class Reporter(Protocol):
    """Receives what happens during training."""

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        """Report that `step` of `total` environment steps are done."""

    def episodes(self, done: int, total: int) -> None:
        """Report that `done` of `total` training episodes are done, where they end the training.

        Of several members they are those of the one with the largest part to go. Comes before
        `progress`.
        """

    def evaluation(self, member: int, row: dict[str, Any]) -> None:
        """Report a member's new row of `progress.csv`."""

    def message(self, text: str) -> None:
        """Report something that the user should read."""


class Silent:
    """A reporter that says nothing."""

    def progress(self, step: int, total: int, steps_per_s: float) -> None:
        """Ignore progress."""

    def episodes(self, done: int, total: int) -> None:
        """Ignore episodes."""

    def evaluation(self, member: int, row: dict[str, Any]) -> None:
        """Ignore an evaluation."""

    def message(self, text: str) -> None:
        """Ignore a message."""
