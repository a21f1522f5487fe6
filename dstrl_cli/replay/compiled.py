"""The replay buffer of the sparse engine: the same rings, written and read by compiled loops.

What two dozen operations on small tensors take is more than the work itself. Needs the compiler.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay import kernels as replay_kernels
from dstrl_cli.replay.base import Batch, Replay


class CompiledReplay(Replay):
    """Ring buffer on the CPU; see `Replay`."""

    @override
    def make_next(self) -> None:
        super().make_next()
        kept = self.policy_action is not self.action
        policy_actions = self.policy_action if kept else self.policy_action[:, :0]
        # views of the tensors, which stay where they are
        self.places = (self.position.numpy(), self.size.numpy())
        self.rings = tuple(
            ring.numpy() for ring in (self.state_action, self.next_observation, self.outcome)
        )
        self.policy_actions = policy_actions.numpy()
        self.weights = self.powers[0].numpy()

    @override
    def add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        policy_action: Tensor | None = None,
    ) -> None:
        replay_kernels.store(
            observation.numpy(), action.numpy(), reward.numpy(), next_observation.numpy(),
            terminated.numpy(), truncated.numpy(),
            (action if policy_action is None else policy_action).numpy(),
            *self.rings, self.policy_actions, *self.places,
        )  # fmt: skip

    @override
    def sample(self, numbers: Tensor, nstep: Tensor, max_nstep: int) -> Batch:
        members, rows = numbers.shape
        state_actions, next_observations, _ = self.rings
        split = next_observations.shape[-1]
        state_action = np.empty((members, rows, state_actions.shape[-1]), np.float32)
        reward, discount = np.empty((2, members, rows), np.float32)
        last = np.empty((members, rows), np.int64)
        path = np.empty((max_nstep, members, rows, split), np.float32)
        path_discount = np.empty((max_nstep, members, rows), np.float32)
        replay_kernels.sample(
            numbers.numpy(), nstep.numpy(), np.float32(self.gamma), self.weights,
            *self.rings, *self.places,
            state_action, reward, discount, last, path, path_discount,
        )  # fmt: skip
        both, steps = torch.from_numpy(state_action), torch.from_numpy(path).unbind(0)
        return Batch(
            state_action=both,
            observation=both[..., :split],
            action=both[..., split:],
            reward=torch.from_numpy(reward),
            next_observation=steps[-1],
            discount=torch.from_numpy(discount),
            path=steps,
            path_discount=torch.from_numpy(path_discount).unbind(0),
            last=torch.from_numpy(last),
        )
