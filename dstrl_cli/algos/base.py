"""What every algorithm shares: an actor, its critics, exploration streams and metrics.

An algorithm is two methods in the order of its paper: `sample_action` and `train_step`. It never
asks how networks are stored, which members differ in method, or where transitions come from. Both
methods consist of torch operations on tensors that keep their addresses and take their random
numbers as arguments, so that they can be captured and replayed. What changes on the host from
update to update is decided before, in `begin_update`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.registry import ENGINES, algorithm, load
from dstrl_cli.replay.base import Batch
from dstrl_cli.streams import Stream


class Due(NamedTuple):
    """What an update does besides the critics' step, decided on the host.

    `topology`: a rule looks at the update, so that it is carried out and not replayed.
    """

    actor: bool
    targets: bool
    topology: bool


class Algorithm(ABC):
    """An off-policy actor-critic for P members in lock-step.

    Args:
        configs: the members' configurations; what one population shares is read from the first.
        observation_size, action_size: sizes of the task.
        device: torch device.
        engine: name of the engine of the networks.

    Attributes:
        METRICS: what is recorded, and the network at whose updates.
        exploration: stream of the noise [P, act] that `sample_action` takes.
        alive: members that still train [P]; the others are frozen as they are.
    """

    METRICS: ClassVar[dict[str, str]] = {
        "critic_loss": "critic",
        "q_mean": "critic",
        "actor_loss": "actor",
    }
    exploration: Stream

    def __init__(
        self,
        configs: Sequence[RunConfig],
        observation_size: int,
        action_size: int,
        device: str = "cpu",
        engine: str = "masked",
    ) -> None:
        self.configs, self.config = configs, configs[0]
        self.row = algorithm(self.config.algo)
        self.seeds = [config.seed for config in configs]
        self.action_size, self.device, self.engine = action_size, device, engine
        config = self.config

        def network(role: str, inputs: int, outputs: int, heads: int, delay: int) -> Network:
            hidden = getattr(config, role).hidden_sizes or config.hidden_sizes
            sizes = (inputs, *hidden, outputs)
            plan = NetworkPlan(role, sizes, heads, configs, delay, device)
            built: Network = load(ENGINES, engine)(plan)
            return built

        self.actor = network(
            "actor",
            observation_size,
            self.row.actor_outputs * action_size,
            1,
            config.policy_delay,
        )
        self.critic = network("critic", observation_size + action_size, 1, self.row.critics, 1)
        self.alive = torch.ones(len(configs), dtype=torch.bool, device=device)
        self.updates = 0
        self.sums = {name: torch.zeros(len(configs), device=device) for name in self.METRICS}
        self.averaged = {"actor": 0, "critic": 0}  # updates whose metrics were taken

    @abstractmethod
    def act(self, observation: Tensor) -> Tensor:
        """Return the deterministic actions [P, B, act] in [-1, 1] for observations [P, B, obs]."""

    @abstractmethod
    def sample_action(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions to take and the noise-free ones, both [P, act] in [-1, 1].

        Args:
            observation: [P, obs].
            noise: of this environment step, from `exploration` [P, act].
        """

    @abstractmethod
    def noise(self, max_nstep: int) -> tuple[Tensor, ...]:
        """Return the random numbers of the current update, for targets of `max_nstep` steps."""

    @abstractmethod
    def train_step(self, batch: Batch, noise: Sequence[Tensor], due: Due) -> None:
        """Take the update that has begun: the critics and, when due, actor and targets."""

    def update(self, batch: Batch) -> None:
        """Take one whole update."""
        due = self.begin_update()
        self.train_step(batch, self.noise(len(batch.path)), due)

    def begin_update(self) -> Due:
        """Count the update and find what is due: the host's half of an update."""
        self.updates += 1
        actor = self.updates % self.config.policy_delay == 0
        targets = self.updates % self.config.target_update_interval == 0
        begun = [self.critic, self.actor] if actor else [self.critic]
        for network in begun:
            network.begin_update()
        return Due(actor, targets, any(network.watched for network in begun))

    def record(self, **values: Tensor) -> None:
        """Add metrics [P] of this update to the running sums."""
        for name, value in values.items():
            self.sums[name].add_(value)

    def take_metrics(self) -> dict[str, list[float]]:
        """Return the mean of every metric since the last call, per member, on the host.

        A metric of a network that had no update since is left out.
        """
        means = {}
        for name, role in self.METRICS.items():
            count = getattr(self, role).updates - self.averaged[role]
            if count:
                means[name] = (self.sums[name] / count).tolist()
            self.sums[name].zero_()
        self.averaged = {role: getattr(self, role).updates for role in self.averaged}
        return means

    def state_action(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the critics' input [P, B, obs + act]."""
        return torch.cat((observation, action), dim=-1)

    def update_critic(self, batch: Batch, target: Tensor) -> None:
        """Regress every critic on `target` [P, B]: mean over the batch, sum over the critics."""
        rows = target.shape[-1]
        q = self.critic.forward(batch.state_action).squeeze(-1)
        error = q - target.unsqueeze(1)  # [P, K, B]
        loss = (error * error).sum((1, 2)) / rows  # [P]
        self.freeze_unless_finite(loss)
        self.critic.backward((error * (2.0 / rows)).unsqueeze(-1))
        td_error = error.abs().sum(-1) if self.critic.watched else None
        self.critic.apply_update(self.alive, td_error, rows)
        self.record(critic_loss=loss, q_mean=q.sum((1, 2)) / (self.row.critics * rows))

    def freeze_unless_finite(self, loss: Tensor) -> None:
        """Freeze the members whose loss [P] is NaN or infinite."""
        self.alive &= loss.abs() < math.inf
