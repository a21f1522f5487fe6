"""The arrays through which a batch and its environments exchange numbers, laid over one buffer.

`group` steps the environments that read and write them. The buffer belongs to this process, or is
memory shared with worker processes. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dstrl_cli.envs.actions import action_dtype
from dstrl_cli.envs.specs import EnvSpec


@dataclass(frozen=True)
class Block:
    """The actions given to N environments, and what their steps returned.

    `results` holds what an accelerator gets of a step in one array; the four fields after it are
    views of its parts. `paid` and `success` are for the host alone.
    """

    action: np.ndarray  # [N, act] within the environment's bounds, in `actions.action_dtype`
    active: np.ndarray  # [N] bool: which environments a masked step is for
    results: np.ndarray  # [N * (2 * obs + 3)] float32
    next_observation: np.ndarray  # [N, obs]
    reward: np.ndarray  # [N]
    ended: np.ndarray  # [2, N]: terminated, truncated; both may be 1
    observation: np.ndarray  # [N, obs]
    paid: np.ndarray  # [N] float64: the rewards, not rounded to float32
    success: np.ndarray  # [N] float64: whether the task is solved; NaN where that is not known

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
            paid=self.paid[rows],
            success=self.success[rows],
        )

    def show_unmoved(self, rows: int | slice | np.ndarray, observation: np.ndarray) -> None:
        """Show environments that did not move: their observations, no reward and no end."""
        self.next_observation[rows] = self.observation[rows] = observation
        self.reward[rows] = self.paid[rows] = 0.0
        self.ended[:, rows] = 0.0
        self.success[rows] = np.nan


def results_size(spec: EnvSpec, num_envs: int) -> int:
    """Return how many numbers of the steps of N environments an accelerator gets."""
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


def _layout(spec: EnvSpec, num_envs: int) -> list[tuple[Any, int]]:
    """Return type and length of each array in the buffer; wide numbers first, as they align."""
    actions = num_envs * spec.action_size
    return [
        (np.float64, 2 * num_envs),  # paid, success
        (action_dtype(spec), actions),
        (np.float32, results_size(spec, num_envs)),
        (np.bool_, num_envs),
    ]


def buffer_size(spec: EnvSpec, num_envs: int) -> int:
    """Return the bytes that a block needs."""
    return sum(np.dtype(kind).itemsize * length for kind, length in _layout(spec, num_envs))


def make_block(spec: EnvSpec, num_envs: int, buffer: memoryview | bytearray | None = None) -> Block:
    """Return a block over `buffer` (`buffer_size` bytes), or over a new buffer where it is None."""
    if buffer is None:
        buffer = bytearray(buffer_size(spec, num_envs))
    arrays, offset = [], 0
    for kind, length in _layout(spec, num_envs):
        arrays.append(np.frombuffer(buffer, kind, length, offset))
        offset += arrays[-1].nbytes
    for_host, action, results, active = arrays
    next_observation, reward, ended, observation = unpack(results, num_envs)
    return Block(
        action=action.reshape(num_envs, -1),
        active=active,
        results=results,
        next_observation=next_observation,
        reward=reward,
        ended=ended,
        observation=observation,
        paid=for_host[:num_envs],
        success=for_host[num_envs:],
    )
