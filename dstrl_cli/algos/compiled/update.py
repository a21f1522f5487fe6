"""A run's actions and updates by compiled code: the tables that it works on, and its calls."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli import compiler
from dstrl_cli.algos.base import Due
from dstrl_cli.algos.compiled import numbers, shared
from dstrl_cli.envs.base import Step
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.sparse.partner import Partner
from dstrl_cli.nets.sparse.passes import NetworkTable
from dstrl_cli.nets.sparse.tables import Table, address_of, described
from dstrl_cli.replay.base import Replay
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.streams import Stream

SOURCES = (__file__, numbers.__file__, compiler.__file__, *shared.SOURCES)


class CompiledUpdate(ABC):
    """Takes the updates of one algorithm in which no topology changes, and acts.

    Args:
        algorithm: of one member, on the sparse engine.
        replay: its buffer, which `samples_from` allows.
        sampling: the numbers that choose batches.
        partner: a second thread that takes updates, or None. The caller's thread takes its share of
            them when it waits for it.

    Attributes:
        ALGORITHM: the class whose updates these are.
        UPDATE: takes an update in compiled code, from the address of what it is given: see
            `shared`.
        BLOCKS: its functions of a block of tiles: of the critics, of the actor.
        NOISES: how many rows of noise it is given.
        ACT: writes the actions for an observation in compiled code, from the addresses of the
            tables of batch and actor, the observation [1, obs], and the row of its noise.
        CRITICS_TAKE_TURNS: whether a critic's tile is taken backward before the next critic's
            goes forward.
        shape: tiles of a batch, and rows of the batch in each.
    """

    ALGORITHM: ClassVar[type]
    UPDATE: ClassVar[Any]
    BLOCKS: ClassVar[tuple[Any, Any]]
    NOISES: ClassVar[int]
    ACT: ClassVar[Any]
    CRITICS_TAKE_TURNS: ClassVar[bool]

    def __init__(
        self, algorithm: Any, replay: Any, sampling: Stream, partner: Partner | None
    ) -> None:
        self.algorithm, self.replay, self.sampling = algorithm, replay, sampling
        self.partner = partner
        self.rows = algorithm.config.batch_size
        heads = 1 if self.CRITICS_TAKE_TURNS else algorithm.critic.plan.heads
        threads = 1 if partner is None else 2
        self.actor = NetworkTable(algorithm.actor, self.rows, 1, threads)
        self.critic = NetworkTable(algorithm.critic, self.rows, heads, threads)
        tiles, _, lanes = self.critic.arrays["first"].shape
        self.shape = (tiles, lanes)
        self.nstep = 0
        self.row: int | None = None  # of the transition that was counted but is still to be written
        self.actions = (self.row_of_actions(), self.row_of_actions())
        self.td_error = torch.zeros(1, algorithm.critic.plan.heads)
        self.batch = self.batch_table()
        update, blocks, act = type(self).UPDATE, type(self).BLOCKS, type(self).ACT
        shared.compile_for(update, blocks, act)
        self.function = address_of(update, 1)
        self.given = np.zeros(shared.NOISES + self.NOISES, np.int64)
        self.given[: shared.ACTOR_DUE] = [
            *(table.address for table in (self.batch, self.actor, self.critic)),
            0 if partner is None else partner.address,
            *(address_of(block, 3) for block in blocks),
        ]
        compiler.let_go()

    @staticmethod
    def samples_from(replay: Replay) -> bool:
        """Return whether compiled code can sample from a buffer."""
        return isinstance(replay, CompiledReplay)

    @abstractmethod
    def own(self) -> dict[str, NDArray[Any]]:
        """Return noises, settings and what else the algorithm has in the table of the batch."""

    @abstractmethod
    def targets(self, due: Due) -> list[NetworkTable]:
        """Return the networks whose targets move in this update, in their order."""

    @abstractmethod
    def noises(self, nstep: int) -> tuple[int, ...]:
        """Draw the noises of the update that has begun, for n steps; return their rows."""

    def takes(self, due: Due) -> bool:
        """Return whether it takes the update that has begun: the topology does not change in it."""
        if not due.topology:
            return True
        return all(network.shown_without_gradients for network in self.updated(due))

    def updated(self, due: Due) -> list[Network]:
        """Return the networks that take a step in this update, in their order."""
        critic, actor = self.algorithm.critic, self.algorithm.actor
        return [critic, actor] if due.actor else [critic]

    def __call__(self, due: Due, nstep: int, goes_on: bool = False) -> None:
        """Take the update that has begun.

        Args:
            due: what `Algorithm.begin_update` returned, if `takes`.
            nstep: steps of its target.
            goes_on: whether the partner, if there is one, may go on with it after this returns, if
                neither the actor nor a topology rule takes part in it. Then the caller waits for
                the partner before anything but `act` looks at networks, buffer, metrics or random
                numbers.
        """
        left = self.prepare(due, nstep)
        if self.partner is None:
            type(self).UPDATE(self.given.ctypes.data)
        else:
            self.partner.start(self.function, self.given.ctypes.data)
            if goes_on and not (left or due.actor or due.topology):
                return
            self.partner.wait()
        if due.topology:
            for network in self.updated(due):
                td_error = self.td_error if network is self.algorithm.critic else None
                network.show_update(self.algorithm.alive, td_error, self.rows)
        for table in left:
            table.network.update_target(self.algorithm.config.tau)

    def start_early(self, due: Due, nstep: int) -> bool:
        """Take the update that has begun, if it can be taken before its step's transition is known.

        That is so if its batch does not hold this transition and its topology does not change. Then
        it goes on after this returns, the buffer counts the transition as stored, and the next call
        of `store` is to write it. Arguments as of a call; returns whether the update was started.
        """
        drawn = self.sampling.row(self.algorithm.updates - 1)
        if due.topology or shared.reads_next(self.batch.address, drawn, nstep):
            return False
        if self.prepare(due, nstep):
            return False
        assert self.partner is not None
        self.row = shared.next_row(self.batch.address)
        self.partner.start(self.function, self.given.ctypes.data)
        return True

    def prepare(self, due: Due, nstep: int) -> list[NetworkTable]:
        """Lay out what compiled code is given for the update that has begun.

        Returns the networks whose targets are left to move after it: all that are due, or none.
        """
        self.actor.renew()
        self.critic.renew()
        if nstep != self.nstep:
            self.make_path(nstep)
        drawn = self.sampling.row(self.algorithm.updates - 1)
        targets = self.targets(due)
        in_place = all(table.moves_target for table in targets)
        moves = bool(targets) and in_place
        self.given[shared.ACTOR_DUE :] = due.actor, moves, nstep, drawn, *self.noises(nstep)
        return [] if in_place else targets

    def act(self, observation: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the action to take and the noise-free one [1, act]; valid until the next call.

        A NaN action is replaced by zero.

        Args:
            observation: [1, obs].
            step: environment steps so far.
        """
        self.actor.renew()
        noise = self.algorithm.exploration.row(step)
        type(self).ACT(self.batch.address, self.actor.address, observation.numpy(), noise)
        return self.actions

    def store(self, observation: Tensor, action: Tensor, step: Step, policy_action: Tensor) -> None:
        """Store a transition [1, ...] in the buffer."""
        row = shared.next_row(self.batch.address) if self.row is None else self.row
        self.row = None
        shared.store(
            self.batch.address, row, observation.numpy(), action.numpy(), step.reward.numpy(),
            step.next_observation.numpy(), step.terminated.numpy(), step.truncated.numpy(),
            policy_action.numpy(),
        )  # fmt: skip

    def batch_table(self) -> Table:
        """Return the table of the batch, without its path."""
        algorithm, replay = self.algorithm, self.replay
        table = Table(shared.LAYOUT)
        table.set(
            state_actions=replay.state_action[0].numpy(),
            ends=replay.ends[0].numpy(),
            slots=replay.slots[0],
            free=replay.free[0],
            live=replay.live[0],
            outcomes=replay.outcome[0].numpy(),
            position=replay.position.numpy(),
            size=replay.size[0].numpy(),
            policy_actions=replay.policy_actions[0],
            powers=replay.discounts.numpy(),
            numbers=self.sampling.array[0],
            starts=np.empty(self.rows, np.int64),
            target=np.zeros(self.shape, np.float32),
            sums=np.zeros((self.shape[0], algorithm.critic.plan.heads, 3), np.float32),
            reward=np.zeros(self.shape, np.float32),
            discount=np.zeros(self.shape, np.float32),
            last=np.zeros(self.shape, np.int64),
            exploration=algorithm.exploration.array[0],
            action=self.actions[0][0].numpy(),
            policy_action=self.actions[1][0].numpy(),
            td_error=self.td_error[0].numpy(),
            alive=algorithm.alive.numpy(),
            **self.own(),
            **{name: total.numpy() for name, total in algorithm.sums.items()},
        )
        return table

    def row_of_actions(self) -> Tensor:
        """Return room for one action [1, act]."""
        return torch.zeros(1, self.algorithm.action_size)

    def settings(self, *own: float) -> NDArray[np.float32]:
        """Return what compiled code reads of the configuration: gamma, then the algorithm's own."""
        return np.array([self.algorithm.config.gamma, *own], np.float32)

    @staticmethod
    def described(streams: Sequence[Stream]) -> NDArray[np.int64]:
        """Return the rows by which compiled code knows streams of noise."""
        return np.array([described(stream.array[0]) for stream in streams], np.int64)

    def path_steps(self, nstep: int) -> int:
        """Return how many observations of a path the algorithm looks at."""
        return 1

    def make_path(self, nstep: int) -> None:
        """Make room for the paths of n-step targets."""
        tiles, lanes = self.shape
        steps, observations = self.path_steps(nstep), self.replay.observation_size
        self.batch.set(
            path=np.zeros((steps, tiles, observations, lanes), np.float32),
            path_discount=np.zeros((steps, tiles, lanes), np.float32),
        )
        self.nstep = nstep
