"""The clock of a benchmark: repeating a step for a while. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Timing(NamedTuple):
    """How many steps were repeated, and what they took.

    `cpu_seconds` is the processor time of all threads of the process. Other programs on the machine
    lengthen `seconds`; processor time they leave almost as it is.
    """

    steps: int
    seconds: float
    cpu_seconds: float


class Timed(Protocol):
    """Something that can be repeated for a while."""

    def run(self, seconds: float) -> Timing:
        """Repeat for about `seconds`."""


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
) -> Timing:
    """Call `step` at least once and until `seconds` are over.

    `wait` returns when everything that was started is done.
    """
    wait()
    count, began_cpu, began = 0, time.process_time(), time.perf_counter()
    end = began + seconds
    while True:
        step()
        count += 1
        if time.perf_counter() >= end:
            break
    wait()
    return Timing(count, time.perf_counter() - began, time.process_time() - began_cpu)


def repeat_rows(ring: Any, filled: int) -> None:
    """Repeat the first `filled` rows of a tensor or array [capacity, ...] until it is full."""
    done, capacity = filled, len(ring)
    while done < capacity:
        more = min(done, capacity - done)
        ring[done : done + more] = ring[:more]
        done += more
