"""Any Gymnasium environment as a batch: N copies stepped one after the other on the CPU.

The copies share nothing, so an environment's trajectory does not depend on the others. Results
cross to the device as one block per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Never

import numpy as np
import torch

from dstrl_cli.envs.base import Active, BatchEnv, Step, action_scale
from dstrl_cli.envs.specs import EnvSpec, make_env
from dstrl_cli.errors import DstrlError


class GymnasiumBatch(BatchEnv):
    """N Gymnasium environments; see ``BatchEnv`` for shapes and errors.

    After an episode's end the environment is reset without a seed: its random stream goes on.
    """

    def __init__(self, spec: EnvSpec, num_envs: int, device: torch.device) -> None:
        super().__init__(spec, num_envs, device)
        self._envs = [make_env(spec) for _ in range(num_envs)]
        self._middle, self._half = action_scale(spec)
        self._low = np.array(spec.action_low, np.float32)
        self._high = np.array(spec.action_high, np.float32)
        self._action_dtype = self._envs[0].action_space.dtype
        self._observation = np.zeros((num_envs, spec.observation_size), np.float32)

    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Seed environment i with ``seeds[i]``; return observations [N, obs]."""
        for index, seed in enumerate(seeds):
            self._observation[index] = self._reset(index, seed=int(seed))
        if not np.isfinite(self._observation).all():
            self._fail_not_finite(self._observation)
        return torch.from_numpy(self._observation.copy()).to(self.device)

    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Step the active environments in order; see ``BatchEnv.step``."""
        scaled = self._scale(actions)
        block, arrays = self._new_block()
        next_observation, reward, ended, observation = arrays
        next_observation[:] = self._observation
        # An environment that blows up is reported below, once, not by NumPy as well.
        with np.errstate(over="ignore", invalid="ignore"):
            for index in range(self.num_envs):
                if active is not None and not active[index]:
                    continue
                try:
                    seen, paid, terminated, truncated, _ = self._envs[index].step(scaled[index])
                except Exception as error:
                    self._fail(index, error)
                next_observation[index] = seen
                reward[index] = paid
                ended[0, index] = terminated and not truncated
                ended[1, index] = truncated
                if terminated or truncated:
                    self._observation[index] = self._reset(index)
                else:
                    self._observation[index] = next_observation[index]
        observation[:] = self._observation
        if not np.isfinite(block).all():
            self._fail_not_finite(np.column_stack([next_observation, reward, observation]))
        return self._to_device(block)

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    def _scale(self, actions: torch.Tensor) -> np.ndarray:
        unit = actions.detach().cpu().numpy()
        scaled = (self._middle + self._half * unit).clip(self._low, self._high)
        return scaled.astype(self._action_dtype, copy=False)

    def _new_block(self) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Return zeros for everything a step returns, and the parts as views into them."""
        count, size = self.num_envs, self.spec.observation_size
        block = np.zeros(count * (2 * size + 3), np.float32)
        first, second, third = count * size, count * (size + 1), count * (size + 3)
        return (
            block,
            (
                block[:first].reshape(count, size),  # next observation
                block[first:second],  # reward
                block[second:third].reshape(2, count),  # terminated, truncated
                block[third:].reshape(count, size),  # observation
            ),
        )

    def _to_device(self, block: np.ndarray) -> Step:
        count, size = self.num_envs, self.spec.observation_size
        sizes = [count * size, count, 2 * count, count * size]
        parts = torch.from_numpy(block).to(self.device).split(sizes)
        terminated, truncated = parts[2].view(2, count).bool()
        shape = (count, size)
        return Step(parts[0].view(shape), parts[1], terminated, truncated, parts[3].view(shape))

    def _reset(self, index: int, **seed: int) -> Any:
        try:
            return self._envs[index].reset(**seed)[0]
        except Exception as error:
            self._fail(index, error)

    def _fail(self, index: int, error: Exception) -> Never:
        raise DstrlError(
            f"environment {index} ({self.spec.name}) failed: {type(error).__name__}: {error}"
        ) from error

    def _fail_not_finite(self, rows: np.ndarray) -> Never:
        """Name the first environment whose row of ``rows`` [N, ...] is not finite."""
        index = int(np.argmin(np.isfinite(rows).all(-1)))
        raise DstrlError(
            f"environment {index} ({self.spec.name}) returned a number that is not finite: it, or "
            "the policy that acts in it, has diverged"
        )
