"""The dynamic-capacity buffer (RLX Alg. 2): forget old transitions once the policy has moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parts import BufferConfig
from dstrl_cli.replay.base import Replay
from dstrl_cli.shapes import check


def mean_squared_distance(now: Tensor, action: Tensor, policy_action: Tensor) -> Tensor:
    """Return half the mean square of pi(s) - pi_old(s) over batch and action entries [P].

    RLX's code. All arguments are [P, B, act] in [-1, 1]: the policy's actions now, those that were
    taken, and the policy's at the time, without noise. Raises ValueError for other ranks and
    TypeError for other types.
    """
    check("now", now, "P B act")
    check("policy_action", policy_action, "P B act")
    return 0.5 * (now - policy_action).square().mean((-2, -1))


def l2_distance(now: Tensor, action: Tensor, policy_action: Tensor) -> Tensor:
    """Return the mean of ||pi(s) - a|| over the batch [P] (RLX eq. 8).

    Arguments and errors as of `mean_squared_distance`.
    """
    check("now", now, "P B act")
    check("action", action, "P B act")
    return (now - action).norm(dim=-1).mean(-1)


DISTANCES = {"mean_squared": mean_squared_distance, "l2": l2_distance}


class CapacityControl:
    """Shrinks the buffers of the members whose method has a dynamic capacity.

    Args:
        configs: of all members.
        device: of the networks; the buffer may be on another one.
    """

    def __init__(self, configs: Sequence[RunConfig], device: str) -> None:
        self.groups: dict[BufferConfig, list[int]] = defaultdict(list)
        for member, config in enumerate(configs):
            if config.buffer.dynamic:
                self.groups[config.buffer].append(member)
        self.in_group = {
            buffer: torch.tensor([config.buffer == buffer for config in configs], device=device)
            for buffer in self.groups
        }  # [P] each
        self.batch_size, self.device = configs[0].batch_size, device

    def due(self, step: int) -> bool:
        """Return whether `check` looks at any member after an environment step."""
        return any(step % buffer.check_interval == 0 for buffer in self.groups)

    def check(
        self, step: int, replay: Replay, act: Callable[[Tensor], Tensor]
    ) -> dict[int, Tensor]:
        """Drop a fraction of the oldest transitions of the members whose policy has moved.

        Each member is checked at its own interval. Nothing is read back from the device.

        Args:
            step: environment steps so far.
            replay: the buffer.
            act: the policies' actions [P, B, act] without noise for observations [P, B, obs].

        Returns the distance, a tensor without dimensions, of every member that was checked.
        """
        measured: dict[int, Tensor] = {}
        for buffer, members in self.groups.items():
            if step % buffer.check_interval:
                continue
            oldest = replay.oldest(buffer.check_batches * self.batch_size)
            observation, action, policy_action = (part.to(self.device) for part in oldest)
            now = act(observation)
            distance = DISTANCES[buffer.distance](now, action, policy_action)  # [P]
            drop = self.in_group[buffer] & (distance > buffer.distance_threshold)
            drop = drop.to(replay.size.device)
            drop &= replay.size.squeeze(1) > buffer.min_size
            replay.drop_oldest(drop, buffer.shrink)
            measured |= {member: distance[member] for member in members}
        return measured
