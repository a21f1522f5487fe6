"""How many bytes a replay buffer takes, by arithmetic alone. No torch.

The layouts that allocate these tensors are the other modules of this folder.
"""

from __future__ import annotations

from collections.abc import Sequence

from dstrl_cli.config.models import RunConfig

FLOAT = 4
"""Bytes of a number; observations, actions and rewards are float32."""


def keeps_policy_actions(configs: Sequence[RunConfig]) -> bool:
    """Return whether the buffer also stores the policy's noise-free actions.

    It does where a member's dynamic buffer compares them with what the policy would do now.
    """
    buffers = [config.buffer for config in configs]
    return any(each.dynamic and each.distance == "mean_squared" for each in buffers)


def ring_bytes(
    capacity: int,
    observation_size: int,
    action_size: int,
    policy_actions: bool,
    time_limit: int | None = None,
) -> int:
    """Return the bytes of one member's replay buffer.

    A row holds observation, next observation, action (twice with `policy_actions`), reward, and
    whether the episode terminated or ended. With a `time_limit`, next observations are not stored:
    a row then has one number more (where the observation at its time limit is), and a second ring
    holds those observations. In compiled code it also holds those of episodes that end earlier,
    which are not counted: their memory is taken when they come.
    """
    row = observation_size + action_size * (2 if policy_actions else 1) + 3
    if time_limit is None:
        return FLOAT * capacity * (row + observation_size)
    return FLOAT * (capacity * (row + 1) + max_cuts(capacity, time_limit) * observation_size)


def max_cuts(capacity: int, time_limit: int) -> int:
    """Return the observations at time limits that a ring must hold, the newest row's included."""
    return capacity // time_limit + 2
