"""What every algorithm shares: an actor, twin critics, exploration streams and metrics.

An algorithm is two methods, `explore` and `update`, written in the order of its paper. It never
asks how networks are stored, which members differ in method, or where transitions come from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from dstrl_cli.algos import ACTOR_OUTPUTS
from dstrl_cli.config import RunConfig
from dstrl_cli.nets import ENGINES
from dstrl_cli.nets.network import Network, Plan
from dstrl_cli.registry import load
from dstrl_cli.replay import Batch


class Algorithm(ABC):
    """An off-policy actor-critic for P members in lock-step.

    Args:
        configs: the members' configurations; what one population shares is read from the first.
        observation_size, action_size: sizes of the task.
        device: torch device.
        engine: name of the engine of the networks.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        observation_size: int,
        action_size: int,
        device: str = "cpu",
        engine: str = "masked",
    ) -> None:
        self.configs, self.config = configs, configs[0]
        self.seeds = [config.seed for config in configs]
        self.action_size, self.device = action_size, device
        config = self.config

        def network(role: str, inputs: int, outputs: int, heads: int, delay: int) -> Network:
            hidden = getattr(config, role).hidden_sizes or config.hidden_sizes
            sizes = (inputs, *hidden, outputs)
            plan = Plan(role, sizes, heads, configs, delay, device)
            built: Network = load(ENGINES, engine)(plan)
            return built

        self.actor = network(
            "actor",
            observation_size,
            ACTOR_OUTPUTS[config.algo] * action_size,
            1,
            config.policy_delay,
        )
        self.critic = network("critic", observation_size + action_size, 1, 2, 1)
        self.alive = torch.ones(len(configs), dtype=torch.bool, device=device)
        self.updates = 0
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    @abstractmethod
    def act(self, observation: Tensor) -> Tensor:
        """Return the deterministic actions [P, B, act] in [-1, 1] for observations [P, B, obs]."""

    @abstractmethod
    def explore(self, observation: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the actions to take and the noise-free ones, both [P, act] in [-1, 1].

        Args:
            observation: [P, obs].
            step: environment step, which addresses the noise.
        """

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Take one update of the critics and, when due, of actor and targets."""

    def record(self, **values: Tensor) -> None:
        """Add metrics [P] of this update to the running sums."""
        for name, value in values.items():
            if name in self.sums:
                self.sums[name].add_(value)
            else:
                self.sums[name] = value.clone()
                self.counts[name] = 0
            self.counts[name] += 1

    def take_metrics(self) -> dict[str, list[float]]:
        """Return the mean of every metric since the last call, per member, on the host."""
        means = {name: (self.sums[name] / count).tolist() for name, count in self.counts.items()}
        self.sums, self.counts = {}, {}
        return means

    def state_action(self, observation: Tensor, action: Tensor) -> Tensor:
        """Return the critics' input [P, B, obs + act]."""
        return torch.cat((observation, action), dim=-1)

    def update_critic(self, batch: Batch, target: Tensor) -> None:
        """Regress both critics on `target` [P, B]: mean over the batch, sum over the critics."""
        rows = target.shape[-1]
        q = self.critic.forward(batch.state_action).squeeze(-1)
        error = q - target.unsqueeze(1)  # [P, K, B]
        loss = error.square().mean(-1).sum(-1)  # [P]
        self.alive &= loss.isfinite()
        self.critic.backward((error * (2.0 / rows)).unsqueeze(-1))
        td_error = error.abs().sum(-1) if self.critic.looks_at_next_update() else None
        self.critic.update(self.alive, td_error=td_error, batch_size=rows)
        self.record(critic_loss=loss, q_mean=q.mean((-2, -1)))
