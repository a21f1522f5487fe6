"""2DNav-v1 and 2DNav-v2 for N members at once, on the training device.

The same numbers as `navigation`, step by step, time limit and automatic reset included, but without
a loop over environments, and without reading anything back from the device. On an accelerator the
arrays are torch's; on the CPU they are NumPy's, whose small operations take a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

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
from dstrl_cli.errors import DstrlError


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
        self._on_cpu = device.type == "cpu"
        self._xp: Any = np if self._on_cpu else torch  # functions of both have the same names here
        self._middle, self._half = map(self._array, action_scale(spec))
        self._goal = self._array(plane.goal)
        self._centres = self._array(plane.centres)  # [discs, 2]
        self._radii = self._array(plane.radii)
        self._nothing = self._array(np.zeros((), np.float32))
        self._blocked_cost = self._array(np.array(BLOCKED_COST, np.float32))
        self._time_limit = spec.time_limit or torch.iinfo(torch.int64).max
        self._position = self._array(np.zeros((num_envs, 2), np.float32))
        self._elapsed = self._array(np.zeros(num_envs, np.int64))

    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Return every point to the origin [N, 2]; nothing is random, so seeds change nothing."""
        self._position = self._xp.zeros_like(self._position)
        self._elapsed = self._xp.zeros_like(self._elapsed)
        return self._tensor(self._position).clone()

    @torch.no_grad()
    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Step the active points together; see `BatchEnv.step`."""
        xp, before = self._xp, self._position
        actions = actions.to(self.device, torch.float32)
        position, reward, reached = self._move(actions.numpy() if self._on_cpu else actions)
        elapsed = self._elapsed + 1
        truncated = elapsed >= self._time_limit
        if active is not None:
            moving = self._mask(active)
            position = xp.where(moving[:, None], position, before)
            elapsed = xp.where(moving, elapsed, self._elapsed)
            reward = xp.where(moving, reward, self._nothing)
            reached, truncated = reached & moving, truncated & moving
        ended = reached | truncated
        terminated = reached & ~(truncated & self._mask(self.limit_wins))
        self._position = xp.where(ended[:, None], self._nothing, position)
        self._elapsed = elapsed * ~ended
        truncated = truncated & ~terminated
        return Step(
            next_observation=self._tensor(position),
            reward=self._tensor(reward),
            terminated=self._tensor(terminated),
            truncated=self._tensor(truncated),
            observation=self._tensor(self._position).clone(),
        )

    def _move(self, action: Any) -> tuple[Any, Any, Any]:
        """Return where every point goes [N, 2], its reward [N], and whether it is at the goal."""
        xp = self._xp
        action = xp.clip(self._middle + self._half * action, -ACTION_LIMIT, ACTION_LIMIT)
        position = xp.clip(self._position + action, -POSITION_LIMIT, POSITION_LIMIT)
        costs = CONTROL_COST * xp.square(action).sum(-1)
        if not len(self._radii):
            offset = position - self._goal
            reward = -self._length(offset) - costs
        else:
            distances = self._length(position[:, None] - self._centres)  # [N, discs]
            blocked = (distances <= self._radii).any(-1)
            position = xp.where(blocked[:, None], self._position, position)
            offset = position - self._goal
            paid = xp.where(blocked, self._blocked_cost, self._nothing)
            reward = -self._length(offset) - costs - paid
        return position, reward, (abs(offset) < GOAL_TOLERANCE).all(-1)

    def read_states(self) -> list[EnvState | DstrlError]:
        """Return every point's position and elapsed steps; waits for the device."""
        positions, elapsed = self._tensor(self._position), self._tensor(self._elapsed)
        return [
            EnvState(observation, steps, None, {}, {})
            for observation, steps in zip(
                positions.cpu().numpy().copy(), elapsed.tolist(), strict=True
            )
        ]

    def set_state(self, states: Sequence[EnvState | None]) -> torch.Tensor:
        """Put every point where its state says; return the positions [N, 2]."""
        now = zip(states, self.get_state(), strict=True)
        then = [old if new is None else new for new, old in now]
        self._position = self._array(np.stack([state.observation for state in then]))
        self._elapsed = self._array(np.array([state.elapsed for state in then], np.int64))
        return self._tensor(self._position).clone()

    def close(self) -> None:
        """Nothing to release."""

    def _length(self, vector: Any) -> Any:
        squares = self._tensor(self._xp.square(vector).sum(-1))
        length = squares.sqrt()  # torch's may differ from NumPy's in the last bit, and stays
        return length.numpy() if self._on_cpu else length

    def _array(self, values: np.ndarray) -> Any:
        """Return numbers as an array to compute with."""
        return values if self._on_cpu else torch.from_numpy(values).to(self.device)

    def _mask(self, values: Active) -> Any:
        """Return flags as an array to compute with."""
        if self._on_cpu:
            return np.asarray(values, np.bool_)
        return torch.as_tensor(values, dtype=torch.bool, device=self.device)

    def _tensor(self, array: Any) -> torch.Tensor:
        """Return an array to compute with as a tensor over the same memory."""
        return torch.from_numpy(array) if self._on_cpu else array
