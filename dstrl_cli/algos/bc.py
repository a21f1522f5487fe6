"""Behaviour cloning: an actor learns a trained policy's actions, without rewards or critics.

RLX Sec. 5.3 and App. C.6: "the actor network is trained under the guidance of a well-trained
expert, instead of the critic network". The expert acts in the environment, with exploration noise,
from the first step on; the actor is trained towards the expert's noise-free actions in the states
that it came through. Evaluations are the actor's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from dstrl_cli.algos.base import Due
from dstrl_cli.algos.deterministic import DeterministicPolicy
from dstrl_cli.nets.frozen import FrozenNetworks
from dstrl_cli.replay.batch import Batch


class BC(DeterministicPolicy):
    """Behaviour cloning from the policy of the run that `expert` names."""

    METRICS: ClassVar[dict[str, str]] = {"actor_loss": "actor"}
    WARMS_UP: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        size, device = self.action_size, self.device
        self.expert = FrozenNetworks.of(self.configs, "expert", ["actor"], size, device)

    def expert_action(self, observation: Tensor) -> Tensor:
        """Return the expert's actions [P, B, act] without noise for observations [P, B, obs]."""
        return self.expert(observation).squeeze(1).tanh()

    @override
    def sample_action(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        action = self.expert_action(observation.unsqueeze(1)).squeeze(1)
        return self.explored(action, noise), action

    @override
    def noise(self, max_nstep: int) -> tuple[Tensor, ...]:
        return ()

    @override
    def train_step(self, batch: Batch, noise: Sequence[Tensor], due: Due) -> None:
        if due.actor:
            self.update_actor(batch)

    def update_actor(self, batch: Batch) -> None:
        """Take a step on the mean square of the distance to the expert's actions."""
        action = self.actor.forward(batch.observation).squeeze(1).tanh_()  # [P, B, act]
        error = action - self.expert_action(batch.observation)
        numbers = error.shape[1] * error.shape[2]
        loss = (error * error).sum((1, 2)) / numbers
        self.freeze_unless_finite(loss)
        grad = error * (2.0 / numbers) * (1 - action.square())
        self.actor.backward(grad.unsqueeze(1))
        self.actor.apply_update(self.alive, None, error.shape[1])
        self.record(actor_loss=loss)
