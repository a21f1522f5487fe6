"""The replay buffer of a population: a ring `[P, capacity, ...]` on the training device.

All members write at the same position; how far back a member's valid range reaches is its own
(`size`), which is all that a dynamic capacity needs. Sampling sums n-step rewards exactly: it
stops at terminations (no bootstrap) and at time limits (bootstrap), and never crosses the newest
transition.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B transitions per member, n-step rewards already summed.

    Attributes:
        observation: [P, B, obs]; action: [P, B, act] in [-1, 1].
        reward: sum of gamma^k r_k over the steps taken [P, B].
        next_observation: observation to bootstrap from [P, B, obs].
        discount: gamma^m, or 0 where the episode terminated [P, B].
        path: the next observation of every step k, each [P, B, obs].
        path_discount: gamma^(k+1) where step k was taken and did not terminate, else 0 [P, B].
        last: step whose next observation is bootstrapped from [P, B], integer.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    discount: Tensor
    path: list[Tensor]
    path_discount: list[Tensor]
    last: Tensor


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
        def ring(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(members, capacity, *shape, device=device, dtype=dtype)

        self.capacity, self.gamma = capacity, gamma
        self.observation, self.next_observation = ring(observation_size), ring(observation_size)
        self.action = ring(action_size)
        self.policy_action = ring(action_size) if policy_actions else self.action
        self.reward = ring()
        self.terminated, self.ended = ring(dtype=torch.bool), ring(dtype=torch.bool)
        self.size = torch.zeros(members, 1, dtype=torch.long, device=device)
        self.position = 0
        self.first_row = torch.arange(members, device=device).unsqueeze(1) * capacity  # [P, 1]

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
        at = self.position
        self.observation[:, at] = observation
        self.action[:, at] = action
        self.reward[:, at] = reward
        self.next_observation[:, at] = next_observation
        self.terminated[:, at] = terminated
        self.ended[:, at] = terminated | truncated
        if policy_action is not None and self.policy_action is not self.action:
            self.policy_action[:, at] = policy_action
        self.position = (at + 1) % self.capacity
        self.size.add_(1).clamp_(max=self.capacity)

    def limit(self, largest: Tensor) -> None:
        """Forget the oldest transitions beyond `largest` [P] of each member."""
        torch.minimum(self.size, largest.unsqueeze(1), out=self.size)

    def rows(self, age: Tensor) -> Tensor:
        """Return flat row numbers of the `age`-th oldest valid transitions [P, B]."""
        return (self.position - self.size + age) % self.capacity + self.first_row

    def take(self, ring: Tensor, rows: Tensor) -> Tensor:
        """Return rows [P, B] of a ring as [P, B, ...]."""
        return ring.flatten(0, 1).index_select(0, rows.flatten()).view(*rows.shape, *ring.shape[2:])

    def sample(self, numbers: Tensor, nstep: Tensor, most: int) -> Batch:
        """Return a batch of n-step transitions, uniform over the starts with n steps ahead.

        Args:
            numbers: uniform in [0, 1) [P, B], float64.
            nstep: n of each member [P, 1].
            most: the largest n.
        """
        starts = (self.size - nstep + 1).clamp_(min=1)
        age = (numbers * starts).long()
        first = self.rows(age)
        reward = self.take(self.reward, first)
        live = self.gamma * (~self.take(self.terminated, first)).to(reward.dtype)
        discount, rows, last = live, first, torch.zeros_like(age)
        path_rows, path_discount = [first], [live]
        taken = torch.ones_like(age, dtype=torch.bool)
        for k in range(1, most):
            ended = self.take(self.ended, rows)
            taken = taken & ~ended & (k < nstep) & (age + k < self.size)
            rows = torch.where(taken, self.rows(age + k), rows)
            step = taken.to(reward.dtype)
            reward = reward + self.gamma**k * self.take(self.reward, rows) * step
            live = self.gamma ** (k + 1) * (~self.take(self.terminated, rows)).to(reward.dtype)
            discount = torch.where(taken, live, discount)
            last = torch.where(taken, k, last)
            path_rows.append(rows)
            path_discount.append(live * step)
        path = [self.take(self.next_observation, step_rows) for step_rows in path_rows]
        return Batch(
            observation=self.take(self.observation, first),
            action=self.take(self.action, first),
            reward=reward,
            next_observation=path[-1],
            discount=discount,
            path=path,
            path_discount=path_discount,
            last=last,
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
