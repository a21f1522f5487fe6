"""One noise-free episode in each environment of a batch: evaluation during and after training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.envs.base import BatchEnv, HostStep, Step

CHECK_EVERY = 50
"""On the device: steps between two checks whether any episode still runs; a check waits for the
device."""

LONGEST_EPISODE = 10_000
"""Steps after which an episode ends where nobody says otherwise (`eval_max_steps`)."""

_COLUMNS = ("returns", "lengths", "success", "cut")


@dataclass(frozen=True)
class Episodes:
    """Episodes in the order of their starts, one entry each.

    Attributes:
        returns: undiscounted, summed in float64 from what the environment gave.
        lengths: steps.
        success: whether the task was solved, as the last step said; NaN where it did not say.
        cut: whether the episode was still running when its time was over.
        first: actions of the first episode in [-1, 1], [steps, act], where they were kept.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    success: NDArray[np.float64]
    cut: NDArray[np.bool_]
    first: NDArray[np.float32] | None = None

    @staticmethod
    def joined(parts: Sequence[Episodes]) -> Episodes:
        """Return the episodes of several batches as one."""
        columns = [[getattr(part, name) for part in parts] for name in _COLUMNS]
        return Episodes(*map(np.concatenate, columns))

    def by_member(self, members: int) -> list[Episodes]:
        """Return the episodes of each of P members, of which all have equally many."""
        parts = [getattr(self, name).reshape(members, -1) for name in _COLUMNS]
        return [Episodes(*rows) for rows in zip(*parts, strict=True)]

    def known_success(self) -> NDArray[np.float64]:
        """Return the success of the episodes that say."""
        return self.success[~np.isnan(self.success)]

    def success_rate(self) -> float | None:
        """Return the mean success of the episodes that say; None where none does."""
        known = self.known_success()
        return float(known.mean()) if len(known) else None


def episodes(
    env: BatchEnv,
    act: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    max_steps: int | None = LONGEST_EPISODE,
    active: NDArray[np.bool_] | None = None,
) -> Episodes:
    """Run one episode in each of the N environments.

    Args:
        env: the environments.
        act: observations [N, obs] to actions [N, act] in [-1, 1].
        seeds: the start of each episode [N].
        max_steps: where an episode ends that the environment has not ended; None: nowhere.
        active: which environments are stepped [N]; None: all. The others have length 0.

    Returns:
        The N episodes. That of an environment that fails ends there, and ``env.failures`` says why.
    """
    observation = env.reset(seeds)
    if env.on_device:
        return _on_device(env, act, observation, max_steps, active)
    running = np.ones(env.num_envs, dtype=bool) if active is None else active.copy()
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
    success = np.full(env.num_envs, np.nan)
    running[list(env.failures)] = False
    for _ in _steps(max_steps):
        if not running.any():
            break
        step = env.step(act(observation), running)
        host = _host(step)
        returns += np.where(running, host.reward, 0.0)
        lengths += running
        success = np.where(running, host.success, success)
        running &= ~host.ended
        running[list(env.failures)] = False
        observation = step.observation
    return Episodes(returns, lengths, success, running)


def _on_device(
    env: BatchEnv,
    act: Callable[[Tensor], Tensor],
    observation: Tensor,
    max_steps: int | None,
    active: NDArray[np.bool_] | None,
) -> Episodes:
    """Run the episodes with results kept on the device: reading them at every step is slow.

    The loop goes on until all episodes have ended; what follows the end of one is not counted.
    Nothing computed on the device says whether its task is solved.
    """
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    if active is not None:
        running = torch.from_numpy(active).to(env.device)
    returns = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
    lengths = torch.zeros_like(returns, dtype=torch.long)
    for number in _steps(max_steps):
        if number % CHECK_EVERY == 0 and not bool(running.any()):
            break
        step = env.step(act(observation), running)
        returns += step.reward
        lengths += running
        running = running & ~step.ended
        observation = step.observation
    unknown = np.full(env.num_envs, np.nan)
    return Episodes(returns.cpu().numpy(), lengths.cpu().numpy(), unknown, running.cpu().numpy())


def _steps(limit: int | None) -> Iterable[int]:
    """Return the numbers of the steps of an episode, from 0; None: without end."""
    return count() if limit is None else range(limit)


def _host(step: Step) -> HostStep:
    """Return the rewards and ends of a step as the host computed them."""
    assert step.host is not None
    return step.host
