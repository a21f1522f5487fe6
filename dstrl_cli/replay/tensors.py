"""Storing and sampling by torch operations, on any device: what `paired` and `once` share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.nsteps import nstep_return


class TensorReplay(Replay):
    """A ring buffer that is written and read by torch operations; see `Replay`.

    A layout says where next observations are stored, and where they are found.
    """

    @abstractmethod
    def store_next(self, next_observation: Tensor, truncated: Tensor, ended: Tensor) -> None:
        """Store the next observation [P, obs] of the row at `position`.

        Args:
            next_observation: where the action led, at the end of an episode too.
            truncated: whether the episode was cut off [P].
            ended: whether it was cut off or terminated [P].
        """

    @abstractmethod
    def next_of(self, rows: Tensor) -> Tensor:
        """Return the next observations of flat rows [P, ...] as [P, ..., obs]."""

    @override
    def add(self, transition: Transition) -> None:
        observation, action, reward, next_observation, terminated, truncated, _ = transition
        ended = terminated | truncated
        self.write(self.state_action, torch.cat((observation, action), dim=-1))
        self.store_next(next_observation, truncated, ended)
        self.write(self.outcome, torch.stack((reward, ~terminated, ~ended), dim=-1))
        if transition.policy_action is not None and self.policy_action is not self.action:
            self.write(self.policy_action, transition.policy_action)
        self.position.add_(1).remainder_(self.capacity)
        self.size.add_(1).clamp_(max=self.capacity)

    def write(self, ring: Tensor, row: Tensor) -> None:
        """Write a row [P, size] of every member at the common position."""
        ring.index_copy_(1, self.position, row.unsqueeze(1))

    @override
    def sample(self, numbers: Tensor, nstep: Tensor, max_nstep: int) -> Batch:
        if max_nstep == 1:
            return self.sample_single(numbers)
        nstep = torch.minimum(nstep, self.size)
        first = (numbers * (self.size - nstep + 1)).long()
        step = self.steps[:max_nstep]
        age = first.unsqueeze(-1) + step  # [P, B, n]
        rows = self.rows(torch.minimum(age, (self.size - 1).unsqueeze(-1)))
        reward, not_terminated, not_done = self.take(self.outcome, rows).unbind(-1)
        result = nstep_return(
            reward, not_terminated, not_done, nstep, self.gamma, self.discounts[:max_nstep]
        )
        path_rows = rows.gather(-1, torch.minimum(step, result.last.unsqueeze(-1)))
        return Batch.of(
            self.observation_size,
            state_action=self.take(self.state_action, rows[..., 0]),
            reward=result.reward,
            discount=result.discount,
            last=result.last,
            path=self.next_of(path_rows).unbind(2),
            path_discount=result.path_discount.unbind(-1),
        )

    def sample_single(self, numbers: Tensor) -> Batch:
        """Return a batch of one-step transitions: the general case's numbers, but faster."""
        rows = self.rows((numbers * self.size).long())
        reward, not_terminated, _ = self.take(self.outcome, rows).unbind(-1)
        discount = self.gamma * not_terminated
        return Batch.of(
            self.observation_size,
            state_action=self.take(self.state_action, rows),
            reward=reward,
            discount=discount,
            last=torch.zeros_like(rows),
            path=(self.next_of(rows),),
            path_discount=(discount,),
        )
