"""Environments as other people write them, right and wrong, in a module that processes can import.

`foreign(WHAT)` is the id of one that does what its class says below.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class Walk(gymnasium.Env):
    """Observes a seeded number and its steps; reward 1; ends, solved, after five steps.

    With a `habit` it does one thing differently.
    """

    observation_space: Any = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,))

    def __init__(self, habit: str = "", length: int = 5) -> None:
        self.habit, self.length, self.count = habit, length, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        start: Any = np.array([self.np_random.uniform(), 0.0], np.float32)
        match self.habit:
            case "old reset":
                return start
            case "no info":
                return start, None
            case "unseeded":
                start[0] = np.random.default_rng().uniform()
            case "global":
                start[0] = np.random.uniform()  # noqa: NPY002
            case "complex":
                start = start.astype(complex)
            case "matrix":
                start = start[None]
            case "nan start":
                start[0] = np.nan
            case "moves away":
                os.chdir("/")
            case "silent":
                raise AssertionError
        return start, {}

    def step(self, action: np.ndarray) -> Any:
        self.count += 1
        seen = np.array([self.count, action[0]], np.float32)
        reward: Any = 1.0
        terminated: Any = self.count >= self.length
        info: Any = {"is_success": bool(terminated)}
        match self.habit:
            case "four":
                return seen, reward, terminated, info
            case "vector":
                reward = np.array([1.0, 2.0])
            case "no reward":
                reward = None
            case "endless reward":
                reward = np.inf
            case "array flags":
                terminated = np.array([terminated])
            case "no flag":
                terminated = None
            case "failure":
                info = {"success": np.float64(0.0)}
            case "says nothing":
                info = {}
        if self.count == 3:
            self._act_up()
            if self.habit == "turns complex":
                seen = seen.astype(np.complex64)
        return seen, reward, terminated, False, info

    def _act_up(self) -> None:
        match self.habit:
            case "exits":
                os._exit(0)
            case "crashes":
                os.kill(os.getpid(), 9)
            case "bye":
                raise SystemExit("bye")
            case "hangs":
                threading.Event().wait()

    def close(self) -> None:
        if self.habit == "does not close":
            raise RuntimeError("it does not close")


class Precise(gymnasium.Env):
    """Actions are float64 within [0, 0.1], exactly; pays a number that float32 cannot hold."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(0.0, 0.1, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.action_space.contains(action)
        assert action.dtype == np.float64
        return np.zeros(1, np.float32), 16777217, False, False, {}


class Goals(Walk):
    """Observes a dictionary, as environments with goals do."""

    observation_space = Dict({"observation": Walk.observation_space, "goal": Box(-1, 1, (1,))})

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        seen, info = super().reset(seed=seed)
        return {"observation": seen, "goal": np.ones(1, np.float32)}, info

    def step(self, action: np.ndarray) -> Any:
        seen, *rest = super().step(action)
        return {"observation": seen, "goal": np.ones(1, np.float32)}, *rest


class OwnSeed(Walk):
    """Follows the seed of its constructor, and no other."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.random = np.random.default_rng(seed)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.array([self.random.uniform(), 0.0], np.float32), {}


class Spaceless(gymnasium.Env):
    """Forgets its observation space."""

    action_space = Walk.action_space


def leaves() -> gymnasium.Env:
    sys.exit(0)


def leaves_at_once() -> gymnasium.Env:
    os._exit(0)


def asserts() -> gymnasium.Env:
    assert Path("/no/such/file").exists()
    return Walk()


HABITS = (
    *("old reset", "no info", "unseeded", "global", "complex", "matrix", "nan start"),
    *("moves away", "silent", "four", "vector", "no reward", "endless reward", "array flags"),
    *("no flag", "failure", "says nothing", "exits", "crashes", "bye", "hangs", "does not close"),
    "turns complex",
)


def foreign(habit: str = "sound") -> str:
    """Return the id of an environment with a habit, or of one of the classes by name."""
    return f"foreign_samples:{habit.title().replace(' ', '')}-v0"


gymnasium.register(foreign().partition(":")[2], Walk)
for habit in HABITS:
    gymnasium.register(foreign(habit).partition(":")[2], Walk, kwargs={"habit": habit})
for name, entry_point in {
    "precise": Precise,
    "goals": Goals,
    "own seed": OwnSeed,
    "spaceless": Spaceless,
    "leaves": leaves,
    "leaves at once": leaves_at_once,
    "asserts": asserts,
}.items():
    limit = 3 if entry_point is Precise else None
    gymnasium.register(foreign(name).partition(":")[2], entry_point, max_episode_steps=limit)
gymnasium.register("Limited-v0", Walk, max_episode_steps=5)
