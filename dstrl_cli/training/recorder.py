"""From a population's tensors to the rows that each member's sinks receive.

The recorder is the only part of training that reads tensors back for the files; it changes none of
them. Topology updates, and the rewards and episode ends of environments computed on the device,
stay on the device until `flush` reads them, so that no step waits for it. The sinks decide which
files there are (`runs.folder`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.algos import flops
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.network_sizes import compared_sizes
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import Step
from dstrl_cli.evaluation.rollout import Episodes
from dstrl_cli.nets.groups import TopologyChange
from dstrl_cli.nets.network import Network
from dstrl_cli.registry import algorithm_name
from dstrl_cli.runs.hashes import hash_rows
from dstrl_cli.runs.policy import (
    BEST_FILE,
    INITIAL_FILE,
    POLICY_FILE,
    network_tensors,
    policy_metadata,
)
from dstrl_cli.runs.summary import about
from dstrl_cli.training.neurons import NeuronWatch
from dstrl_cli.training.recorder_state import Times
from dstrl_cli.training.rows import kept_connections, success_cell, topology_rows
from dstrl_cli.training.sinks import Sink

WAITING_STEPS = 128
"""Steps of environments computed on the device whose rewards may wait there for `flush`."""


def all_connections(network: Network, member: int) -> int:
    """Return the connections of the dense network, or networks, that a member is compared with."""
    plan = network.plan
    sizes = compared_sizes(plan.configs[member], plan.role, plan.sizes)
    return plan.heads * flops.weights(sizes)


def grown_by_gradient(network: Network) -> set[int]:
    """Return the members whose topology updates need the gradients of inactive connections."""
    groups = [group for group in network.groups if group.rule.needs_gradient]
    return {member for group in groups for member in group.members}


def member_tensors(algorithm: Algorithm, member: int) -> dict[str, NDArray[Any]]:
    """Return actor and critics of a member as named arrays for a policy file."""
    tensors: dict[str, NDArray[Any]] = {}
    for network in (algorithm.actor, algorithm.critic):
        layers = [tuple(part.cpu().numpy() for part in layer) for layer in network.layers(member)]
        for head, name in enumerate(network.plan.head_names):
            weights, biases, masks = zip(
                *((weight[head], bias[head], mask[head]) for weight, bias, mask in layers),
                strict=True,
            )
            tensors |= network_tensors(name, weights, biases, masks)
    return tensors


class WaitingChange(NamedTuple):
    """A topology update that waits on the device, and when it happened."""

    step: int
    update: int  # of the algorithm
    network: Network
    change: TopologyChange


class Recorder:
    """Writes the episodes, evaluations, topology updates and networks of every member to its sinks.

    Args:
        algorithm: the algorithm that is trained.
        sinks: the sinks of each member.
        spec: the environment.
    """

    def __init__(
        self, algorithm: Algorithm, sinks: Sequence[Sequence[Sink]], spec: EnvSpec
    ) -> None:
        self.algorithm, self.sinks, self.spec = algorithm, sinks, spec
        self.started = self.row_time = time.perf_counter()
        self.row_step, self.evaluation_time, self.checkpoint_time = 0, 0.0, 0.0
        members = len(sinks)
        self.before = [Times()] * members  # what each took before it was resumed
        self.restarts = [0] * members  # episodes that had to begin anew when it was resumed
        self.recorded = set(range(members))  # members whose summary is not written yet
        self.episode_return = np.zeros(members)
        self.episode_length = np.zeros(members, dtype=np.int64)
        self.episode_count = np.zeros(members, dtype=np.int64)
        self.recent_returns: list[list[float]] = [[] for _ in sinks]  # since the last evaluation
        self.distances: dict[int, Tensor] = {}
        self.last_evaluation: dict[int, dict[str, float]] = {}
        self.last_success: dict[int, float | None] = {}
        self.best = [-math.inf] * members  # mean return of the best evaluation after step 0
        self.waiting = torch.empty(WAITING_STEPS, 3, members, device=algorithm.alive.device)
        self.waiting_from: list[int] = []  # the step of each row that waits
        self.changes: list[WaitingChange] = []
        self.messages: list[tuple[int, str]] = []
        self.notes: list[list[str]] = [list(spec.notes) for _ in sinks]  # for the summaries
        self.cut_evaluations = np.zeros(members, dtype=np.int64)  # episodes that had no end
        self.neurons = NeuronWatch(algorithm)
        networks = (algorithm.actor, algorithm.critic)
        self.hashed = {
            network.plan.role: network.plan.head_names for network in networks if network.plan.heads
        }
        self.active = {
            network: [flops.ActiveCount(active) for active in network.active().sum((1, 2)).tolist()]
            for network in networks
        }
        self.grown_by_gradient = {network: grown_by_gradient(network) for network in networks}
        self.inactive_gradients = {network: [0] * members for network in networks}

    def initial(self) -> None:
        """Write `initial.safetensors` of every member."""
        for member in sorted(self.recorded):
            self.write_policy(member, INITIAL_FILE, 0, member_tensors(self.algorithm, member))

    def write_policy(
        self, member: int, filename: str, step: int, tensors: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write a member's networks and what they were trained for."""
        spec, config = self.spec, self.algorithm.configs[member]
        metadata = policy_metadata(
            algo=algorithm_name(config.algo),
            env=spec.id,
            task=spec.task,
            observation_size=spec.observation_size,
            action_size=spec.action_size,
            action_low=spec.action_low,
            action_high=spec.action_high,
            hidden_sizes=self.algorithm.actor.plan.sizes[1:-1],
            step=step,
            env_kwargs=dict(spec.kwargs),
            env_flatten=spec.flatten,
            env_noise_features=spec.noise_features,
            action_dtype=spec.action_dtype,
        )
        for sink in self.sinks[member]:
            sink.policy(filename, tensors, metadata)

    def keep_best(
        self, member: int, step: int, mean: float, tensors: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write `best.safetensors` where `mean` is above every evaluation since step 0.

        The evaluation at step 0 does not count: it is that of untrained networks.
        """
        if step > 0 and mean > self.best[member]:
            self.best[member] = mean
            self.write_policy(member, BEST_FILE, step, tensors)

    # Steps, topology updates and distances as they happen.

    def step(self, step: int, result: Step) -> None:
        """Follow the training episodes through environment step `step`."""
        host = result.host
        if host is not None:
            self.follow(step, host.reward, host.terminated, host.ended, host.success)
            return
        row = self.waiting[len(self.waiting_from)]
        for part, value in zip(row, (result.reward, result.terminated, result.ended), strict=True):
            part.copy_(value)
        self.waiting_from.append(step)
        if len(self.waiting_from) == WAITING_STEPS:
            self.flush_steps()

    def topology(self, step: int) -> None:
        """Keep the topology updates that happened since the last call until `flush`."""
        for network in (self.algorithm.actor, self.algorithm.critic):
            if network.changes:
                update = self.algorithm.updates
                self.changes += [
                    WaitingChange(step, update, network, change)
                    for change in network.take_changes()
                ]

    def policy_distances(self, measured: Mapping[int, Tensor]) -> None:
        """Keep the policy distances of some members for the next evaluation's row."""
        self.distances.update(measured)

    def checkpoint_took(self, seconds: float) -> None:
        """Count the time of a checkpoint, which does not count into steps per second."""
        self.checkpoint_time += seconds
        self.row_time += seconds

    def evaluation_stopped(self, seconds: float) -> None:
        """Leave the time of an evaluation that was not completed out of steps per second."""
        self.row_time += seconds

    # What a checkpoint needs.

    def times(self, member: int) -> Times:
        """Return what a member took so far, before it was resumed too."""
        before, wall = self.before[member], time.perf_counter() - self.started
        return Times(
            before.wall + wall,
            before.evaluation + self.evaluation_time,
            before.checkpoint + self.checkpoint_time,
        )

    def restart_episode(self, member: int) -> None:
        """Forget the episode that a member is in, and count that."""
        self.episode_return[member], self.episode_length[member] = 0.0, 0
        self.restarts[member] += 1

    # Writing what waits.

    def flush(self) -> None:
        """Write the rows of everything that happened until now."""
        self.flush_steps()
        self.flush_topology()

    def flush_steps(self) -> None:
        """Follow the training episodes through the steps that wait on the device."""
        steps, self.waiting_from = self.waiting_from, []
        if not steps:
            return
        for step, (reward, terminated, ended) in zip(
            steps, self.waiting[: len(steps)].cpu().numpy(), strict=True
        ):
            self.follow(step, reward, terminated > 0, ended > 0, np.full(len(ended), np.nan))

    def follow(
        self,
        step: int,
        reward: NDArray[Any],
        terminated: NDArray[Any],
        ended: NDArray[Any],
        success: NDArray[Any],
    ) -> None:
        """Add one step to the training episodes and write those that ended; arrays are [P]."""
        self.episode_return += reward
        self.episode_length += 1
        if not ended.any():
            return
        for member in np.flatnonzero(ended).tolist():
            if member in self.recorded:
                value = float(self.episode_return[member])
                row = {
                    "step": step,
                    "episode": int(self.episode_count[member]),
                    "return": value,
                    "length": int(self.episode_length[member]),
                    "terminated": int(terminated[member]),
                    "success": success_cell(success[member]),
                }
                for sink in self.sinks[member]:
                    sink.episodes([row])
                self.recent_returns[member].append(value)
                self.episode_count[member] += 1
            self.episode_return[member] = 0.0
            self.episode_length[member] = 0

    def flush_topology(self) -> None:
        """Read and write the topology updates that wait."""
        changes, self.changes = self.changes, []
        for step, update, network, change in changes:
            names = network.plan.head_names
            for member, active, dropped, grown, spared in change.by_member():
                if member not in self.recorded:
                    continue
                self.messages += [(member, text) for text in kept_connections(names, spared)]
                self.count_gradients(network, member)
                self.active[network][member].change(update, sum(map(sum, active)))
                rows = topology_rows(step, names, (active, dropped, grown), change.fraction)
                for sink in self.sinks[member]:
                    sink.topology(rows)

    def take_messages(self) -> list[tuple[int, str]]:
        """Return (member, text) of what the user should read and what was not told yet."""
        messages, self.messages = self.messages, []
        for network in (self.algorithm.actor, self.algorithm.critic):
            messages += network.take_messages()
        return messages

    def count_gradients(self, network: Network, member: int) -> None:
        """Count the inactive connections whose gradient a topology update needed.

        To be called before the update's new number of active connections is noted.
        """
        if member in self.grown_by_gradient[network]:
            inactive = all_connections(network, member) - self.active[network][member].active
            self.inactive_gradients[network][member] += inactive

    def evaluation(
        self,
        step: int,
        episodes: Sequence[Episodes],
        seconds: float,
        nstep: Sequence[int],
        sizes: Sequence[int],
        only: Collection[int] | None = None,
        inputs: Tensor | None = None,
    ) -> dict[int, dict[str, Any]]:
        """Write one evaluation; return each member's row of `progress.csv`.

        Members whose summary is written have none. With `only` no other member has one, and the
        next rows of the others are as they would be without this evaluation.

        Args:
            step: environment steps so far.
            episodes: of each member.
            seconds: what the evaluation took; it does not count into steps per second.
            nstep, sizes: n-step and buffer size of each member.
            only: the members that were evaluated; None: all.
            inputs: what neurons are watched on (`training.neurons.stored_inputs`), if anything.
        """
        now = time.perf_counter()
        training = now - self.row_time - seconds
        rate = (step - self.row_step) / training if step > self.row_step else None
        self.evaluation_time += seconds
        every = only is None
        metrics = self.algorithm.take_metrics() if every else self.algorithm.mean_metrics()
        actor_active = self.algorithm.actor.active().sum((1, 2)).tolist()
        critic_active = self.algorithm.critic.active().sum((1, 2)).tolist()
        rows = {}
        for member in sorted(self.recorded if only is None else self.recorded.intersection(only)):
            distance, recent = self.distances.get(member), self.recent_returns[member]
            own = episodes[member]
            mean, std = float(own.returns.mean()), float(own.returns.std())
            self.last_evaluation[member] = {"mean": mean, "std": std}
            self.last_success[member] = own.success_rate()
            self.note_cut_evaluations(member, int(own.cut.sum()))
            row = {
                "step": step,
                "time_s": round(self.before[member].wall + now - self.started, 3),
                "steps_per_s": None if rate is None else round(rate, 2),
                "eval_return_mean": mean,
                "eval_return_std": std,
                "eval_length_mean": float(own.lengths.mean()),
                "eval_success": own.success_rate(),  # for the screen; no column of the file
                "train_return_mean": float(np.mean(recent)) if recent else None,
                "nstep": nstep[member],
                "buffer_size": sizes[member],
                "policy_distance": None if distance is None else float(distance),
                "actor_active": int(actor_active[member]),
                "critic_active": int(critic_active[member]),
            } | {name: values[member] for name, values in metrics.items()}
            self.recent_returns[member] = []
            watched = None if inputs is None else inputs[member]
            self.write_evaluation(step, member, own, row, watched)
            rows[member] = row
        if every:
            self.row_time, self.row_step = time.perf_counter(), step
        else:
            self.row_time += seconds + time.perf_counter() - now
        return rows

    def write_evaluation(
        self, step: int, member: int, own: Episodes, row: Mapping[str, Any], inputs: Tensor | None
    ) -> None:
        """Write one member's evaluation and its networks; for the arguments see `evaluation`."""
        for sink in self.sinks[member]:
            success = [success_cell(value) for value in own.success]
            sink.evaluation(step, own.returns.tolist(), own.lengths.tolist(), success)
        tensors = member_tensors(self.algorithm, member)
        self.write_policy(member, POLICY_FILE, step, tensors)
        self.keep_best(member, step, row["eval_return_mean"], tensors)
        hashes = hash_rows(step, tensors, self.hashed)
        neurons = self.neurons.rows(member, step, tensors, inputs)
        if warning := self.neurons.warning(member, neurons):
            self.note(member, warning)
        for sink in self.sinks[member]:
            sink.hashes(hashes)
            sink.neurons(neurons)
            sink.progress(row)

    def note_cut_evaluations(self, member: int, count: int) -> None:
        """Count evaluation episodes that `eval_max_steps` ended, and say so the first time."""
        if count and not self.cut_evaluations[member]:
            limit = self.algorithm.configs[member].eval_max_steps
            note = (
                f"eval_max_steps = {limit:,} ended evaluation episodes that the environment had "
                "not ended, so their returns are too small; raise it, or set null for no limit"
            )
            self.note(member, note)
        self.cut_evaluations[member] += count

    def note(self, member: int, text: str) -> None:
        """Keep what the user should know of a member, for the screen and its summary."""
        self.notes[member].append(text)
        self.messages.append((member, text))

    def finish(self, member: int, status: str, steps: int, error: str | None) -> None:
        """Write a member's summary; from then on none of its rows is written."""
        algorithm = self.algorithm
        config, updates = algorithm.configs[member], algorithm.updates
        numbers = flops.summary_numbers(
            algorithm.row,
            self.connections(algorithm.actor, member, updates),
            self.connections(algorithm.critic, member, updates),
            batch_size=config.batch_size,
            updates=updates,
            policy_delay=config.policy_delay,
            nstep=config.nstep,
        )
        times = self.times(member)
        summary = {
            "status": status,
            **about(config),
            "steps": steps,
            "episodes": int(self.episode_count[member]),
            "final_return": self.last_evaluation.get(member),
            "final_success": self.last_success.get(member),
            "eval_cut": int(self.cut_evaluations[member]),
            **numbers,
            "wall_time_s": round(times.wall, 3),
            "evaluation_time_s": round(times.evaluation, 3),
            "checkpoint_time_s": round(times.checkpoint, 3),
            "restarts": self.restarts[member],
            "engine": algorithm.engine,
            "device": algorithm.device,
            "error": error,
            "notes": self.notes[member],
        }
        for sink in self.sinks[member]:
            sink.summary(summary)
        self.recorded.discard(member)

    def connections(self, network: Network, member: int, updates: int) -> flops.Connections:
        """Return the numbers of connections of a member's actor, or of its critics together.

        With `gradients: dense` every update forms the gradients of inactive connections.
        """
        dense, mean = all_connections(network, member), self.active[network][member].mean(updates)
        inactive_gradients: float = self.inactive_gradients[network][member]
        if self.algorithm.configs[member].gradients == "dense":
            inactive_gradients = network.updates * (dense - mean)
        return flops.Connections(
            active=int(network.active()[member].sum()),
            mean_active=mean,
            dense=dense,
            inactive_gradients=inactive_gradients,
        )
