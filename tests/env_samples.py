"""Tiny environments for the tests, in a module that worker processes can import."""

from __future__ import annotations

import os
import random
import signal
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.wrappers import FlattenObservation


class Counter(gymnasium.Env):
    """Observes how many steps it made and the last action; ends after ``length`` steps.

    An episode's first observation begins with a random number. With a ``fault``, an environment
    that was seeded with an odd number goes wrong at its second step, or at a new start.
    """

    action_space = Box(np.array([-3.0, 0.0], np.float32), np.array([3.0, 1.0], np.float32))
    observation_space = Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, length: int = 3, fault: str = "") -> None:
        self.length, self.fault = length, fault
        self.count, self.faulty = 0, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        first = self.np_random.uniform()
        if seed is not None:
            self.faulty = seed % 2 == 1
            if self.faulty and self.fault == "no start":
                raise ValueError("broken")
        elif self.faulty and self.fault == "no new start":
            raise ValueError("broken")
        elif self.faulty and self.fault == "nan new start":
            first = np.nan
        return np.array([first, 0.0, 0.0]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert self.action_space.contains(action)
        self.count += 1
        reward, seen = float(self.count), np.array([self.count, *action])
        if self.faulty and self.count == 2:
            match self.fault:
                case "raises":
                    raise ValueError("broken")
                case "exits":
                    raise SystemExit("of its\nown accord")
                case "nan reward":
                    reward = np.nan
                case "inf observation":
                    seen[1] = np.inf
                case "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
        return seen, reward, self.count >= self.length, False, {}


class Whereabouts(gymnasium.Env):
    """Observes the number of the process that steps it, and its steps."""

    action_space = Box(-1.0, 1.0, (1,))
    observation_space = Box(0, np.inf, (2,))

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.count = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.count += 1
        return self._observation(), 1.0, False, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([os.getpid(), self.count], np.float32)


class Point(NamedTuple):
    """A plain tuple, but for its class."""

    x: float


@dataclass(frozen=True)
class Weather:
    """May be replaced, though it cannot change."""

    wind: float


class Elsewhere(Counter):
    """Keeps what nobody can read from outside, or what copies would not be like."""

    def __init__(self, what: str = "world") -> None:
        super().__init__()
        numbers = np.zeros(3)
        kept = {
            "world": object(),
            "rng": np.random.default_rng(0),
            "point": Point(1.0),
            "weather": Weather(2.0),
            "numbers": numbers,
        }
        setattr(self, what, kept[what])
        if what == "numbers":
            self.tail = [numbers[1:]]


class Nested(Counter):
    """Observes a dictionary: a counter's three numbers, and whether its steps are odd."""

    observation_space = Dict({"numbers": Counter.observation_space, "odd": Discrete(2)})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        numbers, info = super().reset(seed=seed)
        return {"numbers": numbers, "odd": 0}, info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        numbers, *rest = super().step(action)
        return {"numbers": numbers, "odd": self.count % 2}, *rest


class Borrowing(gymnasium.Env):
    """An environment whose rewards come from NumPy's and Python's global generators."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = np.random.rand() + random.gauss(0, 1)  # noqa: NPY002
        return np.full(2, 0.5, np.float32), reward, False, False, {}


class Remembering(gymnasium.ObservationWrapper):
    """A wrapper that may keep something between steps."""

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation


FAULTS = (
    *("raises", "exits", "nan reward", "inf observation", "dies"),
    *("no start", "no new start", "nan new start"),
)


def faulty(fault: str) -> str:
    """Return the id of a Counter with a fault."""
    return f"env_samples:Counter-{fault.replace(' ', '-')}-v0"


gymnasium.register("Counter-v0", Counter)
for limit in (2, 3, 4):
    gymnasium.register(f"Counter-limit{limit}-v0", Counter, max_episode_steps=limit)
for fault in FAULTS:
    gymnasium.register(faulty(fault).partition(":")[2], Counter, kwargs={"fault": fault})
gymnasium.register("Whereabouts-v0", Whereabouts)
gymnasium.register("Elsewhere-v0", Elsewhere)
for kept in ("rng", "point", "weather", "numbers"):
    gymnasium.register(f"Elsewhere-{kept}-v0", Elsewhere, kwargs={"what": kept})
gymnasium.register("Nested-v0", Nested)
gymnasium.register("Borrowing-v0", Borrowing, max_episode_steps=30)
gymnasium.register("Flattened-v0", lambda **kwargs: FlattenObservation(Nested(**kwargs)))
gymnasium.register("Remembering-v0", lambda: Remembering(Counter()))
