"""A batch of sampled transitions, as the algorithms take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.shapes import check


@dataclass(frozen=True)
class Batch:
    """B transitions per member, n-step rewards already summed; made by `Batch.of`.

    Attributes:
        state_action: observation and action side by side [P, B, obs + act].
        observation: [P, B, obs]; action: [P, B, act] in [-1, 1].
        reward: sum of gamma^k r_k over the steps taken [P, B].
        next_observation: observation to bootstrap from [P, B, obs].
        discount: gamma^m after m steps, or 0 where the episode terminated [P, B].
        path: for every step k the observation after it [P, B, obs]; for steps beyond the last one
            taken, the observation after that last one.
        path_discount: gamma^(k+1) where step k was taken and did not terminate, else 0 [P, B].
        last: m - 1, the step whose next observation is bootstrapped from [P, B], integer.
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

    @classmethod
    def of(
        cls,
        observation_size: int,
        state_action: Tensor,
        reward: Tensor,
        discount: Tensor,
        last: Tensor,
        path: Sequence[Tensor],
        path_discount: Sequence[Tensor],
    ) -> Batch:
        """Return the batch of these parts; the other attributes are views of them.

        Raises ValueError where a part has another rank, TypeError where it has another type.
        """
        check("state_action", state_action, "P B obs+act")
        check("path[-1]", path[-1], "P B obs")
        check("reward", reward, "P B")
        check("discount", discount, "P B")
        check("last", last, "P B", torch.int64)
        return cls(
            state_action=state_action,
            observation=state_action[..., :observation_size],
            action=state_action[..., observation_size:],
            reward=reward,
            next_observation=path[-1],
            discount=discount,
            path=path,
            path_discount=path_discount,
            last=last,
        )

    def tensors(self) -> list[Tensor]:
        """Return the parts as one flat list, to be copied to a device; see `from_tensors`."""
        fixed = (self.state_action, self.reward, self.discount, self.last)
        return [*fixed, *self.path, *self.path_discount]

    @staticmethod
    def count_tensors(max_nstep: int) -> int:
        """Return the length of `tensors` of a batch with targets of `max_nstep` steps."""
        return 4 + 2 * max_nstep

    @classmethod
    def from_tensors(cls, tensors: Sequence[Tensor], observation_size: int) -> Batch:
        """Return the batch whose parts `tensors` returned."""
        state_action, reward, discount, last, *rest = tensors
        steps = len(rest) // 2
        return cls.of(
            observation_size, state_action, reward, discount, last, rest[:steps], rest[steps:]
        )
