"""Noisy features: an environment whose observations end with features that say nothing.

The extremely noisy environments of Grooten et al. 2023 (arXiv 2302.06548). Their noise is drawn
anew in every forward pass; here once a step, as a part of the observation, so that it is stored
and every network sees the same.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from dstrl_cli.errors import InputError

KEY = "env.noise_features"

MOST = 1_000_000
"""Entries of an observation: more are a mistake."""

STREAM = 0x6E6F697365
"""Keeps the noise apart from what an environment itself draws from the same seed."""


def observed_size(size: int, share: float) -> int:
    """Return the entries of an observation of which `share` is noise, and `size` is not.

    Rounded up, as in the authors' code: in floating point 17 / (1 - 0.9) is a little above 170.
    """
    return math.ceil(size / (1.0 - share))


class NoiseFeatures(gymnasium.Wrapper):
    """Appends standard normal numbers to the vectors that an environment observes.

    Args:
        env: the environment; its observations are vectors.
        share: of the new observation that is noise, in (0, 1).

    Attributes:
        noise: the generator of the noise. A reset with a seed begins it anew; nothing else that the
            environment draws depends on it.
    """

    def __init__(self, env: gymnasium.Env, share: float) -> None:
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, Box)
        self.count = observed_size(space.shape[0], share) - space.shape[0]
        self.noise = np.random.default_rng()
        self.dtype = np.result_type(space.dtype, np.float32)
        unbounded = np.full(self.count, np.inf, self.dtype)
        self.observation_space = Box(
            np.concatenate([space.low.astype(self.dtype), -unbounded]),
            np.concatenate([space.high.astype(self.dtype), unbounded]),
            dtype=self.dtype.type,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment; see `gymnasium.Env.reset`."""
        if seed is not None:
            self.noise = np.random.default_rng([STREAM, seed])
        started = self.env.reset(seed=seed, options=options)
        if not isinstance(started, tuple) or len(started) != 2:
            return started  # for `contract` to refuse
        return self.with_noise(started[0]), started[1]

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; see `gymnasium.Env.step`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self.with_noise(observation), reward, terminated, truncated, info

    def with_noise(self, observation: Any) -> NDArray[Any]:
        """Return an observation [obs] followed by new noise."""
        drawn = self.noise.standard_normal(self.count).astype(self.dtype)
        return np.concatenate([np.asarray(observation), drawn])


def with_noise(env: gymnasium.Env, share: float, name: str) -> gymnasium.Env:
    """Return an environment with a share of noisy features; itself where the share is 0.

    Raises InputError where that makes no sense.
    """
    if share == 0:
        return env
    space = env.observation_space
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(
            f"{KEY} = {share:g}: noise is added to observations that are vectors, and those of "
            f"'{name}' are not; make vectors of them with --set env.flatten=true"
        )
    size = observed_size(space.shape[0], share)
    if size > MOST:
        raise InputError(
            f"{KEY} = {share:.10g}: an observation of '{name}' would have {size:,} entries, of "
            f"which {space.shape[0]:,} say something; lower {KEY}"
        )
    return NoiseFeatures(env, share)
