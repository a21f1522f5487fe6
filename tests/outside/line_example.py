"""An environment, as a user would write it: walk along a line towards a goal."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Line(gymnasium.Env):
    """Observes the position; the reward is minus the distance to `goal`."""

    observation_space = Box(-10.0, 10.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, goal: float = 1.0) -> None:
        self.goal, self.position = goal, 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = float(self.np_random.uniform(-1, 1))
        return np.array([self.position], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.position = float(np.clip(self.position + 0.2 * action[0], -10, 10))
        reward = -abs(self.position - self.goal)
        return np.array([self.position], np.float32), reward, False, False, {}


gymnasium.register("Line-v0", Line, max_episode_steps=20)
