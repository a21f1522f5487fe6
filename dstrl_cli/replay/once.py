"""The layout of accelerators: every observation is stored once, in half the memory.

A row's next observation is the observation of the next row, except for the newest row and for rows
at which a time limit ended the episode. For those each member has a small ring, `ends`. Every step
writes its next observation to the current slot of that ring and remembers the slot's number in
`slots`. A truncation advances the slot, which preserves its final observation; every other step
leaves the slot to be overwritten by the next one. (After a termination the next observation is
never used, so it does not matter that the next row holds the start of another episode.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.errors import DstrlError
from dstrl_cli.replay.layout import max_cuts
from dstrl_cli.replay.state import Filled
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
        self.slot = torch.zeros(members, 1, dtype=torch.int32, device=device)  # the current one
        self.slots = self.slot.new_empty(members, self.capacity, 1)  # of every row
        self.make_ends(max_cuts(self.capacity, time_limit))
        # Steps since the episode began [P]. The first episode may have begun before the buffer was
        # made, so it may be truncated at any time.
        self.episode_steps = torch.full((members,), time_limit, device=device)
        self.cut_early = torch.zeros(members, dtype=torch.bool, device=device)

    def make_ends(self, count: int) -> None:
        """Make room for the observations of `count` slots of every member."""
        members, device = len(self.size), self.size.device
        self.ends = torch.empty(members, count, self.observation_size, device=device)
        # flat number of each member's first slot [P, 1]
        self.first_slot = torch.arange(members, device=device).unsqueeze(1) * count

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

    def truncated(self, member: int, rows: slice | Tensor) -> Tensor:
        """Return which rows of a member a time limit ended [N], bool."""
        _, not_terminated, not_done = self.outcome[member, rows].unbind(-1)
        return not_terminated > not_done

    @override
    def breaks(self, member: int, start: int, size: int) -> tuple[Tensor, Tensor]:
        if self.cut_early[member]:
            raise DstrlError(self.faults()[member])
        ages = torch.arange(size, device=self.size.device)
        rows = (start + ages) % self.capacity
        at_end = self.truncated(member, rows)
        at_end[-1:] = True
        slots = self.slots[member, rows[at_end], 0]
        return ages[at_end], self.ends[member, slots]

    @override
    def set_next(self, filled: Sequence[Filled]) -> None:
        """Give every truncation a slot; they may lie closer than the time limit, where cut.

        As many slots as a new buffer has are free for the truncations to come. Raises DstrlError
        where rows of an episode do not follow each other.
        """
        ends = [
            self.truncated(member, given.rows).nonzero().squeeze(1)
            for member, given in enumerate(filled)
        ]
        self.make_ends(max(map(len, ends)) + max_cuts(self.capacity, self.time_limit))
        for member, (given, ages) in enumerate(zip(filled, ends, strict=True)):
            inside = given.rows.start + given.breaks[:-1]  # all but the newest
            if self.not_done[member, inside].any():
                raise DstrlError(
                    "the stored observations of an episode do not follow each other, which the "
                    "buffer on the device needs; set replay_device=cpu"
                )
            self.set_ends(member, given, ages)

    def set_ends(self, member: int, filled: Filled, truncations: Tensor) -> None:
        """Store the final observations of a member's `truncations` and that of the newest row."""
        first, size = filled.rows.start, filled.rows.stop - filled.rows.start
        newest = torch.arange(max(0, size - 1), size, device=self.size.device)
        ages = torch.cat((truncations, newest)).unique()
        # what is in no next row, over what is
        following = self.observation[member, (first + ages + 1) % self.capacity]
        place = torch.searchsorted(filled.breaks, ages).clamp_(max=max(0, len(filled.breaks) - 1))
        given = filled.breaks[place] == ages
        following[given] = filled.observations[place[given]]
        self.ends[member, : len(ages)] = following
        self.slots[member, filled.rows] = 0
        self.slots[member, first + ages, 0] = torch.arange(len(ages), device=ages.device).int()
        self.slot[member] = len(truncations)
        ended = (self.not_done[member, filled.rows] == 0).nonzero()
        since = size - 1 - int(ended[-1]) if len(ended) else self.time_limit
        self.episode_steps[member] = since

    @override
    def keep_next_of_newest(self, member: int) -> None:
        self.slot[member] = (self.slot[member] + 1) % self.ends.shape[1]
        self.episode_steps[member] = 0
