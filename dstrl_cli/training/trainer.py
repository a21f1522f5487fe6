"""The only training loop: collect, update, evaluate, record, for a population in lock-step.

One run is a population of one. The loop does not depend on the members' methods: topology rules are
in the networks, n-step returns and capacity in the replay buffer, files in the recorder. Nor does
it depend on the device: functions that an accelerator can replay as a graph are passed through
`capture`. What happens inside one update is listed at the head of `algos.base`.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dstrl_cli import envs, streams
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import BatchEnv
from dstrl_cli.envs.watch import say
from dstrl_cli.errors import DstrlError, stopped_by
from dstrl_cli.evaluation import rollout
from dstrl_cli.evaluation.rollout import Episodes
from dstrl_cli.evaluation.starts import start_seeds
from dstrl_cli.nets.choice import choose, torch_threads
from dstrl_cli.registry import algorithm_class
from dstrl_cli.replay.capacity import CapacityControl
from dstrl_cli.replay.choice import is_on_host, make_replay
from dstrl_cli.runs.status import DIVERGED, FAILED, FINISHED, INTERRUPTED
from dstrl_cli.training import checkpoint
from dstrl_cli.training.capture import Capture, capture
from dstrl_cli.training.episodes import EpisodeCount
from dstrl_cli.training.learner import Learner
from dstrl_cli.training.neurons import stored_inputs
from dstrl_cli.training.recorder import Recorder
from dstrl_cli.training.recycling import Recycler
from dstrl_cli.training.reporter import Reporter, Silent
from dstrl_cli.training.sinks import Sink
from dstrl_cli.training.stop import Stop, Stopped, listening
from dstrl_cli.training.timing import CHECK_EVERY, UpdateTiming
from dstrl_cli.training.warm_up import WarmUp


class Population:
    """Everything that trains: algorithm, environments, learner and recorder of P members.

    A lock-step (`advance`) is `act`, `actions_for_env`, `env.step`, `learner.store` and `update`;
    `bench.stopwatch` times each of them. On an accelerator only `actions_for_env` waits for the
    device. With two threads an update goes on beside the environment's step and what follows it:
    what looks at networks, buffer or metrics calls `learner.wait` first.

    Args:
        configs: fully resolved configurations that may share a population.
        sinks: what each member's rows are written to.
        spec: the environment.
        device: torch device.
        reporter: receives the progress.
        capturing: how functions of tensors are captured; None: CUDA graphs on an accelerator.
    """

    def __init__(
        self,
        configs: Sequence[RunConfig],
        sinks: Sequence[Sequence[Sink]],
        spec: EnvSpec,
        device: str,
        reporter: Reporter,
        capturing: Capture | None = None,
    ) -> None:
        config = self.config = configs[0]
        self.configs, self.reporter, self.device = configs, reporter, device
        captured = capturing or functools.partial(capture, device=device, compiled=config.compile)
        engine = config.engine
        if engine == "auto":  # used directly: `training.run` resolves it
            engine = choose(config, device, members=len(configs)).engine
        make = algorithm_class(config.algo, config.expert_q is not None)
        self.algorithm: Algorithm = make(
            configs, spec.observation_size, spec.action_size, device, engine
        )
        self.training = list(range(len(configs)))
        self.stepped: np.ndarray | None = None  # members whose environments move [P]; None: all
        self.recorder = Recorder(self.algorithm, sinks, spec)
        self.episodes = EpisodeCount(configs, self.algorithm)
        seeds = [each.seed for each in configs]
        self.make_environments(spec, seeds)
        self.capacity = CapacityControl(configs, device)
        on_host = is_on_host(config, device)
        self.replay = make_replay(configs, spec, "cpu" if on_host else device, engine)
        self.recycler = Recycler(self.algorithm, self.replay)
        aside = not self.recycler.wanted  # recycling changes networks after their update
        self.learner = Learner(self.algorithm, self.replay, captured, on_host, aside)
        self.warm_up = WarmUp(configs, spec.action_size, device)
        self.sample_action = captured(self.finite_actions)
        self.policy = captured(self.policy_actions)
        self.steps, self.evaluated = 0, -1  # the step of the last evaluation
        self.timing = UpdateTiming(config)
        self.checkpoints, self.stop = checkpoint.Schedule(configs), Stop()
        self.clock, self.clock_step = time.perf_counter(), 0

    def make_environments(self, spec: EnvSpec, seeds: Sequence[int]) -> None:
        """Make one environment per member to train in and E to evaluate in."""
        members, episodes = len(seeds), self.config.eval_episodes
        self.env_seeds = [streams.derived_seed(seed, "env") % 2**31 for seed in seeds]
        self.eval_seeds = [start for seed in seeds for start in start_seeds(seed, episodes)]
        self.env, self.eval_env = envs.make_batches(
            spec,
            [members, members * episodes],
            self.device,
            self.config.env_workers,
            self.environment_hangs,
            self.env_seeds[0] if members == 1 else None,
        )
        limit_wins = [config.limit_wins for config in self.configs]
        self.env.limit_wins = torch.tensor(limit_wins, device=self.device)
        self.host_action: Tensor | None = None  # where actions are copied on their way to the host
        if self.device.startswith("cuda") and not envs.computed_on_device(spec):
            self.host_action = torch.empty(members, spec.action_size, pin_memory=True)

    def run(self, states: Sequence[dict[str, Any]] | None = None) -> None:
        """Train to the end, or until no member trains any more.

        states: of the members, at the same step, to be emptied; None: the run begins.
        Raises Stopped, after a checkpoint, where that was asked for.
        """
        try:
            observation = self.begin() if states is None else checkpoint.restore(self, states)
            self.evaluate_and_finish()
            while self.steps < self.config.steps and self.training:
                observation = self.advance(observation)
                if self.steps == self.config.steps:
                    self.save_last()
                self.evaluate_and_finish()
                if self.steps < self.config.steps:
                    self.stop.check()
                    if self.checkpoints.due(self.steps):
                        checkpoint.save(self, self.checkpoints.of(self.training))
        except Stopped:
            if self.checkpoints.on and self.steps:
                saved = checkpoint.save(self, self.checkpoints.of(self.training))
                goes_on = checkpoint.goes_on_in_words(len(saved), len(self.training))
                self.reporter.message(f"stopped at step {self.steps:,}, {goes_on}")
            raise

    def begin(self) -> Tensor:
        """Write the initial networks and start the first episodes; return their observations."""
        self.recorder.initial()
        observation = self.env.reset(self.env_seeds)
        self.freeze_failed(self.env, 1)
        return observation

    def evaluate_and_finish(self) -> None:
        """Evaluate at step 0, every `eval_every` steps and at the end; end complete members.

        An evaluation that was stopped is still to be done when the run goes on at the same step.
        """
        due = self.steps % self.config.eval_every == 0 or self.steps == self.config.steps
        if due and self.evaluated != self.steps:
            self.evaluate()
        self.finish_complete(due)

    def save_last(self) -> None:
        """Write the checkpoint from which finished members that keep it can be made longer.

        The last evaluation still is to come: a longer run may have none at this step.
        """
        if kept := [each for each in self.training if self.configs[each].keep_checkpoint]:
            checkpoint.save(self, kept)

    def advance(self, observation: Tensor) -> Tensor:
        """Take one environment step and, after warm-up, the updates that are due."""
        observation = self.collect(observation)
        if updates := self.timing.updates_after(self.steps):
            self.learner.follow_schedule(self.steps)
            for _ in range(updates):
                self.update()
        if self.capacity.due(self.steps):
            self.learner.wait()
            measured = self.capacity.check(self.steps, self.replay, self.algorithm.act)
            self.recorder.policy_distances(measured)
        if self.steps % CHECK_EVERY == 0:
            self.poll()
        return observation

    def collect(self, observation: Tensor) -> Tensor:
        """Take one environment step per member; return the observations to act on next."""
        action, policy_action = self.act(observation)
        # with episodes, schedules depend on whether one ends in this step
        if self.timing.one_update_after(self.steps + 1) and not self.episodes.counts:
            self.learner.update_early(self.steps + 1)
        step = self.env.step(self.actions_for_env(action), self.stepped)
        self.learner.store(observation, action, step, policy_action)
        self.steps += 1
        self.timing.count(step)
        self.recorder.step(self.steps, step)
        if self.episodes.counts:
            self.recorder.flush_steps()  # the end of an episode may be the end of its run
            self.episodes.follow(self.recorder.episode_count)
        self.freeze_failed(self.env, 1)
        return step.observation

    def act(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions to take and the noise-free ones, both [P, act]."""
        if self.steps < self.config.learning_starts and self.algorithm.WARMS_UP:
            return self.warm_up.act(observation, self.steps)
        actions: tuple[Tensor, Tensor] | None = self.learner.act(observation, self.steps)
        if actions is None:
            actions = self.sample_action(observation, self.algorithm.exploration.at(self.steps))
        return actions

    def finite_actions(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return `sample_action` of the algorithm, in which NaN actions are replaced by zero.

        The next loss check freezes members that had any.
        """
        action, policy_action = self.algorithm.sample_action(observation, noise)
        return action.nan_to_num_(), policy_action

    def actions_for_env(self, action: Tensor) -> Tensor:
        """Return the actions where the environments are computed.

        If that is the host, this waits until the device has copied them there.
        """
        if self.host_action is None:
            return action
        self.host_action.copy_(action, non_blocking=True)
        torch.cuda.current_stream(self.device).synchronize()
        return self.host_action

    def update(self) -> None:
        """Take one update of every member."""
        self.learner.update()
        self.recycler.after_update(self.training)
        self.recorder.topology(self.steps)

    def poll(self) -> None:
        """Write the rows that wait, freeze members that diverged, and report progress."""
        self.learner.wait()
        self.recorder.flush()
        self.tell()
        self.freeze_faulty(self.training)
        if self.steps == self.clock_step:  # reported at this step already
            return
        now = time.perf_counter()
        rate = (self.steps - self.clock_step) / max(now - self.clock, 1e-9)
        if self.episodes.counts and self.training:
            self.reporter.episodes(*self.episodes.slowest(self.training))
        self.reporter.progress(self.steps, self.config.steps, rate)
        self.clock, self.clock_step = now, self.steps

    def tell(self) -> None:
        """Report what networks and topology updates have to say."""
        for member, text in self.recorder.take_messages():
            config = self.configs[member]
            self.reporter.message(f"{config.method} seed {config.seed}: {text}")

    def end(self, member: int, status: str, error: str | None) -> None:
        """End a member's training where it is; the others go on."""
        self.learner.give_up_begun()
        self.recorder.flush()
        self.training.remove(member)
        if not self.env.on_device:  # there all move together: leaving some out spares nothing
            self.stepped = self.flags(self.training)
        self.algorithm.alive[member].fill_(False)
        self.recorder.finish(member, status, self.steps, error)

    def finish_complete(self, evaluated: bool) -> None:
        """End the members that have had all their episodes, after a last evaluation.

        `evaluated`: whether every member was evaluated at this step already.
        """
        if not self.episodes.counts:
            return
        complete = self.episodes.complete(self.training)
        if complete and not evaluated:
            self.evaluate(None if complete == self.training else complete)
        for member in self.episodes.complete(self.training):
            self.end(member, FINISHED, None)

    def freeze(self, member: int, status: str, error: str) -> None:
        """End the training of a member that went wrong, and say so."""
        self.end(member, status, error)
        if len(self.configs) > 1:  # of a single run, the command prints the same error at its end
            config = self.configs[member]
            self.reporter.message(f"{config.method} seed {config.seed} {status}: {error}")

    def freeze_faulty(self, members: Sequence[int]) -> None:
        """Freeze those of the members that diverged or whose replay buffer has failed."""
        alive = self.algorithm.alive.tolist()
        for member in [m for m in members if not alive[m]]:
            error = f"the loss or the actions became NaN or infinite before step {self.steps}"
            self.freeze(member, DIVERGED, error)
        for member, cause in self.replay.faults().items():
            if member in self.training and member in members:
                self.freeze(member, FAILED, cause)

    def freeze_failed(
        self, env: BatchEnv, per_member: int, only: Sequence[int] | None = None
    ) -> None:
        """Freeze the members one of whose environments, `per_member` each, has failed.

        `only`: the members that are looked at; None: all.
        """
        for index, cause in env.failures.items():
            member = index // per_member
            if member in self.training and (only is None or member in only):
                self.freeze(member, FAILED, cause)

    def evaluate(self, only: Sequence[int] | None = None) -> None:
        """Evaluate the members that still train; write and report their rows.

        With `only` some members are evaluated, and nothing changes for the others.
        """
        if not self.training:
            return
        self.learner.wait()
        started, generators = time.perf_counter(), checkpoint.generators(self)
        try:
            episodes = self.roll_out(only)
        except Stopped:
            checkpoint.set_generators(self, generators)  # it will be repeated
            self.recorder.evaluation_stopped(time.perf_counter() - started)
            raise
        seconds = time.perf_counter() - started
        self.clock += seconds
        if only is None:
            self.poll()
        else:
            self.recorder.flush()
            self.freeze_faulty(only)
        self.freeze_failed(self.eval_env, self.config.eval_episodes, only)
        rows = self.recorder.evaluation(
            self.steps,
            episodes.by_member(len(self.configs)),
            seconds,
            self.learner.nsteps.values,
            self.replay.size.squeeze(1).tolist(),
            only,
            stored_inputs(self.replay, self.algorithm.seeds, self.steps),
        )
        self.tell()
        self.evaluated = self.steps
        for member, row in rows.items():
            self.reporter.evaluation(member, row)

    def evaluation_actions(self, observation: Tensor) -> Tensor:
        """Return `policy_actions` for one step of an evaluation, unless a stop was asked for."""
        self.stop.check()
        actions: Tensor = self.policy(observation)
        return actions

    def roll_out(self, only: Sequence[int] | None) -> Episodes:
        """Return the evaluation episodes [P * E], of `only` some members or of all that train."""
        act, seeds, limit = self.evaluation_actions, self.eval_seeds, self.config.eval_max_steps
        evaluated = self.flags(self.training if only is None else only)
        active = evaluated.repeat(self.config.eval_episodes)
        alive = self.algorithm.alive.clone()
        episodes = rollout.episodes(self.eval_env, act, seeds, limit, active)
        others = torch.from_numpy(~evaluated).to(alive.device)
        self.algorithm.alive.copy_(torch.where(others, alive, self.algorithm.alive))
        return episodes

    def flags(self, members: Sequence[int]) -> np.ndarray:
        """Return which of all members are among `members`: [P] bool."""
        return np.isin(np.arange(len(self.configs)), members)

    def policy_actions(self, observation: Tensor) -> Tensor:
        """Return actions without noise [P * E, act] for observations [P * E, obs],
        ordered by member.

        Actions that are not finite are replaced, and their members are no longer alive.
        """
        members = len(self.configs)
        actions = self.algorithm.act(observation.view(members, -1, observation.shape[-1]))
        self.algorithm.alive &= actions.isfinite().flatten(1).all(1)
        return actions.nan_to_num_().flatten(0, 1)

    def finish(self, status: str, error: str | None = None) -> None:
        """Write the rows that wait and the summaries of the members that still trained."""
        self.learner.give_up_begun()
        self.recorder.flush()
        for member in sorted(self.recorder.recorded.intersection(self.training)):
            self.recorder.finish(member, status, self.steps, error)

    def environment_hangs(self, who: str, cause: str) -> None:
        """Mark all members failed before the process ends, because an environment hangs in it.

        This is called on another thread while the training waits for that environment.
        """
        error = f"{who} failed: {cause}"
        with torch.no_grad(), contextlib.suppress(Exception):
            self.finish(FAILED, error)
        say(who, cause)

    def close(self) -> None:
        """Release the environments and the second thread."""
        self.learner.close()
        self.env.close()
        self.eval_env.close()


@torch.no_grad()
def train(
    configs: Sequence[RunConfig],
    sinks: Sequence[Sequence[Sink]],
    spec: EnvSpec,
    device: str,
    reporter: Reporter | None = None,
    capturing: Capture | None = None,
    states: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Train one population; every member's summary says how it ended.

    Args:
        configs: fully resolved configurations that may share a population (`sweep.packing`).
        sinks: what each member's rows are written to: an open run folder, for example.
        spec: the environment.
        device: torch device.
        reporter: receives the progress; None: nobody.
        capturing: see `Population`.
        states: the members' states, where they go on from checkpoints; see `checkpoint.restore`.

    Raises:
        KeyboardInterrupt: after the members were marked interrupted.
        DstrlError: after the members were marked failed, with the cause.
    """
    torch.set_num_threads(torch_threads(configs[0]))
    torch.set_flush_denormal(True)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    population = Population(configs, sinks, spec, device, reporter or Silent(), capturing)
    try:
        with listening(population.stop):
            population.run(states)
            population.finish(FINISHED)
    except (KeyboardInterrupt, Stopped):
        with contextlib.suppress(RuntimeError, DstrlError, OSError):
            population.finish(INTERRUPTED)
        raise KeyboardInterrupt from None
    except Exception as error:
        known = isinstance(error, DstrlError)
        reason = str(error) if known else stopped_by(error)
        # A lost device cannot be read, a full disk not written; `run.train` marks what it can.
        with contextlib.suppress(RuntimeError, DstrlError, OSError):
            population.finish(FAILED, reason)
        if known:
            raise
        raise DstrlError(reason) from error
    finally:
        population.close()
