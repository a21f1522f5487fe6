"""The replay buffer of a population: rings `[P, capacity, ...]` and what all its layouts share.

All members write at the same position; how many of the newest transitions are valid is each
member's own number (`size`), so a member's capacity can change without moving data. Position and
sizes are tensors that change in place: storing and sampling read nothing back to the host and can
be captured. Sampling sums n-step rewards exactly: it stops at terminations (no bootstrap) and at
time limits (bootstrap), and never crosses the newest transition.

The layouts (`paired`, `once`, `compiled`) differ in where the next observation is stored and in
what executes the loops; `choice` picks one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dstrl_cli.config.models import MAX_NSTEP
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.memory import uninitialised
from dstrl_cli.replay.state import Filled, pieces, read_breaks, sizes, whole


class Transition(NamedTuple):
    """One environment step of every member, as the buffer stores it."""

    observation: Tensor  # [P, obs]
    action: Tensor  # [P, act] in [-1, 1]
    reward: Tensor  # [P]
    next_observation: Tensor  # [P, obs]: where the action led, at the end of an episode too
    terminated: Tensor  # [P] bool
    truncated: Tensor  # [P] bool
    policy_action: Tensor | None = None  # [P, act]: the policy's, without noise


class Replay(ABC):
    """Ring buffer for P members.

    Args:
        members: P.
        capacity: transitions that the ring holds.
        observation_size, action_size: sizes of one row.
        gamma: discount factor.
        device: torch device.
        policy_actions: whether to also store the action that the policy gave without noise, for
            the policy distance of RLX's code (`capacity.mean_squared_distance`).

    Attributes:
        size: valid transitions of each member [P, 1].
        position: the row that is written next [1], common to all members.
    """

    def __init__(
        self,
        members: int,
        capacity: int,
        observation_size: int,
        action_size: int,
        gamma: float,
        device: str = "cpu",
        policy_actions: bool = False,
    ) -> None:
        self.capacity, self.gamma, self.device = capacity, gamma, device
        self.observation_size = observation_size
        # observation and action lie side by side, as the critics read them
        self.state_action = self.ring(members, observation_size + action_size)
        self.observation = self.state_action[..., :observation_size]
        self.action = self.state_action[..., observation_size:]
        self.policy_action = self.ring(members, action_size) if policy_actions else self.action
        # in one ring, since they are read together: reward; 1 unless the episode terminated at the
        # step, else 0; 1 unless it terminated or was truncated there, else 0
        self.outcome = self.ring(members, 3)
        self.reward, self.not_terminated, self.not_done = self.outcome.unbind(-1)
        self.size = torch.zeros(members, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        self.steps = torch.arange(MAX_NSTEP, device=device)  # k
        self.discounts = (gamma**self.steps).float()  # gamma^k
        # flat number of each member's first row [P, 1]
        self.first_row = torch.arange(members, device=device).unsqueeze(1) * capacity

    def ring(self, members: int, size: int) -> Tensor:
        """Return an uninitialised ring [P, capacity, size]."""
        return uninitialised(members, self.capacity, size, device=self.device)

    # What each layout implements.

    @abstractmethod
    def add(self, transition: Transition) -> None:
        """Store one transition of every member."""

    @abstractmethod
    def sample(self, numbers: Tensor, nstep: Tensor, max_nstep: int) -> Batch:
        """Return a batch of n-step transitions, uniform over the starts that n stored steps follow.

        Args:
            numbers: uniform in [0, 1) [P, B], float64.
            nstep: n of each member [P, 1].
            max_nstep: the largest n.
        """

    @abstractmethod
    def faults(self) -> dict[int, str]:
        """Return the members whose transitions could not be stored, and why.

        This waits for the device: call it rarely.
        """

    @abstractmethod
    def breaks(self, member: int, start: int, size: int) -> tuple[Tensor, Tensor]:
        """Return the rows whose next observation is not in the next row, and these observations.

        Rows [N] are counted from `start`, the oldest of the `size` valid ones; the newest is one.
        """

    @abstractmethod
    def set_next(self, filled: Sequence[Filled]) -> None:
        """Store the next observations of the rows that every member was given."""

    @abstractmethod
    def keep_next_of_newest(self, member: int) -> None:
        """Preserve the next observation of a member's newest row, whose episode ends there."""

    # What all layouts share.

    def limit(self, largest: Tensor) -> None:
        """Forget the oldest transitions beyond `largest` [P] of each member."""
        torch.minimum(self.size, largest.unsqueeze(1), out=self.size)

    def rows(self, age: Tensor) -> Tensor:
        """Return flat row numbers of the `age`-th oldest valid transitions [P, ...]."""
        column = (len(self.size),) + (1,) * (age.dim() - 1)
        start = (self.position - self.size).view(column)
        return (start + age) % self.capacity + self.first_row.view(column)

    def take(self, ring: Tensor, rows: Tensor) -> Tensor:
        """Return the flat rows [P, ...] of a ring as [P, ..., size]."""
        return ring.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)

    def inputs(self, numbers: Tensor) -> Tensor:
        """Return stored observations and actions, side by side, [P, B, obs + act].

        numbers: uniform in [0, 1) [P, B], float64; each stands for a transition.
        """
        return self.take(self.state_action, self.rows((numbers * self.size).long()))

    def oldest(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return observation, action and policy action of the `count` oldest, [P, count, ...].

        Where a member holds fewer, its newest is repeated.
        """
        age = torch.arange(count, device=self.size.device).expand(len(self.size), -1)
        rows = self.rows(torch.minimum(age, self.size - 1))
        return (
            self.take(self.observation, rows),
            self.take(self.action, rows),
            self.take(self.policy_action, rows),
        )

    def drop_oldest(self, members: Tensor, fraction: float) -> None:
        """Forget int(fraction * size) of the oldest transitions of the marked members [P].

        The product is rounded to six digits first: 0.29 of 100 is 29, and not 28.
        """
        share = fraction * self.size.squeeze(1).double()
        count = share.round(decimals=6).floor().long()
        self.size.sub_(torch.where(members, count, 0).unsqueeze(1))

    # Checkpoints.

    def state(self, member: int) -> dict[str, Any]:
        """Return the valid rows of one member, for any layout (see `replay.state`).

        On the host they are views of the rings: write them before the next transition is stored.
        """
        size = int(self.size[member])
        start = (int(self.position) - size) % self.capacity
        breaks, observations = self.breaks(member, start, size)
        state = {
            "state_action": pieces(self.state_action[member], start, size),
            "outcome": pieces(self.outcome[member], start, size),
            "breaks": breaks.cpu().numpy(),
            "break_observations": observations.cpu().numpy(),
        }
        if self.policy_action is not self.action:
            state["policy_action"] = pieces(self.policy_action[member], start, size)
        return state

    def set_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Fill the buffer with the rows of all members, in order, from buffers of any layout.

        Of a member with more rows than the ring holds, the newest are kept. Batches are drawn as
        from the buffers that the states are of. To be called before functions are captured.
        """
        counts = [min(size, self.capacity) for size in sizes(states)]
        end = max(counts)
        self.set_next(
            [
                self.fill(member, state, slice(end - count, end))
                for member, (state, count) in enumerate(zip(states, counts, strict=True))
            ]
        )
        self.size.copy_(torch.tensor(counts).unsqueeze(1))
        self.position.fill_(end % self.capacity)

    def fill(self, member: int, state: Mapping[str, Any], rows: slice) -> Filled:
        """Store a member's newest rows, all but their next observations, at `rows` of the ring."""
        dropped = state["outcome"].shape[0] - (rows.stop - rows.start)
        rings = {"state_action": self.state_action, "outcome": self.outcome}
        if self.policy_action is not self.action:
            rings["policy_action"] = self.policy_action
        for name, ring in rings.items():
            if name in state:
                ring[member, rows] = torch.from_numpy(whole(state[name])[dropped:]).to(ring.device)
            else:  # its distance needs none, but that of another member does
                ring[member, rows] = self.action[member, rows]
        breaks, observations = (
            torch.from_numpy(part).to(self.size.device) for part in read_breaks(state, dropped)
        )
        return Filled(rows, breaks, observations)

    def cut_newest(self, member: int) -> None:
        """Mark a member's newest row as truncated, since its episode is not gone on with.

        Nothing changes where the episode ended at this row, or where there is none.
        """
        newest = (int(self.position) - 1) % self.capacity
        if not int(self.size[member]) or not bool(self.not_done[member, newest]):
            return
        self.not_done[member, newest] = 0.0
        self.keep_next_of_newest(member)
