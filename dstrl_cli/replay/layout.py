"""How large a replay buffer is, by arithmetic on configurations; no torch.

The buffers follow these functions, and a sweep plans memory with them.
"""

from __future__ import annotations

from collections.abc import Sequence

from dstrl_cli.config.models import RunConfig

FLOAT = 4
"""Bytes of a number in single precision."""


def capacity(config: RunConfig) -> int:
    """Return the transitions that a member's buffer holds: it never stores more than `steps`."""
    return min(config.buffer_size, config.steps)


def ring_bytes(
    capacity: int,
    observation_size: int,
    action_size: int,
    policy_actions: bool,
    time_limit: int | None = None,
) -> int:
    """Return the bytes of one member's replay buffer.

    Without a time limit (`paired`, `compiled`) a row holds the observation, the next observation,
    the action (twice where the policy's noise-free action is kept too), the reward, and whether the
    episode terminated or ended. With one (`once`) a row holds no next observation but a slot number
    instead, and there is room for the final observations of truncated episodes.
    """
    row = observation_size + action_size * (2 if policy_actions else 1) + 3
    if time_limit is None:
        return FLOAT * capacity * (row + observation_size)
    return FLOAT * (capacity * (row + 1) + max_cuts(capacity, time_limit) * observation_size)


def max_cuts(capacity: int, time_limit: int) -> int:
    """Return how many final observations of truncated episodes a ring may need to hold at once.

    One for each whole episode that fits, one for the episode that the ring begins in, and one for
    what follows the newest row.
    """
    return capacity // time_limit + 2


def keeps_policy_actions(configs: Sequence[RunConfig]) -> bool:
    """Return whether a member's dynamic buffer compares with the policy's actions of the past."""
    buffers = [config.buffer for config in configs]
    return any(each.dynamic and each.distance == "mean_squared" for each in buffers)
