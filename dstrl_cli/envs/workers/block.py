"""The arrays through which a batch and its environments exchange numbers, laid over one buffer.

`group` steps the environments that read and write them. The buffer belongs to this process, or is
memory shared with worker processes. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dstrl_cli.envs.specs import EnvSpec


@dataclass(frozen=True)
class Block:
    """The actions given to N environments, and what their steps returned.

    `results` holds everything that a step returns in one array; the four fields after it are views
    of its parts.
    """

    action: np.ndarray  # [N, act] float32, within the environment's bounds
    active: np.ndarray  # [N] bool: which environments a masked step is for
    results: np.ndarray  # [N * (2 * obs + 3)] float32
    next_observation: np.ndarray  # [N, obs]
    reward: np.ndarray  # [N]
    ended: np.ndarray  # [2, N]: terminated, truncated
    observation: np.ndarray  # [N, obs]

    def part(self, rows: slice) -> Block:
        """Return views of the rows of some environments; `results` stays that of all."""
        return replace(
            self,
            action=self.action[rows],
            active=self.active[rows],
            next_observation=self.next_observation[rows],
            reward=self.reward[rows],
            ended=self.ended[:, rows],
            observation=self.observation[rows],
        )


def results_size(spec: EnvSpec, num_envs: int) -> int:
    """Return how many numbers the steps of N environments return."""
    return num_envs * (2 * spec.observation_size + 3)


def unpack(results: Any, num_envs: int) -> tuple[Any, Any, Any, Any]:
    """Return the parts of `results`, an array or a tensor of `results_size` numbers, as views.

    They are next_observation [N, obs], reward [N], ended [2, N] and observation [N, obs].
    """
    first = (len(results) - 3 * num_envs) // 2
    last = first + 3 * num_envs
    return (
        results[:first].reshape(num_envs, -1),
        results[first : first + num_envs],
        results[first + num_envs : last].reshape(2, num_envs),
        results[last:].reshape(num_envs, -1),
    )


def buffer_size(spec: EnvSpec, num_envs: int) -> int:
    """Return the bytes that a block needs."""
    numbers = num_envs * spec.action_size + results_size(spec, num_envs)
    return 4 * numbers + num_envs


def make_block(spec: EnvSpec, num_envs: int, buffer: memoryview | bytearray | None = None) -> Block:
    """Return a block over `buffer` (`buffer_size` bytes), or over a new buffer where it is None."""
    if buffer is None:
        buffer = bytearray(buffer_size(spec, num_envs))
    actions = num_envs * spec.action_size
    numbers = np.frombuffer(buffer, np.float32, actions + results_size(spec, num_envs))
    next_observation, reward, ended, observation = unpack(numbers[actions:], num_envs)
    return Block(
        action=numbers[:actions].reshape(num_envs, -1),
        active=np.frombuffer(buffer, np.bool_, num_envs, offset=numbers.nbytes),
        results=numbers[actions:],
        next_observation=next_observation,
        reward=reward,
        ended=ended,
        observation=observation,
    )
