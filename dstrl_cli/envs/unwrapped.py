"""Steps of Gymnasium's and dstrl's own environments without the wrappers around them.

Gymnasium wraps every environment in `OrderEnforcing`, which checks that it was reset, and in
`TimeLimit`, which counts. Both do their work at every step through two more calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
from gymnasium.wrappers import OrderEnforcing, TimeLimit

StepFunction = Callable[[Any], tuple[Any, Any, Any, Any, Any]]


def step_function(env: gymnasium.Env) -> StepFunction:
    """Return what steps an environment that was reset: the same numbers as `env.step`, sooner.

    That is `env.step` itself unless exactly those two wrappers, as Gymnasium made them, are around
    the environment.
    """
    if type(env) is not TimeLimit or type(env.env) is not OrderEnforcing:
        return env.step
    limit, inner, last = env, env.env.env, env._max_episode_steps
    if isinstance(inner, gymnasium.Wrapper):
        return env.step

    def step(action: Any) -> tuple[Any, Any, Any, Any, Any]:
        observation, reward, terminated, truncated, info = inner.step(action)
        elapsed = limit._elapsed_steps = limit._elapsed_steps + 1
        return observation, reward, terminated, truncated or elapsed >= last, info

    return step
