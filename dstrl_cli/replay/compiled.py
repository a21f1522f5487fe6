"""The layout of the sparse engine: `beside`'s rings, in compiled loops.

Dispatching two dozen small tensor operations costs more than the work. This layout needs Numba and
gives the same numbers as `paired`.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay import kernels
from dstrl_cli.replay.base import Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.beside import BesideReplay


@final
class CompiledReplay(BesideReplay):
    """Ring buffer on the CPU; see `Replay`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        kept = self.policy_action is not self.action
        policy_actions = self.policy_action if kept else self.policy_action[:, :0]
        # the kernels' arguments: NumPy views of the tensors' memory
        self.position_and_size = (self.position.numpy(), self.size.numpy())
        self.rings = tuple(
            ring.numpy() for ring in (self.state_action, self.next_observation, self.outcome)
        )
        self.policy_actions = policy_actions.numpy()
        self.discount_array = self.discounts.numpy()

    @override
    def add(self, transition: Transition) -> None:
        *given, policy_action = transition
        policy_action = transition.action if policy_action is None else policy_action
        kernels.store(
            *(part.numpy() for part in given), policy_action.numpy(),
            *self.rings, self.policy_actions, *self.position_and_size,
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
