"""Compiled loops of the replay buffer on the CPU: one transition in, one batch out.

They read and write the rings of `replay.base.Replay` and give the same numbers as the torch
operations of `replay.tensors`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dstrl_cli.compiler import jit

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars


@jit
def store(
    observation: Array, action: Array, reward: Array, next_observation: Array, terminated: Array,
    truncated: Array, policy_action: Array, state_actions: Array, next_observations: Array,
    outcomes: Array, policy_actions: Array, position: Array, size: Array,
) -> None:  # fmt: skip
    """Write one transition [P, ...] of every member into the rings [P, capacity, ...].

    policy_actions is [P, 0, act] where these are not kept. Advances position [1] and size [P, 1].
    """
    at, capacity, split = position[0], outcomes.shape[1], observation.shape[1]
    for p in range(observation.shape[0]):
        for i in range(split):
            state_actions[p, at, i] = observation[p, i]
            next_observations[p, at, i] = next_observation[p, i]
        for i in range(action.shape[1]):
            state_actions[p, at, split + i] = action[p, i]
            if policy_actions.shape[1]:
                policy_actions[p, at, i] = policy_action[p, i]
        outcomes[p, at, 0] = reward[p]
        outcomes[p, at, 1] = not terminated[p]
        outcomes[p, at, 2] = not (terminated[p] or truncated[p])
        size[p, 0] = min(size[p, 0] + 1, capacity)
    position[0] = (at + 1) % capacity


@jit
def sample(
    numbers: Array, nstep: Array, gamma: Float, powers: Array,
    state_actions: Array, next_observations: Array, outcomes: Array, position: Array, size: Array,
    state_action: Array, reward: Array, discount: Array, last: Array, path: Array,
    path_discount: Array,
) -> None:  # fmt: skip
    """Fill a batch of n-step transitions; see `Replay.sample` and `Batch`.

    Reads numbers [P, B] and nstep [P, 1]. Writes state_action [P, B, obs + act], reward, discount
    and last [P, B], path [n, P, B, obs] and path_discount [n, P, B], for the largest n.
    """
    max_nstep, capacity = path.shape[0], outcomes.shape[1]
    for p in range(numbers.shape[0]):
        n = min(nstep[p, 0], size[p, 0])
        starts, oldest = size[p, 0] - n + 1, position[0] - size[p, 0]
        for b in range(numbers.shape[1]):
            following = oldest + int(numbers[p, b] * starts)
            if following < 0:
                following += capacity
            row, total, final, not_done = following, np.float32(0.0), 0, True
            for i in range(state_action.shape[2]):
                state_action[p, b, i] = state_actions[p, row, i]
            for k in range(max_nstep):
                if not_done and k < n:
                    row, final = following, k
                    following = row + 1 if row + 1 < capacity else 0
                    total += powers[k] * outcomes[p, row, 0]
                    path_discount[k, p, b] = gamma * powers[k] * outcomes[p, row, 1]
                    not_done = outcomes[p, row, 2] > 0
                else:  # beyond the last step taken, that step's observation is repeated
                    path_discount[k, p, b] = np.float32(0.0)
                for i in range(path.shape[3]):
                    path[k, p, b, i] = next_observations[p, row, i]
            reward[p, b] = total
            discount[p, b] = path_discount[final, p, b]
            last[p, b] = final


FUNCTIONS = (store, sample)
SOURCES = (__file__,)


def compile_all() -> None:
    """Compile both functions, or load them from disk, by calling them on tiny arrays."""
    row, ring, flags = np.zeros((1, 1), np.float32), np.zeros((1, 2, 1), np.float32), [False]
    wide, outcomes = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 3), np.float32)
    ended, position, size = np.array(flags), np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    for kept in (ring, ring[:, :0]):
        store(row, row, row[0], row, ended, ended, row, wide, ring, outcomes, kept, position, size)
    sample(
        np.zeros((1, 1)), size, np.float32(1.0), row[0], wide, ring, outcomes, position, size,
        np.zeros((1, 1, 2), np.float32), row, row.copy(), size.copy(),
        np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32),
    )  # fmt: skip
