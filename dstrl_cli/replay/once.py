"""The layout of accelerators: every observation is stored once, in half the memory.

A row's next observation is the observation of the next row, except for the newest row and for rows
at which a time limit ended the episode. For those each member has a small ring, `ends`. Every step
writes its next observation to the current slot of that ring and remembers the slot's number in
`slots`. A truncation advances the slot, which preserves its final observation; every other step
leaves the slot to be overwritten by the next one. (After a termination the next observation is
never used, so it does not matter that the next row holds the start of another episode.)
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay.layout import max_cuts
from dstrl_cli.replay.tensors import TensorReplay


@final
class OnceReplay(TensorReplay):
    """Ring buffer for environments that truncate episodes only at their time limit; see `Replay`.

    Consecutive transitions of a member must follow each other, except where an episode ended.

    Args:
        time_limit: steps after which an episode is truncated. It bounds how many truncations the
            ring may hold at once.

    Attributes:
        cut_early: members [P] whose environment truncated an episode before the time limit: some
            of their final observations may have been overwritten.
    """

    def __init__(self, *arguments: Any, time_limit: int, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.time_limit = time_limit
        members, device = len(self.size), self.size.device
        count = max_cuts(self.capacity, time_limit)
        self.ends = torch.empty(members, count, self.observation_size, device=device)
        self.slot = torch.zeros(members, 1, dtype=torch.int32, device=device)  # the current one
        self.slots = self.slot.new_empty(members, self.capacity, 1)  # of every row
        # flat number of each member's first slot [P, 1]
        self.first_slot = torch.arange(members, device=device).unsqueeze(1) * count
        # Steps since the episode began [P]. The first episode may have begun before the buffer was
        # made, so it may be truncated at any time.
        self.episode_steps = torch.full((members,), time_limit, device=device)
        self.cut_early = torch.zeros(members, dtype=torch.bool, device=device)

    @override
    def store_next(self, next_observation: Tensor, truncated: Tensor, ended: Tensor) -> None:
        self.write(self.slots, self.slot)
        current = (self.first_slot + self.slot).squeeze(1)
        self.ends.flatten(0, 1).index_copy_(0, current, next_observation)
        self.slot.add_(truncated.unsqueeze(1)).remainder_(self.ends.shape[1])
        self.episode_steps.add_(1)
        self.cut_early |= truncated & (self.episode_steps < self.time_limit)
        self.episode_steps.masked_fill_(ended, 0)

    @override
    def next_of(self, rows: Tensor) -> Tensor:
        column = (len(self.size),) + (1,) * (rows.dim() - 1)
        first = self.first_row.view(column)
        position = rows - first
        newest = (self.position - 1) % self.capacity
        _, not_terminated, not_done = self.take(self.outcome, rows).unbind(-1)
        in_ends = (not_terminated > not_done) | (position == newest)
        slot = self.take(self.slots, rows).squeeze(-1) + self.first_slot.view(column)
        in_next_row = self.take(self.observation, (position + 1) % self.capacity + first)
        return torch.where(in_ends.unsqueeze(-1), self.take(self.ends, slot), in_next_row)

    @override
    def faults(self) -> dict[int, str]:
        cause = (
            f"its environment cut an episode before its time limit of {self.time_limit} steps, for "
            "which the buffer on the device has no room; set replay_device=cpu"
        )
        return {member: cause for member, early in enumerate(self.cut_early.tolist()) if early}
