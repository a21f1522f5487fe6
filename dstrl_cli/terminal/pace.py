"""How long runs still take, from the speed of their training alone.

The random steps with which a run begins are many times faster than steps with an update, so they
are left out of the speed.
"""

from __future__ import annotations

from collections.abc import Collection


class Pace:
    """The speed of one population, from the steps that it reports.

    The time of evaluations counts, as further evaluations will come.
    """

    def __init__(self, total: int, warm_up: int) -> None:
        self.total = self.most = total
        self.warm_up = warm_up if warm_up < total else 0  # a run of random steps alone
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def report(self, step: int, now: float) -> None:
        """Note that `step` steps were done at the time `now`, in seconds."""
        if step < self.warm_up:
            return
        self._first = self._first or (step, now)
        self._last = step, now

    def expect(self, step: int, had: int, of: int) -> None:
        """Note that `step` steps had `had` episodes of `of` that may end the training earlier."""
        self.total = min(self.most, step * of // had) if had else self.most

    @property
    def steps_per_s(self) -> float | None:
        """Steps per second since training began; None until two reports of it."""
        if self._first is None or self._last is None:
            return None
        steps, seconds = (b - a for a, b in zip(self._first, self._last, strict=True))
        return steps / seconds if steps > 0 and seconds > 0 else None

    def seconds_left(self, now: float) -> float | None:
        """Return how long the population still takes, or None where that is not known yet."""
        rate = self.steps_per_s
        if rate is None or self._last is None:
            return None
        step, at = self._last
        return max(0.0, (self.total - step) / rate - (now - at))


def seconds_left(
    running: Collection[Pace], waiting: Collection[Pace], ended: Collection[Pace], now: float
) -> float | None:
    """Return how long a sweep still takes, or None until one population has a known speed.

    A population without a speed is taken to be as fast as the others are on average, and as many
    are taken to train at once as do now.
    """
    rates = [p.steps_per_s for p in (*running, *ended) if p.steps_per_s is not None]
    if not rates or not running:
        return None
    usual = sum(rates) / len(rates)

    def left(pace: Pace) -> float:
        known = pace.seconds_left(now)
        return (pace.total - pace.warm_up) / usual if known is None else known

    each = [left(pace) for pace in running]
    return max(*each, 0.0, (sum(each) + sum(map(left, waiting))) / len(running))


def clock_time(seconds: float | None) -> str:
    """Return seconds as `1:05` or `2:03:04`; None, which is not known yet, as `-:--`."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
