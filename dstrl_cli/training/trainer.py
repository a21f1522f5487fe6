"""The only training loop: collect, update, evaluate, log, for a population in lock-step.

One run is a population of one. The loop never asks which method a member follows: rules live in
the networks, n-step and capacity in the replay buffer, files in the recorder. Nor does it ask where
it runs: what an accelerator should replay goes through `capture`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dstrl_cli import envs, streams
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import BatchEnv
from dstrl_cli.errors import DstrlError
from dstrl_cli.evaluation import rollout
from dstrl_cli.nets.choice import choose
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.capacity import CapacityControl
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.training.capture import Capture, capture
from dstrl_cli.training.learner import Learner
from dstrl_cli.training.recorder import Recorder

CHECK_EVERY = 100
"""Steps between looks at the device: progress, files, and members that diverged."""


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


class Population:
    """Everything that trains: algorithm, environments, learner and recorder of P members.

    A lock-step is `act`, `fetch`, `env.step`, `learner.store` and `update`: each may be timed by
    itself (`stopwatch`). On an accelerator the host waits for it in `fetch` alone.

    Args:
        configs: fully resolved configurations that may share a population.
        folders: their open run folders.
        spec: the environment.
        device: torch device.
        reporter: who is told of the progress.
        replayed: how functions of the device are replayed; default `capture`.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        folders: Sequence[RunFolder],
        spec: EnvSpec,
        device: str,
        reporter: Reporter,
        replayed: Capture | None = None,
    ) -> None:
        config = self.config = configs[0]
        self.configs, self.reporter, self.device = configs, reporter, device
        if replayed is None:
            replayed = functools.partial(capture, device=device, compiled=config.compile)
        engine = choose(config, device, members=len(configs)).engine
        self.algorithm: Algorithm = load(ALGORITHMS, config.algo)(
            configs, spec.observation_size, spec.action_size, device, engine
        )
        self.training = list(range(len(configs)))
        place = {"engine": engine, "device": device}
        self.recorder = Recorder(self.algorithm, folders, spec, place, self.training)
        seeds = [c.seed for c in configs]
        self.make_environments(spec, seeds)
        self.capacity = CapacityControl(configs, device)
        policy_actions = self.capacity.compares_policy_actions()
        self.learner = Learner(self.algorithm, spec, policy_actions, replayed)
        self.replay = self.learner.replay
        self.warm_up = streams.uniform(seeds, "warm_up", (spec.action_size,), device)
        self.sample_action = replayed(self.exploration)
        self.policy = replayed(self.policy_actions)
        self.steps = 0
        self.clock, self.clock_step = time.perf_counter(), 0

    def make_environments(self, spec: EnvSpec, seeds: Sequence[int]) -> None:
        """Make one environment per member to train in and E to evaluate in."""
        members, episodes = len(seeds), self.config.eval_episodes
        self.env, self.eval_env = envs.make_batches(
            spec, [members, members * episodes], self.device, self.config.env_workers
        )
        self.outbox: Tensor | None = None
        if self.device.startswith("cuda") and not envs.computed_on_device(spec):
            self.outbox = torch.empty(members, spec.action_size, pin_memory=True)
        self.env_seeds = [streams.derived_seed(seed, "env") % 2**31 for seed in seeds]
        self.eval_seeds = [
            streams.derived_seed(seed, "evaluation", episode) % 2**31
            for seed in seeds
            for episode in range(episodes)
        ]

    def run(self) -> None:
        """Train to the end, or until no member trains any more."""
        total = self.config.steps
        self.recorder.initial()
        observation = self.env.reset(self.env_seeds)
        self.freeze_failed(self.env, 1)
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
            self.poll()
        return observation

    def collect(self, observation: Tensor) -> Tensor:
        """Take one environment step per member; return the observations to act on next."""
        action, policy_action = self.act(observation)
        step = self.env.step(self.fetch(action))
        self.learner.store(observation, action, step, policy_action)
        self.steps += 1
        self.recorder.step(self.steps, step)
        self.freeze_failed(self.env, 1)
        return step.observation

    def act(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions to take and the noise-free ones, both [P, act]."""
        if self.steps < self.config.learning_starts:
            action = self.warm_up.at(self.steps) * 2 - 1
            return action, action
        noise = self.algorithm.exploration.at(self.steps)
        actions: tuple[Tensor, Tensor] = self.sample_action(observation, noise)
        return actions

    def exploration(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Explore on the device; an actor that overflowed acts with zeros: its next loss tells."""
        action, policy_action = self.algorithm.sample_action(observation, noise)
        return action.nan_to_num_(), policy_action

    def fetch(self, action: Tensor) -> Tensor:
        """Return the actions where the environments are; this waits for the device."""
        if self.outbox is None:
            return action
        self.outbox.copy_(action, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return self.outbox

    def update(self) -> None:
        """Take one update of every member."""
        self.learner.update()
        self.recorder.topology(self.steps)

    def poll(self) -> None:
        """Write what waits, stop members that diverged, and report progress."""
        self.recorder.flush()
        alive = self.algorithm.alive.tolist()
        for member in [m for m in self.training if not alive[m]]:
            error = f"the loss or the actions became NaN or infinite before step {self.steps}"
            self.freeze(member, "diverged", error)
        for member, cause in self.replay.faults().items():
            if member in self.training:
                self.freeze(member, "failed", cause)
        if self.steps == self.clock_step:  # looked already, before the evaluation at this step
            return
        now = time.perf_counter()
        rate = (self.steps - self.clock_step) / max(now - self.clock, 1e-9)
        self.reporter.progress(self.steps, self.config.steps, rate, {"members": len(self.training)})
        self.clock, self.clock_step = now, self.steps

    def freeze(self, member: int, status: str, error: str) -> None:
        """Stop a member where it is; the others go on."""
        self.recorder.flush()
        self.training.remove(member)
        self.algorithm.alive[member].fill_(False)
        self.recorder.summary(member, status, self.steps, error)
        if len(self.configs) > 1:  # the end of a run that is alone says it
            config = self.configs[member]
            self.reporter.message(f"{config.method} seed {config.seed} {status}: {error}")

    def freeze_failed(self, env: BatchEnv, per_member: int) -> None:
        """Stop the members of whose environments, `per_member` each, one has failed."""
        for index, cause in env.failures.items():
            if index // per_member in self.training:
                self.freeze(index // per_member, "failed", cause)

    def evaluate(self) -> None:
        """Evaluate every member, and write and report the rows of those that still train."""
        if not self.training:
            return
        started = time.perf_counter()
        returns, lengths = rollout.episodes(self.eval_env, self.policy, self.eval_seeds)
        seconds = time.perf_counter() - started
        self.clock += seconds
        self.poll()
        self.freeze_failed(self.eval_env, self.config.eval_episodes)
        rows = self.recorder.evaluation(
            self.steps,
            returns.reshape(len(self.configs), -1),
            lengths.reshape(len(self.configs), -1),
            seconds,
            self.learner.nsteps.values,
            self.replay.size.squeeze(1).tolist(),
        )
        for member, row in zip(self.training, rows, strict=True):
            self.reporter.evaluation(member, row)

    def policy_actions(self, observation: Tensor) -> Tensor:
        """Return actions without noise [P * E, act] for observations [P * E, obs], member-major.

        Members whose actions are not finite act with zeros and are no longer alive.
        """
        members = len(self.configs)
        actions = self.algorithm.act(observation.view(members, -1, observation.shape[-1]))
        self.algorithm.alive &= actions.isfinite().flatten(1).all(1)
        return actions.nan_to_num_().flatten(0, 1)

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the rows that wait and the summaries of the members that still trained."""
        self.recorder.flush()
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
    replayed: Capture | None = None,
) -> None:
    """Train one population; every member ends with a `summary.json` that says how.

    Args:
        configs: fully resolved configurations that may share a population (`sweep.plan`).
        folders: their open run folders.
        spec: the environment.
        device: torch device.
        reporter: who is told of the progress.
        replayed: see `Population`.

    Raises:
        KeyboardInterrupt: after the members were marked interrupted.
        DstrlError: after the members were marked failed, with the cause.
    """
    torch.set_num_threads(configs[0].threads)
    torch.set_flush_denormal(True)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    population = Population(configs, folders, spec, device, reporter or Silent(), replayed)
    try:
        population.run()
        population.finish("finished")
    except KeyboardInterrupt:
        with contextlib.suppress(RuntimeError):
            population.finish("interrupted")
        raise
    except Exception as error:
        known = isinstance(error, DstrlError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        with contextlib.suppress(RuntimeError):  # a lost device tells nothing; the caller marks
            population.finish("failed", reason)
        if known:
            raise
        raise DstrlError(reason) from error
    finally:
        population.close()
