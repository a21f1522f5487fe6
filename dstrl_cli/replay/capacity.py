"""The dynamic-capacity buffer (RLX Alg. 2): forget old transitions once the policy has moved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from dstrl_cli.config.models import BufferConfig, RunConfig
from dstrl_cli.replay.base import DISTANCES, Replay

if TYPE_CHECKING:
    from dstrl_cli.algos.base import Algorithm
    from dstrl_cli.training.recorder import Recorder


class CapacityControl:
    """Shrinks the buffers of the members whose method has a dynamic capacity; reads nothing back.

    Args:
        configs: of all members.
        device: of the networks; the buffer may lie elsewhere.
    """

    def __init__(self, configs: Sequence[RunConfig], device: str) -> None:
        self.groups: dict[BufferConfig, list[int]] = defaultdict(list)
        for member, config in enumerate(configs):
            if config.buffer.dynamic:
                self.groups[config.buffer].append(member)
        self.of_group = {
            buffer: torch.tensor([config.buffer == buffer for config in configs], device=device)
            for buffer in self.groups
        }  # [P] each
        self.batch_size, self.device = configs[0].batch_size, device

    def compares_policy_actions(self) -> bool:
        """Return whether a member's distance compares with noise-free actions of the past."""
        return any(buffer.distance == "mean_squared" for buffer in self.groups)

    def check(self, step: int, replay: Replay, algorithm: Algorithm, recorder: Recorder) -> None:
        """At their interval, drop a share of the oldest transitions where the policy has moved."""
        for buffer, members in self.groups.items():
            if step % buffer.check_interval:
                continue
            oldest = replay.oldest(buffer.check_batches * self.batch_size)
            observation, action, policy_action = (part.to(self.device) for part in oldest)
            now = algorithm.act(observation)
            distance = DISTANCES[buffer.distance](now, action, policy_action)  # [P]
            drop = self.of_group[buffer] & (distance > buffer.distance_threshold)
            drop = drop.to(replay.size.device)
            drop &= replay.size.squeeze(1) > buffer.min_size
            replay.drop_oldest(drop, buffer.shrink)
            for member in members:
                recorder.distance[member] = distance[member]
