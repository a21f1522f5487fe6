"""The only training loop: collect, update, evaluate, log, for a population in lock-step.

One run is a population of one. The loop never asks which method a member follows: rules live in
the networks, n-step and capacity in the replay buffer, files in the recorder.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli import envs, streams
from dstrl_cli.algos import ALGORITHMS
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config import BufferConfig, RunConfig
from dstrl_cli.envs import EnvSpec, rollout
from dstrl_cli.envs.base import BatchEnv
from dstrl_cli.errors import DstrlError
from dstrl_cli.nets.choice import choose
from dstrl_cli.recorder import Recorder
from dstrl_cli.registry import load
from dstrl_cli.replay import DISTANCES, Replay
from dstrl_cli.rundir import RunFolder

CHECK_EVERY = 100
"""Steps between looks at the host: progress, and members that diverged."""


class Reporter(Protocol):
    """Who is told what happens during training."""

    def progress(self, step: int, total: int, steps_per_s: float, info: dict[str, Any]) -> None:
        """Report that `step` of `total` environment steps are done."""

    def evaluation(self, member: int, row: dict[str, Any]) -> None:
        """Report a member's new row of `progress.csv`."""

    def message(self, text: str) -> None:
        """Report something that the user should read."""


class Silent:
    """A reporter that says nothing."""

    def progress(self, step: int, total: int, steps_per_s: float, info: dict[str, Any]) -> None:
        """Ignore progress."""

    def evaluation(self, member: int, row: dict[str, Any]) -> None:
        """Ignore an evaluation."""

    def message(self, text: str) -> None:
        """Ignore a message."""


def evaluate(
    env: BatchEnv, algorithm: Algorithm, seeds: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return returns and lengths [P, E] of one episode without noise per environment.

    Members whose actions are not finite act with zeros and are no longer alive.

    Args:
        env: member-major batch, E environments per member.
        algorithm: acts for P members.
        seeds: start of each episode [P * E].
    """
    members = len(algorithm.configs)

    def act(observation: Tensor) -> Tensor:
        actions = algorithm.act(observation.view(members, -1, observation.shape[-1]))
        algorithm.alive &= actions.isfinite().flatten(1).all(1)
        return actions.nan_to_num_().flatten(0, 1)

    returns, lengths = rollout.episodes(env, act, seeds)
    env.check()
    return returns.reshape(members, -1), lengths.reshape(members, -1)


class NSteps:
    """n of each member at each critic update: 1 until update T_0, then the member's `nstep`."""

    def __init__(self, configs: Sequence[RunConfig], device: str) -> None:
        self.configs, self.device = configs, device
        self.changes = {config.nstep_delay for config in configs}
        self.set(1)

    def set(self, update: int) -> None:
        """Find the values in force at `update` (from 1)."""
        self.values = [c.nstep if update >= c.nstep_delay else 1 for c in self.configs]
        self.tensor = torch.tensor(self.values, device=self.device).unsqueeze(1)  # [P, 1]
        self.most = max(self.values)

    def at(self, update: int) -> tuple[Tensor, int]:
        """Return n of each member [P, 1] and the largest at `update` (from 1)."""
        if update in self.changes:
            self.set(update)
        return self.tensor, self.most


class CapacityControl:
    """The dynamic-capacity buffer (RLX Alg. 2) of the members whose method has one."""

    def __init__(self, configs: Sequence[RunConfig], device: str) -> None:
        self.groups: dict[BufferConfig, list[int]] = defaultdict(list)
        for member, config in enumerate(configs):
            if config.buffer.dynamic:
                self.groups[config.buffer].append(member)
        self.batch_size, self.members, self.device = configs[0].batch_size, len(configs), device

    def compares_policy_actions(self) -> bool:
        """Return whether a member's distance compares with noise-free actions of the past."""
        return any(buffer.distance == "mean_squared" for buffer in self.groups)

    def check(self, step: int, replay: Replay, algorithm: Algorithm, recorder: Recorder) -> None:
        """At their interval, drop a share of the oldest transitions where the policy has moved."""
        for buffer, members in self.groups.items():
            if step % buffer.check_interval:
                continue
            oldest = replay.oldest(buffer.check_batches * self.batch_size)
            now = algorithm.act(oldest[0])
            distance = DISTANCES[buffer.distance](now, oldest[1], oldest[2])  # [P]
            of_group = torch.zeros(self.members, dtype=torch.bool, device=self.device)
            of_group[members] = True
            drop = of_group & (distance > buffer.distance_threshold)
            drop &= replay.size.squeeze(1) > buffer.min_size
            replay.drop_oldest(drop, buffer.shrink)
            for member in members:
                recorder.distance[member] = float(distance[member])


class Population:
    """Everything that trains: algorithm, environments, replay and recorder of P members."""

    def __init__(
        self,
        configs: Sequence[RunConfig],
        folders: Sequence[RunFolder],
        spec: EnvSpec,
        device: str,
        reporter: Reporter,
    ) -> None:
        config = self.config = configs[0]
        self.configs, self.reporter, self.device = configs, reporter, device
        engine = choose(config, device, members=len(configs)).engine
        self.algorithm: Algorithm = load(ALGORITHMS, config.algo)(
            configs, spec.observation_size, spec.action_size, device, engine
        )
        self.recorder = Recorder(
            self.algorithm, folders, spec, {"engine": engine, "device": device}
        )
        members, episodes = len(configs), config.eval_episodes
        self.env, self.eval_env = envs.make_batches(
            spec, [members, members * episodes], device, config.env_workers
        )
        seeds = [c.seed for c in configs]
        self.env_seeds = [streams.derived_seed(seed, "env") % 2**31 for seed in seeds]
        self.eval_seeds = [
            streams.derived_seed(seed, "evaluation", episode) % 2**31
            for seed in seeds
            for episode in range(episodes)
        ]
        self.capacity = CapacityControl(configs, device)
        capacities = [min(c.buffer_size, c.steps) for c in configs]
        self.capacity_limit = torch.tensor(capacities, device=device)
        self.limited = min(capacities) < max(capacities)
        self.replay = Replay(
            members,
            max(capacities),
            spec.observation_size,
            spec.action_size,
            config.gamma,
            device,
            policy_actions=self.capacity.compares_policy_actions(),
        )
        self.nsteps = NSteps(configs, device)
        self.sampling = streams.uniform(
            seeds, "replay", (config.batch_size,), device, torch.float64
        )
        self.warm_up = streams.uniform(seeds, "warm_up", (spec.action_size,), device)
        self.training = list(range(members))
        self.steps = 0
        self.clock, self.clock_step = time.perf_counter(), 0

    def run(self) -> None:
        """Train to the end, or until every member has diverged."""
        total = self.config.steps
        self.recorder.initial()
        observation = self.env.reset(self.env_seeds)
        self.evaluate()
        while self.steps < total and self.training:
            observation = self.advance(observation)
            if self.steps % self.config.eval_every == 0 or self.steps == total:
                self.evaluate()

    def advance(self, observation: Tensor) -> Tensor:
        """Take one environment step and, after warm-up, one update of every member."""
        observation = self.collect(observation)
        if self.steps > self.config.learning_starts:
            self.update()
        self.capacity.check(self.steps, self.replay, self.algorithm, self.recorder)
        if self.steps % CHECK_EVERY == 0:
            self.look()
        return observation

    def collect(self, observation: Tensor) -> Tensor:
        """Take one environment step per member; return the observations to act on next."""
        if self.steps < self.config.learning_starts:
            action = self.warm_up.at(self.steps) * 2 - 1
            policy_action = action
        else:
            action, policy_action = self.algorithm.explore(observation, self.steps)
            action.nan_to_num_()  # an actor that overflowed: its next loss tells
        step = self.env.step(action)
        self.env.check()
        self.replay.add(
            observation,
            action,
            step.reward,
            step.next_observation,
            step.terminated,
            step.truncated,
            policy_action,
        )
        if self.limited:
            self.replay.limit(self.capacity_limit)
        self.steps += 1
        terminated = step.terminated.cpu().numpy()
        self.recorder.step(
            self.steps,
            step.reward.cpu().numpy(),
            terminated,
            terminated | step.truncated.cpu().numpy(),
            self.training,
        )
        return step.observation

    def update(self) -> None:
        """Take one update of every member on a batch of its own."""
        update = self.algorithm.updates
        nstep, most = self.nsteps.at(update + 1)
        self.algorithm.update(self.replay.sample(self.sampling.at(update), nstep, most))
        self.recorder.topology(self.steps, self.training)

    def look(self) -> None:
        """Report progress and stop members whose loss or actions are no longer finite."""
        alive = self.algorithm.alive.tolist()
        for member in [m for m in self.training if not alive[m]]:
            self.training.remove(member)
            error = f"the loss or the actions became NaN or infinite before step {self.steps}"
            self.recorder.summary(member, "diverged", self.steps, error)
            config = self.configs[member]
            self.reporter.message(f"{config.method} seed {config.seed} diverged: {error}")
        if self.steps == self.clock_step:  # looked already, before the evaluation at this step
            return
        now = time.perf_counter()
        rate = (self.steps - self.clock_step) / max(now - self.clock, 1e-9)
        self.reporter.progress(self.steps, self.config.steps, rate, {"members": len(self.training)})
        self.clock, self.clock_step = now, self.steps

    def evaluate(self) -> None:
        """Evaluate every member, and write and report the rows of those that still train."""
        if not self.training:
            return
        started = time.perf_counter()
        returns, lengths = evaluate(self.eval_env, self.algorithm, self.eval_seeds)
        seconds = time.perf_counter() - started
        self.clock += seconds
        self.look()
        rows = self.recorder.evaluation(
            self.steps,
            returns,
            lengths,
            seconds,
            self.nsteps.values,
            self.replay.size.squeeze(1).tolist(),
            self.training,
        )
        for member, row in zip(self.training, rows, strict=True):
            self.reporter.evaluation(member, row)

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the summaries of the members that still trained."""
        for member in self.training:
            self.recorder.summary(member, status, self.steps, error)

    def close(self) -> None:
        """Release the environments."""
        self.env.close()
        self.eval_env.close()


@torch.no_grad()
def train(
    configs: Sequence[RunConfig],
    folders: Sequence[RunFolder],
    spec: EnvSpec,
    device: str,
    reporter: Reporter | None = None,
) -> None:
    """Train one population; every member ends with a `summary.json` that says how.

    Args:
        configs: fully resolved configurations that may share a population (`sweep.plan`).
        folders: their open run folders.
        spec: the environment.
        device: torch device.
        reporter: who is told of the progress.

    Raises:
        KeyboardInterrupt: after the members were marked interrupted.
        DstrlError: after the members were marked failed, with the cause.
    """
    torch.set_num_threads(configs[0].threads)
    torch.set_flush_denormal(True)
    population = Population(configs, folders, spec, device, reporter or Silent())
    try:
        population.run()
        population.finish("finished")
    except KeyboardInterrupt:
        population.finish("interrupted")
        raise
    except Exception as error:
        known = isinstance(error, DstrlError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        population.finish("failed", reason)
        if known:
            raise
        raise DstrlError(reason) from error
    finally:
        population.close()
