"""The interface of a batch of environments: one per member, stepped together for a device.

Not an environment itself: ``gymnasium`` steps any Gymnasium environment, ``navigation_batch``
computes the 2-D navigation tasks in torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from dstrl_cli.envs.specs import EnvSpec
from dstrl_cli.envs.state import EnvState
from dstrl_cli.errors import DstrlError

Active = Sequence[bool] | np.ndarray | torch.Tensor


class Outcome(NamedTuple):
    """How a step went, on the host: to follow episodes without reading the device."""

    reward: np.ndarray  # [N] float32
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool


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
    host: Outcome | None = None  # the same numbers where the host computed them; may share memory


class BatchEnv(ABC):
    """N environments of one specification that reset themselves when an episode ends.

    An environment that raises, returns a number that is not finite, or loses its process is
    frozen until the next ``reset`` or ``set_state``: it stays at its last finite observation, with
    reward 0 and no end, and the others go on.

    Attributes:
        on_device: whether steps are computed on the device and tell the host nothing.
        failures: why environments are frozen: their index, and a sentence that names them.
    """

    on_device: ClassVar[bool] = False
    failures: dict[int, str]

    def __init__(self, spec: EnvSpec, num_envs: int, device: torch.device) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.device = device
        self.failures = {}

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Seed every environment anew (one seed each) and return first observations [N, obs].

        An environment whose reset fails is frozen at an observation of zeros.
        """

    @abstractmethod
    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Act in every environment.

        Args:
            actions: [N, act] in [-1, 1], scaled here to the environment's bounds.
            active: which environments to step; the others, and those that are frozen, stay where
                they are and return their last observation, reward 0 and no end.
        """

    @abstractmethod
    def get_state(self) -> list[EnvState]:
        """Return everything that the further course of each environment depends on.

        Raises:
            DstrlError: an environment keeps something that cannot be read, or lost its process.
        """

    @abstractmethod
    def set_state(self, states: Sequence[EnvState]) -> torch.Tensor:
        """Continue from states, one each, that environments of this specification were in.

        Returns:
            The observations [N, obs] to act on next.

        Raises:
            DstrlError: as ``get_state``.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the environments hold; closing twice is allowed."""

    def check(self) -> None:
        """Raise the first failure as a ``DstrlError``: for callers who need every environment."""
        if self.failures:
            raise DstrlError(next(iter(self.failures.values())))


def action_scale(spec: EnvSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle and half the width of the action bounds, float32 [act] each."""
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
