"""One noise-free episode in each environment of a batch: evaluation during and after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.envs.base import BatchEnv, Step

CHECK_EVERY = 50
"""On the device: steps between two checks whether any episode still runs; a check waits for the
device."""

LONGEST_EPISODE = 10_000
"""Steps after which an episode ends where the environment itself sets no time limit."""


def episodes(
    env: BatchEnv,
    act: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    active: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Run one episode in each of the N environments.

    Args:
        env: the environments.
        act: observations [N, obs] to actions [N, act] in [-1, 1].
        seeds: the start of each episode [N].
        active: which environments are stepped [N]; None: all. The others have length 0.

    Returns:
        Undiscounted returns and lengths [N]. The episode of an environment that fails ends there,
        and ``env.failures`` says why.
    """
    limit = env.spec.time_limit or LONGEST_EPISODE
    observation = env.reset(seeds)
    if env.on_device:
        return _on_device(env, act, observation, limit, active)
    running = np.ones(env.num_envs, dtype=bool) if active is None else active.copy()
    returns, lengths = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
    running[list(env.failures)] = False
    while running.any() and lengths.max() < limit:
        step = env.step(act(observation), running)
        reward, ended = _host(step)
        returns += np.where(running, reward, 0.0)
        lengths += running
        running &= ~ended
        running[list(env.failures)] = False
        observation = step.observation
    return returns, lengths


def _on_device(
    env: BatchEnv,
    act: Callable[[Tensor], Tensor],
    observation: Tensor,
    limit: int,
    active: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Run the episodes with results kept on the device: reading them at every step is slow.

    The loop goes on until all episodes have ended; what follows the end of one is not counted.
    """
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    if active is not None:
        running = torch.from_numpy(active).to(env.device)
    returns = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
    lengths = torch.zeros_like(returns, dtype=torch.long)
    for count in range(limit):
        if count % CHECK_EVERY == 0 and not bool(running.any()):
            break
        step = env.step(act(observation), running)
        returns += step.reward
        lengths += running
        running = running & ~step.ended
        observation = step.observation
    return returns.cpu().numpy(), lengths.cpu().numpy()


def _host(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Return the rewards of a step and which episodes it ended [N], as the host computed them."""
    assert step.host is not None
    return step.host.reward, step.host.ended
