"""The clock of a benchmark: repeating a step for a while. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol


class Timed(Protocol):
    """Something that can be repeated for a while."""

    def run(self, seconds: float) -> tuple[int, float]:
        """Repeat for about `seconds`; return the number of steps and the time they took."""


class Parted(Timed, Protocol):
    """A work whose steps have parts."""

    def parts(self, seconds: float) -> dict[str, float]:
        """Repeat for about `seconds`; return the milliseconds of a step's parts."""


class Saved(Timed, Protocol):
    """A work that writes checkpoints."""

    def checkpoint(self) -> tuple[float, int]:
        """Return the seconds that one takes, and its bytes."""


def repeat(
    step: Callable[[], object], seconds: float, wait: Callable[[], object] = lambda: None
) -> tuple[int, float]:
    """Call `step` at least once and until `seconds` are over; return calls and exact seconds.

    `wait` returns when everything that was started is done.
    """
    wait()
    count, began = 0, time.perf_counter()
    end = began + seconds
    while True:
        step()
        count += 1
        if time.perf_counter() >= end:
            break
    wait()
    return count, time.perf_counter() - began


def repeat_rows(ring: Any, filled: int) -> None:
    """Repeat the first `filled` rows of a tensor or array [capacity, ...] until it is full."""
    done, capacity = filled, len(ring)
    while done < capacity:
        more = min(done, capacity - done)
        ring[done : done + more] = ring[:more]
        done += more
