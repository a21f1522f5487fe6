"""From transitions to updates: the replay buffer, what is sampled from it, and the updates.

Everything here happens on the training device and is replayed there (`capture`). An update of one
kind (what is due, the largest n) is one function; where a topology rule looks at it, it runs as it
is, and what the rule changes changes in place, so that the replayed ones go on from there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm, Due
from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import Step
from dstrl_cli.replay.base import Batch, Replay
from dstrl_cli.replay.nsteps import NSteps
from dstrl_cli.replay.once import ReplayOnce
from dstrl_cli.training.capture import Capture, Function


class Learner:
    """Replay buffer and updates of the members of a population.

    Args:
        algorithm: whose updates are taken.
        spec: the environment.
        policy_actions: whether the buffer keeps the policy's noise-free actions.
        capture: see `capture`.

    Raises:
        InputError: the buffer does not fit on the device.
    """

    def __init__(
        self, algorithm: Algorithm, spec: EnvSpec, policy_actions: bool, capture: Capture
    ) -> None:
        self.algorithm, self.device = algorithm, algorithm.device
        configs, config = algorithm.configs, algorithm.config
        self.capture = capture
        self.batch_travels = replay_on_host(config, self.device)
        place = "cpu" if self.batch_travels else self.device
        capacities = [min(c.buffer_size, c.steps) for c in configs]
        self.capacity_limit = torch.tensor(capacities, device=place)
        self.limited = min(capacities) < max(capacities)
        self.replay: Replay = buffer(place, spec.time_limit, algorithm.engine)(
            len(configs),
            max(capacities),
            spec.observation_size,
            spec.action_size,
            config.gamma,
            place,
            policy_actions,
        )
        self.nsteps = NSteps(configs, place)
        rows = (config.batch_size,)
        self.sampling = streams.uniform(algorithm.seeds, "replay", rows, place, torch.float64)
        self.remember = self.add_on_host if self.batch_travels else capture(self.add)
        self.updaters: dict[tuple[Due, int], Function] = {}

    def store(self, observation: Tensor, action: Tensor, step: Step, policy_action: Tensor) -> None:
        """Remember one transition per member."""
        self.remember(
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
        self.replay.add(*transition)
        if self.limited:
            self.replay.limit(self.capacity_limit)

    def add_on_host(self, *transition: Tensor) -> None:
        """Bring a transition to the buffer on the host, as one block, and add it."""
        columns = [part.reshape(len(part), -1).float() for part in transition]
        block = torch.cat(columns, dim=1).to(self.replay.size.device)
        parts = block.split([column.shape[1] for column in columns], dim=1)
        self.add(
            *(
                part.reshape(original.shape).to(original.dtype)
                for part, original in zip(parts, transition, strict=True)
            )
        )

    def update(self) -> None:
        """Take one update of every member on a batch of its own."""
        nstep, max_nstep = self.nsteps.at(self.algorithm.updates + 1)
        numbers = self.sampling.at(self.algorithm.updates)
        due = self.algorithm.begin_update()
        noise = self.algorithm.noise(max_nstep)
        updater = self.updaters.get((due, max_nstep)) or self.make_updater(due, max_nstep)
        if self.batch_travels:
            batch = self.replay.sample(numbers, nstep, max_nstep)
            updater(*noise, *(self.brought(part) for part in batch.tensors()))
        else:
            updater(*noise, numbers)

    def brought(self, part: Tensor) -> Tensor:
        """Return a part of a batch on the device; the host does not wait for the copy."""
        if torch.cuda.is_available():
            part = part.contiguous().pin_memory()  # only then is the copy one that nobody waits for
        return part.to(self.device, non_blocking=True)

    def make_updater(self, due: Due, max_nstep: int) -> Function:
        """Return, and keep, what takes the updates of one kind: replayed unless a rule looks.

        Those of another largest n are let go: the T_0 are passed once, and a graph holds memory.
        """
        if any(other != max_nstep for _, other in self.updaters):
            if torch.device(self.device).type == "cuda":
                torch.cuda.synchronize(self.device)
            self.updaters.clear()
        learn = self.learn_from if self.batch_travels else self.learn
        function = functools.partial(learn, due, max_nstep)
        self.updaters[due, max_nstep] = function if due.topology else self.capture(function)
        return self.updaters[due, max_nstep]

    def learn(self, due: Due, max_nstep: int, *numbers: Tensor) -> None:
        """Sample and take the update that has begun, all on the device."""
        *noise, sampling = numbers
        batch = self.replay.sample(sampling, self.nsteps.tensor, max_nstep)
        self.algorithm.train_step(batch, noise, due)

    def learn_from(self, due: Due, max_nstep: int, *tensors: Tensor) -> None:
        """Take the update that has begun, on a batch that was sampled elsewhere."""
        split = len(tensors) - Batch.parts(max_nstep)
        batch = Batch.of(tensors[split:], self.replay.observation.shape[-1])
        self.algorithm.train_step(batch, tensors[:split], due)


def buffer(place: str, time_limit: int | None, engine: str) -> Callable[..., Replay]:
    """Return what makes the buffer there: an accelerator has no memory to repeat observations in.

    On the host the second copy is read in less time than the first is found. Where the networks
    are compiled, the buffer is too.
    """
    if engine == "sparse":
        from dstrl_cli.replay.compiled import CompiledReplay

        return CompiledReplay
    if place == "cpu" or time_limit is None:
        return Replay
    return functools.partial(ReplayOnce, time_limit=time_limit)


def replay_on_host(config: RunConfig, device: str) -> bool:
    """Return whether the buffer is kept apart from the networks, which are on a device."""
    return device != "cpu" and config.replay_device == "cpu"
