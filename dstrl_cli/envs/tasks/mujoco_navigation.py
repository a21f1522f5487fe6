"""ReacherNav and AntNav: MuJoCo robots that go to a fixed goal, from a fixed start.

They follow `ReacherPosEnv` and `AntNaviEnv` of github.com/HeyuanMingong/sllrl, on Gymnasium's v4
classes; the goals come from the fixed task sets (`task_sets`). The time limit, which truncates, is
set where the tasks are registered (`registration`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.utils import EzPickle

from dstrl_cli.envs.tasks.mujoco import Ant, Reacher
from dstrl_cli.envs.tasks.navigation import GOAL_TOLERANCE
from dstrl_cli.envs.tasks.task_sets import Point, choose_task
from dstrl_cli.errors import InputError, suggest

StepResult = tuple[np.ndarray, float, bool, bool, dict[str, Any]]

GOAL_RANGES = ("disc", "box")
"""The task sets that ReacherNav's goals may come from."""


class ReacherNav(Reacher):
    """An arm that stretches its fingertip to a goal; 11 observations, 2 torques within +-1.

    Start: both joints at zero (fingertip at (0.21, 0)), at rest, no noise. Reward after the step:
    -distance - 1e-4 |action|^2. Termination: distance below 0.001.

    Args:
        task: which of the ten fixed tasks, 0-9.
        goal: a goal (x, y) in place of the task's.
        goal_range: `disc`: goals within 0.2 of the shoulder, which the arm can reach; `box`:
            goals U(-.5, .5)^2, of which it cannot reach most.
        **kwargs: rendering, as for any MuJoCo task of Gymnasium.

    Raises:
        InputError: no such task or range, or an impossible goal.
    """

    def __init__(
        self,
        task: int = 0,
        goal: Point | None = None,
        goal_range: str = "disc",
        **kwargs: Any,
    ) -> None:
        if goal_range not in GOAL_RANGES:
            raise InputError(suggest("goal_range", goal_range, GOAL_RANGES))
        self.task = choose_task(goal_range, task, goal)
        super().__init__(**kwargs)
        EzPickle.__init__(self, task, goal, goal_range, **kwargs)
        # The model file limits the target to +-.27: the physics would push a farther goal back.
        self.model.jnt_limited[-2:] = 0

    def reset_model(self) -> np.ndarray:
        """Return to the start; nothing is random."""
        qpos = self.init_qpos.copy()
        qpos[-2:] = self.task.goal
        self.set_state(qpos, np.zeros_like(self.init_qvel))
        return self._get_obs()

    def step(self, action: np.ndarray) -> StepResult:
        """Apply the torques; the distance is the one after the step."""
        action = np.clip(action, -1.0, 1.0)
        self.do_simulation(action, self.frame_skip)
        if self.render_mode == "human":
            self.render()
        distance = np.linalg.norm(self.get_body_com("fingertip") - self.get_body_com("target"))
        reward = -distance - 1e-4 * np.square(action).sum()
        return self._get_obs(), float(reward), bool(distance < 0.001), False, {}


class AntNav(Ant):
    """An ant that walks to a goal it cannot see; 111 observations, 8 torques within +-1.

    Observations: positions without x and y, velocities, and the contact forces clipped to +-1.
    Start: Ant's default pose, at rest, no noise. Reward: -distance + 0.2 - 0.01 |action|^2
    - 1e-4 |clipped contact forces|^2. Termination: within 0.01 of the goal in x and in y, or a
    torso height outside [0.2, 1].

    Args:
        task: which of the ten fixed tasks (goals U(-.5, .5)^2), 0-9.
        goal: a goal (x, y) in place of the task's; the original code's default is (1, 1).
        **kwargs: rendering, as for any MuJoCo task of Gymnasium.

    Raises:
        InputError: no such task, or an impossible goal.
    """

    def __init__(self, task: int = 0, goal: Point | None = None, **kwargs: Any) -> None:
        self.task = choose_task("box", task, goal)
        super().__init__(use_contact_forces=True, **kwargs)
        EzPickle.__init__(self, task, goal, **kwargs)

    def reset_model(self) -> np.ndarray:
        """Return to the start; nothing is random."""
        self.set_state(self.init_qpos, self.init_qvel)
        return self._get_obs()

    def step(self, action: np.ndarray) -> StepResult:
        """Apply the torques and measure from the torso."""
        action = np.clip(action, -1.0, 1.0)
        self.do_simulation(action, self.frame_skip)
        if self.render_mode == "human":
            self.render()
        offset = self.get_body_com("torso")[:2] - self.task.goal
        costs = 1e-2 * np.square(action).sum() + 1e-4 * np.square(self.contact_forces).sum()
        reward = 0.2 - np.linalg.norm(offset) - costs
        reached = bool((np.abs(offset) < GOAL_TOLERANCE).all())
        terminated = reached or not bool(self.is_healthy)
        return self._get_obs(), float(reward), terminated, False, {"reached": reached}
