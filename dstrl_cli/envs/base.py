"""The interface of a batch of environments: one per member, stepped together on a device.

Not an environment itself: ``gymnasium`` steps any Gymnasium environment, ``navigation_batch``
computes the 2-D navigation tasks in torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dstrl_cli.envs.specs import EnvSpec

Active = Sequence[bool] | np.ndarray


class Step(NamedTuple):
    """What one step of N environments returns; every tensor is the caller's to keep.

    ``terminated`` and ``truncated`` are never both true: a fall on exactly the last step counts as
    a time limit, as in the authors' code (sfujim/TD3).
    """

    next_observation: torch.Tensor  # [N, obs] float32: where the action led, at episode ends too
    reward: torch.Tensor  # [N] float32
    terminated: torch.Tensor  # [N] bool
    truncated: torch.Tensor  # [N] bool
    observation: torch.Tensor  # [N, obs] float32: what to act on next, a new start after an end


class BatchEnv(ABC):
    """N environments of one specification that reset themselves when an episode ends."""

    def __init__(self, spec: EnvSpec, num_envs: int, device: torch.device) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.device = device

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Seed every environment anew (one seed each) and return first observations [N, obs]."""

    @abstractmethod
    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Act in every environment.

        Args:
            actions: [N, act] in [-1, 1], scaled here to the environment's bounds.
            active: which environments to step; the others stay where they are and return their
                last observation, reward 0 and no end.

        Raises:
            DstrlError: an environment failed or returned a number that is not finite.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the environments hold; closing twice is allowed."""


def action_scale(spec: EnvSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and half the width of the action bounds, float32 [act] each."""
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
