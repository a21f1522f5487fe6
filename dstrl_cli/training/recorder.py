"""From a population's tensors to the rows of each member's run folder.

The recorder is the only part of training that reads tensors back for the files; it never changes
them. What happens on the device (topology updates, and the episodes of environments that are
computed there) waits there until `flush`, so that no step waits for it. What the files are is
`rundir`'s business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.algos import flops
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import Step
from dstrl_cli.nets.groups import TopologyChange
from dstrl_cli.nets.network import Network
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.policy import (
    BEST_FILE,
    INITIAL_FILE,
    POLICY_FILE,
    network_tensors,
    policy_metadata,
)

WAITING_STEPS = 128
"""Steps of environments on the device that may wait there for `flush`."""


def network_names(network: Network) -> list[str]:
    """Return the names of a network's heads in the files: actor; critic1, critic2."""
    role, heads = network.plan.role, network.plan.heads
    return [role] if heads == 1 else [f"{role}{head + 1}" for head in range(heads)]


def dense_sizes(network: Network, member: int) -> tuple[int, ...]:
    """Return the sizes of the dense network that a member is measured against: its own.

    Only one that was narrowed to match parameters is measured against the run's widths.
    """
    plan = network.plan
    if not plan.network_config(member).match_parameters:
        return plan.sizes
    return (plan.sizes[0], *plan.configs[member].hidden_sizes, plan.sizes[-1])


def member_tensors(algorithm: Algorithm, member: int) -> dict[str, NDArray[Any]]:
    """Return actor and critics of a member as named arrays for a policy file."""
    tensors: dict[str, NDArray[Any]] = {}
    for network in (algorithm.actor, algorithm.critic):
        layers = [tuple(part.cpu().numpy() for part in layer) for layer in network.layers(member)]
        for head, name in enumerate(network_names(network)):
            weights, biases, masks = zip(
                *((weight[head], bias[head], mask[head]) for weight, bias, mask in layers),
                strict=True,
            )
            tensors |= network_tensors(name, weights, biases, masks)
    return tensors


class Recorder:
    """Writes the run folders of a population while it trains.

    `training` is the trainer's own list of the members that still train: the others' rows stop.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        folders: Sequence[RunFolder],
        spec: EnvSpec,
        place: dict[str, str],
        training: Sequence[int],
    ) -> None:
        self.algorithm, self.folders, self.spec, self.place = algorithm, folders, spec, place
        self.started = self.row_time = time.perf_counter()
        self.row_step, self.evaluation_time = 0, 0.0
        members = len(folders)
        self.episode_return = np.zeros(members)
        self.episode_length = np.zeros(members, dtype=np.int64)
        self.episode_count = np.zeros(members, dtype=np.int64)
        self.recent: list[list[float]] = [[] for _ in folders]
        self.distance: list[float | Tensor | None] = [None] * members
        self.last_evaluation: list[tuple[float, float] | None] = [None] * members
        self.best = [-math.inf] * members
        self.training = training
        device = algorithm.alive.device
        self.waiting = torch.empty(WAITING_STEPS, 3, members, device=device)
        self.waiting_from: list[int] = []  # the step of each row that waits
        self.changes: list[tuple[int, Network, TopologyChange]] = []

    def initial(self) -> None:
        """Write `initial.safetensors` of every member."""
        for member in range(len(self.folders)):
            self.write_policy(member, INITIAL_FILE, 0)

    def write_policy(self, member: int, filename: str, step: int) -> None:
        """Write a member's networks and what they were trained for."""
        spec, config = self.spec, self.algorithm.configs[member]
        metadata = policy_metadata(
            algo=config.algo,
            env=spec.id,
            task=spec.task,
            observation_size=spec.observation_size,
            action_size=spec.action_size,
            action_low=spec.action_low,
            action_high=spec.action_high,
            hidden_sizes=self.algorithm.actor.plan.sizes[1:-1],
            step=step,
            env_kwargs=dict(spec.kwargs),
        )
        self.folders[member].policy(filename, member_tensors(self.algorithm, member), metadata)

    def keep_best(self, member: int, step: int, mean: float) -> None:
        """Write `best.safetensors` where `mean` is above every evaluation since step 0.

        The evaluation at step 0 does not count: it is that of untrained networks.
        """
        if step > 0 and mean > self.best[member]:
            self.best[member] = mean
            self.write_policy(member, BEST_FILE, step)

    def step(self, step: int, result: Step) -> None:
        """Follow the training episodes through environment step `step`."""
        host = result.host
        if host is not None:
            self.follow(step, host.reward, host.terminated, host.terminated | host.truncated)
            return
        row = self.waiting[len(self.waiting_from)]
        for part, value in zip(
            row, (result.reward, result.terminated, result.truncated), strict=True
        ):
            part.copy_(value)
        self.waiting_from.append(step)
        if len(self.waiting_from) == WAITING_STEPS:
            self.flush_steps()

    def flush(self) -> None:
        """Write the rows of all that happened until now."""
        self.flush_steps()
        self.flush_topology()

    def flush_steps(self) -> None:
        """Follow the steps that wait on the device."""
        steps, self.waiting_from = self.waiting_from, []
        if not steps:
            return
        for step, (reward, terminated, truncated) in zip(
            steps, self.waiting[: len(steps)].cpu().numpy(), strict=True
        ):
            self.follow(step, reward, terminated > 0, terminated + truncated > 0)

    def follow(
        self, step: int, reward: NDArray[Any], terminated: NDArray[Any], ended: NDArray[Any]
    ) -> None:
        """Add one step to the training episodes and write those that ended; arguments are [P]."""
        self.episode_return += reward
        self.episode_length += 1
        if not ended.any():
            return
        for member in np.flatnonzero(ended).tolist():
            if member in self.training:
                value = float(self.episode_return[member])
                row = {
                    "step": step,
                    "episode": int(self.episode_count[member]),
                    "return": value,
                    "length": int(self.episode_length[member]),
                    "terminated": int(terminated[member]),
                }
                self.folders[member].episodes([row])
                self.recent[member].append(value)
                self.episode_count[member] += 1
            self.episode_return[member] = 0.0
            self.episode_length[member] = 0

    def topology(self, step: int) -> None:
        """Keep the topology updates that happened since the last call until `flush`."""
        for network in (self.algorithm.actor, self.algorithm.critic):
            if network.changes:
                self.changes += [(step, network, change) for change in network.take_changes()]

    def flush_topology(self) -> None:
        """Write the topology updates that wait."""
        changes, self.changes = self.changes, []
        for step, network, change in changes:
            names = network_names(network)
            for event in change.events():
                if event.member not in self.training:
                    continue
                rows = [
                    {
                        "step": step,
                        "network": name,
                        "layer": layer,
                        "active": event.active[head][layer],
                        "dropped": event.dropped[head][layer],
                        "grown": event.grown[head][layer],
                        "fraction": event.fraction,
                    }
                    for head, name in enumerate(names)
                    for layer in range(len(event.active[head]))
                ]
                self.folders[event.member].topology(rows)

    def evaluation(
        self,
        step: int,
        returns: NDArray[Any],
        lengths: NDArray[Any],
        seconds: float,
        nstep: Sequence[int],
        sizes: Sequence[int],
    ) -> list[dict[str, Any]]:
        """Write one evaluation of the training members; return its rows of `progress.csv`.

        Args:
            step: environment steps so far.
            returns, lengths: [P, episodes].
            seconds: what the evaluation took; it does not count into steps per second.
            nstep, sizes: n-step and buffer size of each member.
        """
        now = time.perf_counter()
        training = now - self.row_time - seconds
        rate = (step - self.row_step) / training if step > self.row_step else None
        self.evaluation_time += seconds
        metrics = self.algorithm.take_metrics()
        actor_active = self.algorithm.actor.active().sum((1, 2)).tolist()
        critic_active = self.algorithm.critic.active().sum((1, 2)).tolist()
        rows = []
        for member in self.training:
            distance = self.distance[member]
            recent = self.recent[member]
            mean, std = float(returns[member].mean()), float(returns[member].std())
            self.last_evaluation[member] = (mean, std)
            row = {
                "step": step,
                "time_s": round(now - self.started, 3),
                "steps_per_s": None if rate is None else round(rate, 2),
                "eval_return_mean": mean,
                "eval_return_std": std,
                "eval_length_mean": float(lengths[member].mean()),
                "train_return_mean": float(np.mean(recent)) if recent else None,
                "nstep": nstep[member],
                "buffer_size": sizes[member],
                "policy_distance": None if distance is None else float(distance),
                "actor_active": int(actor_active[member]),
                "critic_active": int(critic_active[member]),
            } | {name: values[member] for name, values in metrics.items()}
            self.recent[member] = []
            folder = self.folders[member]
            folder.evaluation(step, returns[member].tolist(), lengths[member].tolist())
            self.write_policy(member, POLICY_FILE, step)
            self.keep_best(member, step, mean)
            folder.progress(row)
            rows.append(row)
        self.row_time, self.row_step = time.perf_counter(), step
        return rows

    def summary(self, member: int, status: str, steps: int, error: str | None) -> dict[str, Any]:
        """Write and return a member's `summary.json`."""
        config, algorithm = self.algorithm.configs[member], self.algorithm
        actor, critic = algorithm.actor, algorithm.critic
        numbers = flops.summary_numbers(
            config.algo,
            actor.plan.sizes,
            critic.plan.sizes,
            actor.active()[member, 0].tolist(),
            critic.active()[member].tolist(),
            config.batch_size,
            algorithm.updates,
            config.policy_delay,
            config.nstep,
            dense_sizes(actor, member),
            dense_sizes(critic, member),
        )
        last = self.last_evaluation[member]
        summary = {
            "status": status,
            "steps": steps,
            "final_return": None if last is None else {"mean": last[0], "std": last[1]},
            **numbers,
            "wall_time_s": round(time.perf_counter() - self.started, 3),
            "evaluation_time_s": round(self.evaluation_time, 3),
            **self.place,
            "error": error,
        }
        self.folders[member].summary(summary)
        return summary
