"""The replay buffer of a population: a ring `[P, capacity, ...]` on the training device.

All members write at the same position; how far back a member's valid range reaches is its own
(`size`), which is all that a dynamic capacity needs. Position and sizes are tensors that change in
place, so that storing and sampling read nothing from the host and can be captured. Sampling sums
n-step rewards exactly: it stops at terminations (no bootstrap) and at time limits (bootstrap), and
never crosses the newest transition.

The next observation is stored beside the observation, although the next row mostly repeats it:
nothing bounds how many episodes an environment may cut short, whose last observations stand in no
other row. Where a time limit bounds them, `replay_once` does with half the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.errors import InputError
from dstrl_cli.replay.layout import ring_bytes

MOST_STEPS = 20
"""The largest n of n-step targets."""


@dataclass(frozen=True)
class Batch:
    """B transitions per member, n-step rewards already summed.

    Attributes:
        state_action: observation and action side by side [P, B, obs + act].
        observation: [P, B, obs]; action: [P, B, act] in [-1, 1].
        reward: sum of gamma^k r_k over the steps taken [P, B].
        next_observation: observation to bootstrap from [P, B, obs].
        discount: gamma^m, or 0 where the episode terminated [P, B].
        path: the next observation of every step k, each [P, B, obs]; past the last step, its own.
        path_discount: gamma^(k+1) where step k was taken and did not terminate, else 0 [P, B].
        last: step whose next observation is bootstrapped from [P, B], integer.
    """

    state_action: Tensor
    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    discount: Tensor
    path: Sequence[Tensor]
    path_discount: Sequence[Tensor]
    last: Tensor

    def tensors(self) -> list[Tensor]:
        """Return everything that is no view of something else; see `of`."""
        flat = (self.state_action, self.reward, self.next_observation, self.discount, self.last)
        return [*flat, *self.path, *self.path_discount]

    @staticmethod
    def parts(max_nstep: int) -> int:
        """Return how many `tensors` a batch with targets of `max_nstep` steps has."""
        return 5 + 2 * max_nstep

    @classmethod
    def of(cls, tensors: Sequence[Tensor], observation_size: int) -> Batch:
        """Return the batch of these `tensors`."""
        state_action, reward, next_observation, discount, last, *rest = tensors
        return cls(
            state_action=state_action,
            observation=state_action[..., :observation_size],
            action=state_action[..., observation_size:],
            reward=reward,
            next_observation=next_observation,
            discount=discount,
            path=rest[: len(rest) // 2],
            path_discount=rest[len(rest) // 2 :],
            last=last,
        )


def check_memory(needed: int, free: int, members: int, capacity: int, device: str) -> None:
    """Raise InputError, with the sizes, where a ring of `needed` bytes would not fit."""
    if needed <= free:
        return
    raise InputError(
        f"buffer_size: the replay of {members} members x {capacity:,} transitions needs "
        f"{needed / 1e9:.1f} GB, and {device} has {free / 1e9:.1f} GB free; train fewer members at "
        "once (--members-per-device), lower buffer_size, or keep it on the host "
        "(--set replay_device=cpu)"
    )


class Replay:
    """Ring buffer for P members.

    Args:
        members: P.
        capacity: transitions that the ring holds.
        observation_size, action_size: sizes of one row.
        gamma: discount factor.
        device: torch device.
        policy_actions: also keep the noise-free action of the policy at the time, which the
            authors' policy distance compares with.

    Raises:
        InputError: the accelerator has too little memory.
    """

    time_limit: int | None = None

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
        def ring(size: int) -> Tensor:
            return torch.empty(members, capacity, size, device=device)

        if torch.device(device).type == "cuda":
            needed = members * ring_bytes(
                capacity, observation_size, action_size, policy_actions, self.time_limit
            )
            check_memory(needed, torch.cuda.mem_get_info(device)[0], members, capacity, device)
        self.capacity, self.gamma = capacity, gamma
        # observation and action lie side by side, as the critics read them
        self.state_action = ring(observation_size + action_size)
        self.observation = self.state_action[..., :observation_size]
        self.action = self.state_action[..., observation_size:]
        self.policy_action = ring(action_size) if policy_actions else self.action
        self.outcome = ring(3)  # read together: reward; 1 unless terminated; 1 unless ended
        self.reward, self.not_terminated, self.not_done = self.outcome.unbind(-1)
        self.size = torch.zeros(members, 1, dtype=torch.long, device=device)
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        steps = torch.arange(MOST_STEPS, device=device)
        self.powers = ((gamma**steps).float(), steps)  # gamma^k and k
        self.first_row = torch.arange(members, device=device).unsqueeze(1) * capacity  # [P, 1]
        self.make_next()

    def make_next(self) -> None:
        """Make room for what follows the observations."""
        self.next_observation = torch.empty_like(
            self.observation, memory_format=torch.contiguous_format
        )

    def store_next(self, next_observation: Tensor, terminated: Tensor, truncated: Tensor) -> None:
        """Store what follows the row that is being written."""
        self.write(self.next_observation, next_observation)

    def faults(self) -> dict[int, str]:
        """Return the members whose transitions could not be kept, and why; read it rarely."""
        return {}

    def next_of(self, rows: Tensor) -> Tensor:
        """Return the observations after flat rows [P, ...] as [P, ..., obs]."""
        return self.take(self.next_observation, rows)

    def add(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        next_observation: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        policy_action: Tensor | None = None,
    ) -> None:
        """Store one transition of every member, each argument `[P, ...]`."""
        outcome = torch.stack((reward, ~terminated, ~(terminated | truncated)), dim=-1)
        self.write(self.state_action, torch.cat((observation, action), dim=-1))
        self.store_next(next_observation, terminated, truncated)
        self.write(self.outcome, outcome)
        if policy_action is not None and self.policy_action is not self.action:
            self.write(self.policy_action, policy_action)
        self.position.add_(1).remainder_(self.capacity)
        self.size.add_(1).clamp_(max=self.capacity)

    def write(self, ring: Tensor, row: Tensor) -> None:
        """Write a row [P, size] of every member at the common position."""
        ring.index_copy_(1, self.position, row.unsqueeze(1))

    def limit(self, largest: Tensor) -> None:
        """Forget the oldest transitions beyond `largest` [P] of each member."""
        torch.minimum(self.size, largest.unsqueeze(1), out=self.size)

    def rows(self, age: Tensor) -> Tensor:
        """Return flat row numbers of the `age`-th oldest valid transitions [P, ...]."""
        column = (len(self.size),) + (1,) * (age.dim() - 1)
        start = (self.position - self.size).view(column)
        return (start + age) % self.capacity + self.first_row.view(column)

    def take(self, ring: Tensor, rows: Tensor) -> Tensor:
        """Return rows [P, ...] of a ring as [P, ..., size]."""
        return ring.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, -1)

    def sample(self, numbers: Tensor, nstep: Tensor, max_nstep: int) -> Batch:
        """Return a batch of n-step transitions, uniform over the starts with n steps ahead.

        Args:
            numbers: uniform in [0, 1) [P, B], float64.
            nstep: n of each member [P, 1].
            max_nstep: the largest n.
        """
        if max_nstep == 1:
            return self.sample_single(numbers)
        nstep = torch.minimum(nstep, self.size)
        first = (numbers * (self.size - nstep + 1)).long()
        step = self.powers[1][:max_nstep]
        age = first.unsqueeze(-1) + step  # [P, B, n]
        rows = self.rows(torch.minimum(age, (self.size - 1).unsqueeze(-1)))
        reward, not_terminated, not_done = self.take(self.outcome, rows).unbind(-1)
        taken = (step < nstep.unsqueeze(-1)).to(reward.dtype).expand_as(reward)
        before = torch.cat((torch.ones_like(not_terminated[..., :1]), not_done[..., :-1]), dim=-1)
        taken = taken * before.cumprod(-1)
        weight = self.powers[0][:max_nstep] * taken  # gamma^k where step k is taken
        path_discount = self.gamma * weight * not_terminated
        last = taken.sum(-1, keepdim=True).long() - 1
        path_rows = rows.gather(-1, torch.minimum(step, last))
        path = self.next_of(path_rows).unbind(2)
        state_action = self.take(self.state_action, rows[..., 0])
        return Batch(
            state_action=state_action,
            observation=state_action[..., : self.observation.shape[-1]],
            action=state_action[..., self.observation.shape[-1] :],
            reward=(weight * reward).sum(-1),
            next_observation=path[-1],
            discount=path_discount.gather(-1, last).squeeze(-1),
            path=path,
            path_discount=path_discount.unbind(-1),
            last=last.squeeze(-1),
        )

    def sample_single(self, numbers: Tensor) -> Batch:
        """Return a batch of one-step transitions: what `sample` returns for n = 1, in less time."""
        rows = self.rows((numbers * self.size).long())
        state_action = self.take(self.state_action, rows)
        reward, not_terminated, _ = self.take(self.outcome, rows).unbind(-1)
        following, discount = self.next_of(rows), self.gamma * not_terminated
        return Batch(
            state_action=state_action,
            observation=state_action[..., : self.observation.shape[-1]],
            action=state_action[..., self.observation.shape[-1] :],
            reward=reward,
            next_observation=following,
            discount=discount,
            path=(following,),
            path_discount=(discount,),
            last=torch.zeros_like(rows),
        )

    def oldest(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return observation, action and policy action of the `count` oldest, [P, count, ...].

        Where a member holds fewer, its newest fill up.
        """
        age = torch.arange(count, device=self.size.device).expand(len(self.size), -1)
        rows = self.rows(torch.minimum(age, self.size - 1))
        return (
            self.take(self.observation, rows),
            self.take(self.action, rows),
            self.take(self.policy_action, rows),
        )

    def drop_oldest(self, members: Tensor, share: float) -> None:
        """Forget int(share * size) of the oldest transitions of the marked members [P]."""
        count = (share * self.size.squeeze(1).double()).floor().long()
        self.size.sub_(torch.where(members, count, 0).unsqueeze(1))


def mean_squared_distance(now: Tensor, action: Tensor, policy_action: Tensor) -> Tensor:
    """Return half the mean square of pi(s) - pi_old(s) over batch and action entries [P].

    RLX's code; all arguments are [P, B, act] in [-1, 1], `policy_action` without noise.
    """
    return 0.5 * (now - policy_action).square().mean((-2, -1))


def l2_distance(now: Tensor, action: Tensor, policy_action: Tensor) -> Tensor:
    """Return the mean of ||pi(s) - a|| over the batch [P] (RLX eq. 8)."""
    return (now - action).norm(dim=-1).mean(-1)


DISTANCES = {"mean_squared": mean_squared_distance, "l2": l2_distance}
