"""An algorithm of somebody else's: DDPG, which has one critic. Configurations name it as `DDPG`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm, Due
from dstrl_cli.registry import AlgorithmRow
from dstrl_cli.replay.batch import Batch


class DDPG(Algorithm):
    """Deep deterministic policy gradient (Lillicrap et al. 2016), with Gaussian exploration."""

    name = "ddpg"
    row = AlgorithmRow(critics=1, noises=0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shape = (self.action_size,)
        self.exploration = streams.normal(self.seeds, "exploration", shape, self.device)

    @override
    def act(self, observation: Tensor) -> Tensor:
        return self.actor.predict(observation).squeeze(1).tanh_()

    @override
    def sample_action(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        action = self.act(observation.unsqueeze(1)).squeeze(1)
        return (action + noise * self.config.exploration_noise).clamp_(-1, 1), action

    @override
    def noise(self, max_nstep: int) -> tuple[Tensor, ...]:
        return ()

    @override
    def train_step(self, batch: Batch, noise: Sequence[Tensor], due: Due) -> None:
        self.update_critic(batch, self.td_target(batch))
        if due.actor:
            self.update_actor(batch)
        if due.targets:
            self.critic.update_target(self.config.tau)
            self.actor.update_target(self.config.tau)

    def td_target(self, batch: Batch) -> Tensor:
        action = self.actor.target(batch.next_observation).squeeze(1).tanh_()
        q = self.critic.target(self.state_action(batch.next_observation, action))  # [P, 1, B, 1]
        return torch.addcmul(batch.reward, batch.discount, q[:, 0, :, 0])

    def update_actor(self, batch: Batch) -> None:
        action = self.actor.forward(batch.observation).squeeze(1).tanh_()
        q = self.critic.forward(self.state_action(batch.observation, action))
        loss = -q.mean((1, 2, 3))
        self.freeze_unless_finite(loss)
        grad_q = torch.full_like(q, -1.0 / q.shape[2])
        grad_input = self.critic.backward(grad_q, weights=False, inputs=True)
        grad_action = grad_input[..., -self.action_size :]
        self.actor.backward((grad_action * (1 - action.square())).unsqueeze(1))
        self.actor.apply_update(self.alive, None, q.shape[2])
        self.record(actor_loss=loss)
