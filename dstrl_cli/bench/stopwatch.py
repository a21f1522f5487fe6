"""Adds up the time of calls, by part: functions are replaced by ones that are timed.

Only benchmarks use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a function is found: an object or module, and the attribute's name."""

    owner: Any
    name: str


class Stopwatch:
    """Times calls while they are watched.

    After every call the device is waited for, so that its work counts for the part that started
    it; what is watched is therefore slower. A timed call within a timed one counts as the outer.

    Attributes:
        seconds: by part.
    """

    def __init__(self, parts: Sequence[str], wait: Callable[[], Any] = lambda: None) -> None:
        self.seconds = dict.fromkeys(parts, 0.0)
        self.wait, self.inside = wait, False

    @contextmanager
    def watching(self, places: dict[str, Sequence[Place]]) -> Iterator[None]:
        """Time the functions at some places, by part, as long as the context lasts."""
        with ExitStack() as stack:
            for part, found in places.items():
                for owner, name in found:
                    stack.enter_context(self.replaced(part, owner, name))
            yield

    @contextmanager
    def replaced(self, part: str, owner: Any, name: str) -> Iterator[None]:
        """Replace one function by one whose time counts as a part's."""
        own, kept = name in vars(owner), getattr(owner, name)
        setattr(owner, name, self.timed(part, kept))
        try:
            yield
        finally:
            if own:
                setattr(owner, name, kept)
            else:
                delattr(owner, name)  # the class's method was hidden

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts as a part's."""

        def call(*arguments: Any, **more: Any) -> Any:
            if self.inside:
                return function(*arguments, **more)
            self.inside = True
            started = time.perf_counter()
            try:
                result = function(*arguments, **more)
                self.wait()
            finally:
                self.seconds[part] += time.perf_counter() - started
                self.inside = False
            return result

        return call
