"""2DNav-v1 and 2DNav-v2: a point that walks on a plane to a goal it cannot see, in NumPy.

`navigation_batch` computes the same numbers in torch. Both follow `Navigation2DEnvV1` and
`Navigation2DEnvV3` of github.com/HeyuanMingong/sllrl with two changes: v2 keeps the position within
+-2 as v1 does, and tasks whose start or goal lies in an obstacle are never drawn. The time limit,
which truncates, is set where the tasks are registered (`registration`).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from dstrl_cli.envs.tasks.task_sets import Point, choose_task

ACTION_LIMIT = 0.1
POSITION_LIMIT = 2.0
GOAL_TOLERANCE = 0.01  # the episode ends when both coordinates are within this of the goal
CONTROL_COST = 0.01
BLOCKED_COST = 0.1
_PIXELS = 400


class Navigation2D(gymnasium.Env):
    """Observation (x, y), action a step (dx, dy) within +-0.1, start at the origin.

    Reward: -distance to the goal after the step, -0.01 |action|^2, and -0.1 for a step that would
    end in an obstacle; such a step leaves the position as it was. All numbers are float32.

    Args:
        task: which of the ten fixed tasks, 0-9.
        goal: a goal (x, y) in place of the task's.
        obstacles: False for 2DNav-v1, True for 2DNav-v2 (three discs).
        render_mode: None or `rgb_array`.

    Attributes:
        task: the goal and the obstacles as they were chosen.
        goal: [2] float32.
        centres: centres of the obstacles [discs, 2] float32.
        radii: their radii [discs] float32.

    Raises:
        InputError: no such task, or an impossible goal.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        task: int = 0,
        goal: Point | None = None,
        obstacles: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.task = choose_task("obstacles" if obstacles else "box", task, goal)
        self.render_mode = render_mode
        self.observation_space = Box(-POSITION_LIMIT, POSITION_LIMIT, (2,), np.float32)
        self.action_space = Box(-ACTION_LIMIT, ACTION_LIMIT, (2,), np.float32)
        self.goal = np.array(self.task.goal, np.float32)
        discs = self.task.obstacles
        self.centres = np.array([disc.centre for disc in discs], np.float32).reshape(-1, 2)
        self.radii = np.array([disc.radius for disc in discs], np.float32)
        self._position = np.zeros(2, np.float32)
        self._background: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return to the origin; nothing is random."""
        super().reset(seed=seed)
        self._position = np.zeros(2, np.float32)
        return self._position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move unless that would end in an obstacle; terminate at the goal."""
        action = np.clip(np.asarray(action, np.float32), -ACTION_LIMIT, ACTION_LIMIT)
        moved = np.clip(self._position + action, -POSITION_LIMIT, POSITION_LIMIT)
        blocked = bool((_length(moved - self.centres) <= self.radii).any())
        if not blocked:
            self._position = moved
        offset = self._position - self.goal
        reward = -_length(offset) - CONTROL_COST * np.square(action).sum() - BLOCKED_COST * blocked
        reached = bool((np.abs(offset) < GOAL_TOLERANCE).all())
        return self._position.copy(), float(reward), reached, False, {"blocked": blocked}

    def render(self) -> np.ndarray | None:
        """Return the plane within +-2 as pixels [400, 400, 3] uint8, or None without a mode."""
        if self.render_mode is None:
            return None
        if self._background is None:
            self._background = np.full((_PIXELS, _PIXELS, 3), 255, np.uint8)
            for centre, radius in zip(self.centres, self.radii, strict=True):
                _paint_disc(self._background, centre, radius, (150, 150, 150))
            _paint_disc(self._background, self.goal, 0.05, (60, 160, 80))
        frame = self._background.copy()
        _paint_disc(frame, self._position, 0.04, (40, 90, 200))
        return frame


def _length(vector: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(vector).sum(-1))


def _paint_disc(
    frame: np.ndarray, centre: np.ndarray, radius: float, colour: tuple[int, int, int]
) -> None:
    """Colour in place the pixels of a disc; x points right and y up, as on paper."""
    axis = (np.arange(_PIXELS) + 0.5) * (2 * POSITION_LIMIT / _PIXELS) - POSITION_LIMIT
    inside = (axis[None, :] - centre[0]) ** 2 + (-axis[:, None] - centre[1]) ** 2 <= radius**2
    frame[inside] = colour
