"""What every algorithm shares: an actor, its critics, exploration streams and metrics.

An algorithm is two methods in the order of its paper: `sample_action` and `train_step`. It never
asks how networks are stored, which members differ in method, or where transitions come from. Both
methods consist of torch operations on tensors that keep their addresses, and take their random
numbers as arguments, so that they can be captured and replayed.

One update, in the order in which it happens:

1. `training.trainer.Population.advance` calls `training.learner.Learner.update` after every
   environment step, or as `train_freq` and `gradient_steps` say (`training.timing`).
2. The learner calls `Algorithm.begin_update`: count the update, and decide on the host what is due
   in it (`Due`): the actor, the targets, a topology update.
3. It takes the random numbers of this update: `Algorithm.noise`, and those that choose the batch.
4. It samples a `Batch`, n-step rewards already summed, and calls the algorithm's `train_step`. In
   TD3 that is
   - `td_target`: the targets' estimate;
   - `update_critic` (here): `critic.forward`, loss, `critic.backward`, `critic.apply_update`;
   - `update_actor`, if due: through a critic, `actor.backward`, `actor.apply_update`;
   - `update_target` of both networks, if due.
5. `Network.apply_update` takes the optimizer step and, where one is due, the topology update, in
   the order that the method says (`rewire: after_step | instead_of_step`). `Network.update_target`
   masks the target as the method says.

Steps 3 and 4 read nothing back to the host. On an accelerator step 4 is replayed as one graph,
unless a topology rule takes part in it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.network_sizes import network_sizes
from dstrl_cli.nets.absent import AbsentNetwork
from dstrl_cli.nets.adam import Adam
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.registry import ENGINES, AlgorithmRow, algorithm, load
from dstrl_cli.replay.batch import Batch
from dstrl_cli.streams import Stream
from dstrl_cli.topology.kept import to_array


class Due(NamedTuple):
    """What an update does besides the critics' step, decided on the host."""

    actor: bool
    targets: bool
    topology: bool  # a topology rule takes part: the update is not replayed as a graph


class Algorithm(ABC):
    """An off-policy actor-critic for P members in lock-step.

    dstrl's own algorithms have a row in `registry.ALGORITHMS`. The class of an outside algorithm
    (`module:Class`) carries its row as `row`, and as `name` what folders call it.

    Args:
        configs: the members' configurations; keys that all members share are read from the first.
        observation_size, action_size: sizes of the task.
        device: torch device.
        engine: name of the engine of the networks.

    Attributes:
        METRICS: names of the recorded metrics, and the role whose updates they are averaged over.
        STATE: names of the attributes that an algorithm keeps from update to update beyond these
            and its networks: tensors [P, ...], or an `Adam`. Checkpoints hold them.
        WARMS_UP: whether its first actions, up to `learning_starts`, are not its own: random, or a
            learned policy's (`training.warm_up`).
        exploration: stream of the noise [P, act] that `sample_action` takes.
        alive: members that still train [P], bool; the networks of the others do not change.
        updates: critic updates that have begun.
    """

    name: ClassVar[str]
    row: AlgorithmRow

    METRICS: ClassVar[dict[str, str]] = {
        "critic_loss": "critic",
        "q_mean": "critic",
        "actor_loss": "actor",
    }
    STATE: ClassVar[tuple[str, ...]] = ()
    WARMS_UP: ClassVar[bool] = True
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
        actor, critic = network_sizes(self.config, observation_size, action_size)
        build: Callable[[NetworkPlan], Network] = load(ENGINES, engine)
        self.actor = build(NetworkPlan("actor", actor, 1, configs, device))
        critics = build if self.row.critics else AbsentNetwork
        self.critic = critics(NetworkPlan("critic", critic, self.row.critics, configs, device))
        self.alive = torch.ones(len(configs), dtype=torch.bool, device=device)
        self.updates = 0
        self.sums = {name: torch.zeros(len(configs), device=device) for name in self.METRICS}
        self.averaged = {"actor": 0, "critic": 0}  # their updates at the last `take_metrics`

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
        """Take the update that has begun: the critics and, if due, actor and targets.

        Args:
            batch: one batch per member.
            noise: what `noise` returned for this update.
            due: what `begin_update` returned.
        """

    def begin_update(self) -> Due:
        """Count the update and decide what is due in it."""
        self.updates += 1
        actor = self.updates % self.config.policy_delay == 0
        targets = self.updates % self.config.target_update_interval == 0
        updated = [self.critic, self.actor] if actor else [self.critic]
        for network in updated:
            network.begin_update()
        return Due(actor, targets, any(network.watched for network in updated))

    def set_learning_rate(self, rate: float) -> None:
        """Take further optimizer steps with another learning rate."""
        self.actor.set_learning_rate(rate)
        self.critic.set_learning_rate(rate)

    def record(self, **values: Tensor) -> None:
        """Add metrics [P] of this update to the running sums."""
        for name, value in values.items():
            self.sums[name].add_(value)

    def mean_metrics(self) -> dict[str, list[float]]:
        """Return the mean of every metric since `take_metrics`, per member, on the host.

        Metrics of a network that had no update since are left out.
        """
        means = {}
        for name, role in self.METRICS.items():
            count = getattr(self, role).updates - self.averaged[role]
            if count:
                means[name] = (self.sums[name] / count).tolist()
        return means

    def take_metrics(self) -> dict[str, list[float]]:
        """Return `mean_metrics` and begin new means."""
        means = self.mean_metrics()
        for total in self.sums.values():
            total.zero_()
        self.averaged = {role: getattr(self, role).updates for role in self.averaged}
        return means

    def state(self, member: int) -> dict[str, Any]:
        """Return what training goes on from, of one member: arrays on the host, plain values.

        To be called between two updates. Raises DstrlError for a score that cannot be kept.
        """
        own = {}
        for name in self.STATE:
            value: Tensor | Adam = getattr(self, name)
            one = slice(member, member + 1)
            own[name] = value.state(member) if isinstance(value, Adam) else to_array(value[one])
        return {
            "actor": self.actor.state(member),
            "critic": self.critic.state(member),
            "updates": self.updates,
            "alive": bool(self.alive[member]),
            "sums": {name: float(total[member]) for name, total in self.sums.items()},
            "averaged": dict(self.averaged),
            "own": own,
        }

    def set_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take up the states of all members, in order, wherever they were trained before.

        Tensors keep their addresses. Raises ValueError unless the members have taken equally many
        updates.
        """
        first = states[0]
        if any(state["updates"] != first["updates"] for state in states):
            raise ValueError("members of a population must have taken equally many updates")
        self.actor.set_state([state["actor"] for state in states])
        self.critic.set_state([state["critic"] for state in states])
        self.updates, self.averaged = first["updates"], dict(first["averaged"])
        self.alive.copy_(torch.tensor([state["alive"] for state in states]))
        for name, total in self.sums.items():
            total.copy_(torch.tensor([state["sums"][name] for state in states]))
        for name in self.STATE:
            value: Tensor | Adam = getattr(self, name)
            parts = [state["own"][name] for state in states]
            if isinstance(value, Adam):
                value.set_state(parts)
            else:
                value.copy_(torch.from_numpy(np.concatenate(parts)))

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
