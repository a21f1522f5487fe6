"""The updates of a population: a batch from the replay buffer, random numbers, and a train step.

All of it happens on the training device and may be captured there (`capture`): storing a
transition is one captured function, an update of one kind is another. The kind of an update is what
is due in it and the largest n of its targets. An update that a topology rule takes part in runs
without a graph. It changes the networks' tensors in place, so the graphs stay valid after it.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm, Due
from dstrl_cli.algos.compiled import compiled_update
from dstrl_cli.config.fields import LinearRate
from dstrl_cli.envs.base import Step
from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.nsteps import NSteps
from dstrl_cli.training.capture import Capture, Function


class Learner:
    """Stores the transitions of a population and takes its updates.

    Args:
        algorithm: the networks and how they are updated.
        replay: an empty buffer.
        capture: from a function of tensors to one that does the same; see `training.capture`.
        aside: whether updates may go on while the environment takes a step, where a second thread
            is allowed (`threads`). Nothing else may change networks after an update.
        replay_on_host: whether the buffer is in main memory and the networks are not: then
            transitions and batches are copied between them.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        replay: Replay,
        capture: Capture,
        replay_on_host: bool = False,
        aside: bool = False,
    ) -> None:
        self.algorithm, self.device, self.replay = algorithm, algorithm.device, replay
        self.capture, self.replay_on_host = capture, replay_on_host
        configs, config = algorithm.configs, algorithm.config
        capacities = [each.replay_capacity for each in configs]
        self.capacities = torch.tensor(capacities, device=replay.device)
        self.capacities_differ = min(capacities) < max(capacities)
        self.nsteps = NSteps(configs, replay.device)
        self.sampling = streams.uniform(
            algorithm.seeds, "replay", (config.batch_size,), replay.device, torch.float64
        )
        self.add_transition = self.add_on_host if replay_on_host else capture(self.add)
        self.compiled = compiled_update(algorithm, replay, self.sampling)
        self.partner = None if self.compiled is None else self.compiled.partner
        self.aside = aside and self.partner is not None
        self.due: Due | None = None  # of an update that has begun and was not taken
        self.started = False  # whether the next call of `update` finds its update started early
        self.moves_policy = False  # whether an update that goes on may change the policy
        self.update_functions: dict[tuple[Due, int], Function] = {}

    def act(self, observation: Tensor, step: int) -> tuple[Tensor, Tensor] | None:
        """Return `CompiledUpdate.act` where updates are compiled code, else None."""
        if self.compiled is None:
            return None
        if self.moves_policy:
            self.wait()
        return self.compiled.act(observation, step)

    def update_early(self, step: int) -> None:
        """Take the one update that follows environment step `step` beside that step, if possible.

        It is possible where there is a second thread, and where the update does not depend on the
        transition: hardly any batch holds the newest of many. Otherwise `update` does what remains.
        """
        if not self.aside or self.compiled is None:
            return
        self.wait()
        self.follow_schedule(step)
        self.due = due = self.algorithm.begin_update()
        if self.compiled.takes(due):
            _, nstep = self.nsteps.at(self.algorithm.updates)
            self.started = self.compiled.start_early(due, nstep)
            self.moves_policy = self.started and due.actor

    def store(self, observation: Tensor, action: Tensor, step: Step, policy_action: Tensor) -> None:
        """Store one transition per member."""
        if not self.started:
            self.wait()
        if self.compiled is not None:
            self.compiled.store(observation, action, step, policy_action)
            return
        self.add_transition(
            observation,
            action,
            step.reward,
            step.next_observation,
            step.terminated,
            step.truncated,
            policy_action,
        )

    def add(self, *transition: Tensor) -> None:
        """Add a transition of every member to the replay buffer."""
        self.replay.add(Transition(*transition))
        if self.capacities_differ:
            self.replay.limit(self.capacities)

    def add_on_host(self, *transition: Tensor) -> None:
        """Copy a transition to the host, as one block, and add it there."""
        columns = [part.reshape(len(part), -1).float() for part in transition]
        block = torch.cat(columns, dim=1).to(self.replay.device)
        parts = block.split([column.shape[1] for column in columns], dim=1)
        self.add(
            *(
                part.reshape(original.shape).to(original.dtype)
                for part, original in zip(parts, transition, strict=True)
            )
        )

    def follow_schedule(self, step: int) -> None:
        """Set the learning rate for the updates that follow environment step `step`."""
        config = self.algorithm.config
        if isinstance(config.learning_rate, LinearRate):
            self.algorithm.set_learning_rate(config.learning_rate_at(step))

    def update(self) -> None:
        """Take one update of every member on a batch of its own.

        It may go on after this returns; see `wait`.
        """
        if self.started:
            self.started, self.due = False, None
            return
        self.wait()
        if self.due is None:
            self.due = self.algorithm.begin_update()
        self.take(self.due)
        self.due = None

    def take(self, due: Due) -> None:
        """Take the update that has begun; it may go on after this returns."""
        nstep, max_nstep = self.nsteps.at(self.algorithm.updates)
        if self.compiled is not None and self.compiled.takes(due):
            self.compiled(due, max_nstep, self.aside)
            return
        sampling = self.sampling.at(self.algorithm.updates - 1)
        noise = self.algorithm.noise(max_nstep)
        take_update = self.update_function(due, max_nstep)
        if self.replay_on_host:
            batch = self.replay.sample(sampling, nstep, max_nstep)
            take_update(*noise, *(self.copy_to_device(part) for part in batch.tensors()))
        else:
            take_update(*noise, sampling)

    def wait(self) -> None:
        """Wait for an update that goes on on the second thread, if one does.

        To be called before anything looks at the networks, the buffer or the metrics. Only what is
        called for every step may go on meanwhile: `act` waits itself where the policy changes, and
        the update does not read the row that `store` writes.
        """
        if self.partner is not None:
            self.partner.wait()
            self.moves_policy = False

    def give_up_begun(self) -> None:
        """Wait, and do not count an update that has begun but will not be completed."""
        self.wait()
        if self.due is not None:
            self.algorithm.updates -= 1
            self.algorithm.critic.updates -= 1
            self.algorithm.actor.updates -= self.due.actor
            self.started, self.due = False, None

    def close(self) -> None:
        """End the second thread."""
        if self.partner is not None:
            self.partner.close()

    def copy_to_device(self, part: Tensor) -> Tensor:
        """Return a part of a batch on the device; the host does not wait for the copy."""
        if torch.cuda.is_available():
            part = part.contiguous().pin_memory()  # copies of pageable memory would be waited for
        return part.to(self.device, non_blocking=True)

    def update_function(self, due: Due, max_nstep: int) -> Function:
        """Return what takes the updates of one kind, made and captured when first asked for.

        Graphs captured for a previous maximum n are dropped: n changes only when a member passes
        its T_0, and a graph holds memory.
        """
        kind = (due, max_nstep)
        if kind not in self.update_functions:
            if any(other != max_nstep for _, other in self.update_functions):
                if torch.device(self.device).type == "cuda":
                    torch.cuda.synchronize(self.device)
                self.update_functions.clear()
            train = self.train_on_copied if self.replay_on_host else self.sample_and_train
            function = functools.partial(train, due, max_nstep)
            self.update_functions[kind] = function if due.topology else self.capture(function)
        return self.update_functions[kind]

    def sample_and_train(self, due: Due, max_nstep: int, *numbers: Tensor) -> None:
        """Sample a batch and take the update that has begun, all on the device.

        Args:
            due, max_nstep: the kind of the update.
            numbers: the algorithm's noise, then the random numbers that choose the batch.
        """
        *noise, sampling = numbers
        batch = self.replay.sample(sampling, self.nsteps.tensor, max_nstep)
        self.algorithm.train_step(batch, noise, due)

    def train_on_copied(self, due: Due, max_nstep: int, *tensors: Tensor) -> None:
        """Take the update that has begun on a batch that was sampled on the host.

        Args:
            due, max_nstep: the kind of the update.
            tensors: the algorithm's noise, then the parts of the batch (`Batch.tensors`).
        """
        split = len(tensors) - Batch.count_tensors(max_nstep)
        batch = Batch.from_tensors(tensors[split:], self.replay.observation_size)
        self.algorithm.train_step(batch, tensors[:split], due)
