"""2DNav-v1 and 2DNav-v2 for N members at once, in torch, on the training device.

The same numbers as `navigation`, step by step, time limit and automatic reset included, but without
a loop over environments, and without reading anything back from the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch

from dstrl_cli.envs.actions import action_scale
from dstrl_cli.envs.base import Active, BatchEnv, Step
from dstrl_cli.envs.specs import EnvSpec, make_env
from dstrl_cli.envs.state import EnvState
from dstrl_cli.envs.tasks.navigation import (
    ACTION_LIMIT,
    BLOCKED_COST,
    CONTROL_COST,
    GOAL_TOLERANCE,
    POSITION_LIMIT,
)


class NavigationBatch(BatchEnv):
    """N points on the plane, all with the task of the specification.

    Goal and obstacles are read from one `Navigation2D`, made as the specification says. Numbers
    that are not finite are passed on and not reported in `failures`, and `Step.host` is None:
    looking at the numbers would make the device wait.
    """

    on_device: ClassVar[bool] = True

    def __init__(self, spec: EnvSpec, num_envs: int, device: torch.device) -> None:
        super().__init__(spec, num_envs, device)
        plane = make_env(spec).unwrapped
        self._middle, self._half = (torch.from_numpy(x).to(device) for x in action_scale(spec))
        self._goal = torch.tensor(plane.goal, device=device)
        self._centres = torch.tensor(plane.centres, device=device)  # [discs, 2]
        self._radii = torch.tensor(plane.radii, device=device)
        self._time_limit = spec.time_limit or torch.iinfo(torch.int64).max
        self._position = torch.zeros(num_envs, 2, device=device)
        self._elapsed = torch.zeros(num_envs, dtype=torch.int64, device=device)

    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Return every point to the origin [N, 2]; nothing is random, so seeds change nothing."""
        self._position = torch.zeros_like(self._position)
        self._elapsed = torch.zeros_like(self._elapsed)
        return self._position.clone()

    @torch.no_grad()
    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Step the active points together; see `BatchEnv.step`."""
        action = self._middle + self._half * actions.to(self.device, torch.float32)
        action = action.clamp(-ACTION_LIMIT, ACTION_LIMIT)
        moved = (self._position + action).clamp(-POSITION_LIMIT, POSITION_LIMIT)
        distances = _length(moved[:, None] - self._centres)  # [N, discs]
        blocked = (distances <= self._radii).any(-1)
        position = torch.where(blocked[:, None], self._position, moved)
        offset = position - self._goal
        reward = -_length(offset) - CONTROL_COST * action.square().sum(-1) - BLOCKED_COST * blocked
        reached = (offset.abs() < GOAL_TOLERANCE).all(-1)
        elapsed = self._elapsed + 1
        truncated = elapsed >= self._time_limit
        if active is not None:
            moving = torch.as_tensor(active, dtype=torch.bool, device=self.device)
            position = torch.where(moving[:, None], position, self._position)
            elapsed = torch.where(moving, elapsed, self._elapsed)
            reward = torch.where(moving, reward, 0.0)
            reached, truncated = reached & moving, truncated & moving
        ended = reached | truncated
        terminated = reached & ~(truncated & self.limit_wins)
        self._position = position.masked_fill(ended[:, None], 0.0)
        self._elapsed = elapsed.masked_fill(ended, 0)
        truncated = truncated & ~terminated
        return Step(position, reward, terminated, truncated, self._position.clone())

    def get_state(self) -> list[EnvState]:
        """Return every point's position and elapsed steps; waits for the device."""
        return [
            EnvState(observation, elapsed, None, {}, {})
            for observation, elapsed in zip(
                self._position.cpu().numpy().copy(), self._elapsed.tolist(), strict=True
            )
        ]

    def set_state(self, states: Sequence[EnvState]) -> torch.Tensor:
        """Put every point where its state says; return the positions [N, 2]."""
        positions = np.stack([state.observation for state in states])
        self._position = torch.from_numpy(positions).to(self.device)
        self._elapsed = torch.tensor([state.elapsed for state in states], device=self.device)
        return self._position.clone()

    def close(self) -> None:
        """Nothing to release."""


def _length(vector: torch.Tensor) -> torch.Tensor:
    return vector.square().sum(-1).sqrt()
