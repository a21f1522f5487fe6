"""The interface of a batch of environments: one per member, all stepped by one call.

Two classes implement it: `gymnasium.GymnasiumBatch` steps any Gymnasium environment, and
`tasks.navigation_batch.NavigationBatch` computes the 2-D navigation tasks in torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from dstrl_cli.envs.specs import EnvSpec
from dstrl_cli.envs.state import EnvState
from dstrl_cli.errors import DstrlError

Active = Sequence[bool] | np.ndarray | torch.Tensor


class HostStep(NamedTuple):
    """Rewards and ends of a step as NumPy arrays: reading them does not wait for the device."""

    reward: np.ndarray  # [N] float64: as the environment gave it, where `Step.reward` is rounded
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    success: np.ndarray  # [N] float64: whether the task is solved; NaN where that is not known

    @property
    def ended(self) -> np.ndarray:
        """Whether the episode ended, in either way: [N] bool."""
        return self.terminated | self.truncated


class Step(NamedTuple):
    """What one step of N environments returns; the caller may change every tensor.

    `terminated` and `truncated` are never both true. An environment that terminates at exactly its
    time limit counts as terminated, unless the batch lets the time limit win (`BatchEnv`).
    """

    next_observation: torch.Tensor  # [N, obs] float32: where the action led, at episode ends too
    reward: torch.Tensor  # [N] float32
    terminated: torch.Tensor  # [N] bool
    truncated: torch.Tensor  # [N] bool
    observation: torch.Tensor  # [N, obs] float32: what to act on next, a new start after an end
    host: HostStep | None = None  # the same rewards and ends where the CPU computed them

    @property
    def ended(self) -> torch.Tensor:
        """Whether the episode ended, in either way: [N] bool."""
        return self.terminated | self.truncated


class BatchEnv(ABC):
    """N environments of one specification; each is reset automatically when its episode ends.

    An environment that raises an exception, returns a number that is not finite, or whose worker
    process dies is frozen until the next `reset` or `set_state`: it keeps returning its last finite
    observation with reward 0, and its episode does not end. The other environments go on.

    Attributes:
        on_device: whether steps are computed on the device, so that `Step.host` is None.
        failures: the frozen environments: index to a sentence that says what happened.
        limit_wins: [N] bool, which environments count as truncated where an episode terminates at
            exactly its time limit, as in the authors' code (sfujim/TD3); none by default.
    """

    on_device: ClassVar[bool] = False
    failures: dict[int, str]
    limit_wins: torch.Tensor

    def __init__(self, spec: EnvSpec, num_envs: int, device: torch.device) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.device = device
        self.failures = {}
        self.limit_wins = torch.zeros(num_envs, dtype=torch.bool, device=device)

    @abstractmethod
    def reset(self, seeds: Sequence[int]) -> torch.Tensor:
        """Reset every environment with its own seed [N]; return the first observations [N, obs].

        An environment whose reset fails is frozen at an observation of zeros.
        """

    @abstractmethod
    def step(self, actions: torch.Tensor, active: Active | None = None) -> Step:
        """Act in every environment.

        Args:
            actions: [N, act] in [-1, 1], scaled here to the environment's bounds.
            active: [N] bool, which environments to step (None: all). The others, and those that
                are frozen, do not move: they return their last observation and reward 0, and their
                episodes do not end.
        """

    @abstractmethod
    def read_states(self) -> list[EnvState | DstrlError]:
        """Return the state of every environment: all that its next steps depend on.

        Where an environment keeps something that cannot be read, or its worker process has died,
        the error that says so is in its place.
        """

    @abstractmethod
    def set_state(self, states: Sequence[EnvState | None]) -> torch.Tensor:
        """Put every environment into a state [N] that an environment of this specification had.

        An environment stays as it is where its state is None.

        Returns:
            The observations [N, obs] to act on next.

        Raises:
            DstrlError: an environment keeps something that cannot be set, or its worker process
                has died.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the environments hold; closing twice is allowed."""

    def worker_generators(self) -> list[dict[str, Any] | None]:
        """Return the states of the global generators of each worker process, where there are any.

        Environments may draw from them (`calls.global_generators`). None: the process cannot start.
        """
        return []

    def set_worker_generators(self, states: Sequence[Mapping[str, Any] | None]) -> None:  # noqa: B027
        """Put the global generators of the worker processes into the states that they had.

        Those of a process without a state stay as they are.
        """

    def get_state(self) -> list[EnvState]:
        """Return `read_states` for callers who need every environment; raise its first error."""
        states = []
        for state in self.read_states():
            if isinstance(state, DstrlError):
                raise state
            states.append(state)
        return states

    def check(self) -> None:
        """Raise the first failure as a `DstrlError`, for callers who need every environment."""
        if self.failures:
            raise DstrlError(next(iter(self.failures.values())))
