"""Parts of a run, and how far through one of them a network is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A part of a run, by a network's updates and by the shares of the run's episodes.

    The episodes count where they are further through it than the updates, in runs of N episodes:
    episodes end early, and the last update would not be reached by updates alone.

    Attributes:
        updates: at its start and at its end.
        shares: of the episodes done, likewise.
    """

    updates: tuple[int, int]
    shares: tuple[float, float]

    def done(self, update: int, episodes: float) -> float:
        """Return the share of the span that is done, in [0, 1].

        Args:
            update: of the network.
            episodes: share of the run's episodes that are done; 0 where only steps count.
        """
        return max(_done(update, *self.updates), _done(episodes, *self.shares))


def _done(now: float, start: float, end: float) -> float:
    if now < start:
        return 0.0
    return min(1.0, (now - start) / (end - start)) if end > start else 1.0
