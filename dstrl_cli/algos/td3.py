"""TD3 (Fujimoto et al. 2018) for a population: clipped double Q, delayed policy, target smoothing.

Actions are in [-1, 1]: the environment's side scales them, so the noises are in units of half the
action range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli import streams
from dstrl_cli.algos.base import Due
from dstrl_cli.algos.deterministic import DeterministicPolicy
from dstrl_cli.replay.batch import Batch


class TD3(DeterministicPolicy):
    """TD3; n-step targets arrive summed in the batch (RLX Alg. 3)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = (self.config.batch_size, self.action_size)
        self.smoothing = streams.normal(self.seeds, "target_noise", rows, self.device)

    @override
    def sample_action(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        action = self.act(observation.unsqueeze(1)).squeeze(1)
        return self.explored(action, noise), action

    @override
    def noise(self, max_nstep: int) -> tuple[Tensor, ...]:
        return (self.smoothing.at(self.updates - 1),)

    @override
    def train_step(self, batch: Batch, noise: Sequence[Tensor], due: Due) -> None:
        (smoothing,) = noise
        self.update_critic(batch, self.td_target(batch, smoothing))
        if due.actor:
            self.update_actor(batch)
            if due.targets:
                self.critic.update_target(self.config.tau)
                self.actor.update_target(self.config.tau)

    def td_target(self, batch: Batch, smoothing: Tensor) -> Tensor:
        """Return the n-step target with the smoothed target action and the smaller Q [P, B]."""
        clip = self.config.target_noise_clip
        noise = (smoothing * self.config.target_noise).clamp_(-clip, clip)
        action = self.actor.target(batch.next_observation).squeeze(1).tanh_()
        action = action.add_(noise).clamp_(-1, 1)
        q = self.critic.target(self.state_action(batch.next_observation, action))
        return torch.addcmul(batch.reward, batch.discount, q.squeeze(-1).amin(1))

    def update_actor(self, batch: Batch) -> None:
        """Take a step that raises the first critic's value of the policy's actions."""
        action = self.actor.forward(batch.observation).squeeze(1).tanh_()  # [P, B, act]
        q = self.critic.forward(self.state_action(batch.observation, action), heads=1)
        loss = -q.mean((1, 2, 3))
        self.freeze_unless_finite(loss)
        grad_q = torch.full_like(q, -1.0 / q.shape[2])
        grad_input = self.critic.backward(grad_q, weights=False, inputs=True)
        grad_action = grad_input[..., -self.action_size :]
        self.actor.backward((grad_action * (1 - action.square())).unsqueeze(1))
        self.actor.apply_update(self.alive, None, q.shape[2])
        self.record(actor_loss=loss)
