"""The layout of the sparse engine: every observation is stored once, and loops are compiled.

A row's next observation is mostly the observation of the row behind it. Where it is not, as at the
end of an episode, and as long as that is not known, a row has a slot of `ends` for it: the newest
two rows always have one. Which rows have a slot only changes when a row is counted (`claim_row`),
and storing it writes nothing that belongs to other rows: an update may read those meanwhile.

Dispatching two dozen small tensor operations costs more than the work. This layout needs Numba and
gives the same numbers as `paired`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay import kernels
from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.state import Filled


@final
class CompiledReplay(Replay):
    """Ring buffer on the CPU; see `Replay`.

    Attributes:
        ends: next observations that are in no other row, by slot [P, 1 + capacity, obs]. Slot 0 is
            not used, and memory that was never written to is never taken.
        slots: the slot of every row [P, capacity], or 0 where the next observation is that of the
            row behind it.
        live: how many slots are in use [P, 1].
        free: the numbers of the free slots, from place `live` on [P, capacity]; 0 stands for 1 more
            than its place, a slot that was never used. The slot that was freed last is first.
    """

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        kept = self.policy_action is not self.action
        policy_actions = self.policy_action if kept else self.policy_action[:, :0]
        members, capacity = len(self.size), self.capacity
        self.ends = torch.empty(members, 1 + capacity, self.observation_size)
        self.slots = np.zeros((members, capacity), np.int32)
        self.free = np.zeros((members, capacity), np.int32)
        self.live = np.zeros((members, 1), np.int64)
        # the kernels' arguments: NumPy views of the tensors' memory
        self.position_and_size = (self.position.numpy(), self.size.numpy())
        self.rings = (
            self.state_action.numpy(), self.ends.numpy(), self.slots, self.outcome.numpy()
        )  # fmt: skip
        self.policy_actions = policy_actions.numpy()
        self.discount_array = self.discounts.numpy()

    @override
    def add(self, transition: Transition) -> None:
        *given, policy_action = transition
        policy_action = transition.action if policy_action is None else policy_action
        kernels.store(
            *(part.numpy() for part in given), policy_action.numpy(),
            *self.rings, self.policy_actions, self.free, self.live, *self.position_and_size,
        )  # fmt: skip

    @override
    def sample(self, numbers: Tensor, nstep: Tensor, max_nstep: int) -> Batch:
        members, rows = numbers.shape
        state_action = np.empty((members, rows, self.state_action.shape[-1]), np.float32)
        reward, discount = np.empty((2, members, rows), np.float32)
        last = np.empty((members, rows), np.int64)
        path = np.empty((max_nstep, members, rows, self.observation_size), np.float32)
        path_discount = np.empty((max_nstep, members, rows), np.float32)
        kernels.sample(
            numbers.numpy(), nstep.numpy(), np.float32(self.gamma), self.discount_array,
            *self.rings, *self.position_and_size,
            state_action, reward, discount, last, path, path_discount,
        )  # fmt: skip
        return Batch.of(
            self.observation_size,
            state_action=torch.from_numpy(state_action),
            reward=torch.from_numpy(reward),
            discount=torch.from_numpy(discount),
            last=torch.from_numpy(last),
            path=torch.from_numpy(path).unbind(0),
            path_discount=torch.from_numpy(path_discount).unbind(0),
        )

    @override
    def faults(self) -> dict[int, str]:
        return {}

    @override
    def breaks(self, member: int, start: int, size: int) -> tuple[Tensor, Tensor]:
        slots, end = self.slots[member], start + size
        valid = np.concatenate((slots[start:end], slots[: max(0, end - self.capacity)]))
        ages = torch.from_numpy(valid.nonzero()[0])  # the newest row has a slot
        held = self.ends[member, torch.from_numpy(valid)[ages]]
        following = self.observation[member, (start + ages + 1) % self.capacity]
        found = (held.view(torch.int32) != following.view(torch.int32)).any(1)
        found[-1:] = True
        return ages[found], held[found]

    @override
    def set_next(self, filled: Sequence[Filled]) -> None:
        self.slots.fill(0)
        self.free.fill(0)
        for member, given in enumerate(filled):
            count = len(given.breaks)
            self.slots[member, given.rows.start + given.breaks.numpy()] = np.arange(1, count + 1)
            self.ends[member, 1 : count + 1] = given.observations
            self.live[member] = count

    @override
    def keep_next_of_newest(self, member: int) -> None:
        """Nothing to do: the newest row has a slot, which it keeps if another episode follows."""
