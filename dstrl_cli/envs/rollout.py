"""One noise-free episode in each environment of a batch: evaluation during and after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from dstrl_cli.envs.base import BatchEnv, Step

LONGEST_EPISODE = 10_000
"""Steps after which an episode ends where the environment itself sets no time limit."""


def episodes(
    env: BatchEnv, act: Callable[[torch.Tensor], torch.Tensor], seeds: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Run one episode in each of the N environments.

    Args:
        env: the environments.
        act: observations [N, obs] to actions [N, act] in [-1, 1].
        seeds: the start of each episode [N].

    Returns:
        Undiscounted returns and lengths [N]; an environment that fails (``env.failures``) ends
        where it failed.
    """
    limit = env.spec.time_limit or LONGEST_EPISODE
    observation = env.reset(seeds)
    running = np.ones(env.num_envs, dtype=bool)
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


def _host(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Return a step's rewards and ends [N], from the device only where the host has none."""
    if step.host is not None:
        return step.host.reward, step.host.terminated | step.host.truncated
    return step.reward.cpu().numpy(), (step.terminated | step.truncated).cpu().numpy()
