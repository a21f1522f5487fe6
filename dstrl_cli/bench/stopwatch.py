"""How long each part of a lock-step takes: the population's methods are wrapped to be timed.

Only benchmarks use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dstrl_cli.training.trainer import Population


class Stopwatch:
    """Adds up the seconds of a population's `advance`, part by part, from now on.

    `environment` includes copying what the environments return to the device, `transfer` is copying
    the actions to the host. After every part the device is waited for, so that its work counts for
    the part that started it; a lock-step without a stopwatch is therefore faster.
    """

    def __init__(self, population: Population) -> None:
        self.wait = _waiting(population.device)
        self.seconds = dict.fromkeys(("act", "transfer", "environment", "store", "update"), 0.0)
        self.total = 0.0
        for part, owner, name in (
            ("act", population, "act"),
            ("transfer", population, "actions_for_env"),
            ("environment", population.env, "step"),
            ("store", population.learner, "store"),
            ("update", population, "update"),
        ):
            setattr(owner, name, self.timed(part, getattr(owner, name)))
        self.advance = population.advance

    def lap(self, observation: Any) -> Any:
        """Take one lock-step; see `Population.advance`."""
        started = time.perf_counter()
        observation = self.advance(observation)
        self.total += time.perf_counter() - started
        return observation

    @property
    def other(self) -> float:
        """Seconds of the laps that belong to no part."""
        return self.total - sum(self.seconds.values())

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time counts as a part's."""

        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments)
            self.wait()
            self.seconds[part] += time.perf_counter() - started
            return result

        return call


def _waiting(device: str) -> Callable[[], Any]:
    """Return a function that waits for a device's work to end."""
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    return torch.cuda.synchronize
