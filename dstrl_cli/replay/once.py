"""The replay buffer of accelerators: every observation is stored once.

A row's next observation is the next row's observation, but for the newest row and for rows at which
a time limit ended the episode. Those stand in a small ring of each member, `ends`, whose current
slot always holds what follows the newest row and is kept for good by moving on. (After a
termination nobody looks at the next observation; the new episode's first one stands in.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay.base import Replay
from dstrl_cli.replay.layout import most_cuts


class ReplayOnce(Replay):
    """Ring buffer for an environment whose episodes only a time limit cuts short.

    A transition goes on from the one stored before it, unless that ended an episode.

    Args:
        time_limit: steps of an episode that is cut: it bounds how many of them the ring may hold.

    Attributes:
        early: members [P] whose environment cut an episode before the limit: their observations at
            time limits may have been overwritten.
    """

    time_limit: int

    def __init__(self, *arguments: Any, time_limit: int, **more: Any) -> None:
        self.time_limit = time_limit
        super().__init__(*arguments, **more)

    @override
    def make_next(self) -> None:
        members, device = len(self.size), self.size.device
        slots = most_cuts(self.capacity, self.time_limit)
        self.ends = torch.empty(members, slots, self.observation.shape[-1], device=device)
        self.slot = torch.zeros(members, 1, dtype=torch.int32, device=device)  # the current one
        self.slots = self.slot.new_empty(members, self.capacity, 1)  # of every row
        self.first_slot = torch.arange(members, device=device).unsqueeze(1) * slots  # [P, 1]
        # steps since an episode began; the first one may have begun before the buffer did
        self.episode_steps = torch.full((members,), self.time_limit, device=device)
        self.early = torch.zeros(members, dtype=torch.bool, device=device)

    @override
    def store_next(self, next_observation: Tensor, terminated: Tensor, truncated: Tensor) -> None:
        self.write(self.slots, self.slot)
        current = (self.first_slot + self.slot).squeeze(1)
        self.ends.flatten(0, 1).index_copy_(0, current, next_observation)
        self.slot.add_(truncated.unsqueeze(1)).remainder_(self.ends.shape[1])
        self.episode_steps.add_(1)
        self.early |= truncated & (self.episode_steps < self.time_limit)
        self.episode_steps.masked_fill_(terminated | truncated, 0)

    @override
    def next_of(self, rows: Tensor) -> Tensor:
        column = (len(self.size),) + (1,) * (rows.dim() - 1)
        first = self.first_row.view(column)
        position = rows - first
        newest = (self.position - 1) % self.capacity
        _, not_terminated, not_done = self.take(self.outcome, rows).unbind(-1)
        apart = (not_terminated > not_done) | (position == newest)
        slot = self.take(self.slots, rows).squeeze(-1) + self.first_slot.view(column)
        following = self.take(self.observation, (position + 1) % self.capacity + first)
        return torch.where(apart.unsqueeze(-1), self.take(self.ends, slot), following)

    @override
    def faults(self) -> dict[int, str]:
        cause = (
            f"its environment cut an episode before its time limit of {self.time_limit} steps, for "
            "which the buffer on the device has no room; set replay_device=cpu"
        )
        return {member: cause for member, early in enumerate(self.early.tolist()) if early}
