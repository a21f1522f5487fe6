"""Which observation and action spaces the algorithms take, and what to do about the others."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Tuple

from dstrl_cli.errors import InputError

_CONTINUOUS = (
    "choose an environment with continuous actions (some have an argument for them, as in "
    "--set env.kwargs.continuous=true)"
)


def check_spaces(env: gymnasium.Env, name: str) -> tuple[Box, Box]:
    """Return the observation and the action space of an environment.

    Raises InputError, with a remedy, unless both are vectors and the actions bounded and
    continuous.
    """
    found = []
    for which in ("observation_space", "action_space"):
        space = getattr(env, which, None)
        if not isinstance(space, gymnasium.Space):
            raise InputError(
                f"env '{name}': its {which} is {space!r}, not a space of Gymnasium; set it in the "
                "environment's constructor"
            )
        found.append(space)
    observation, action = found
    _check_vector(action, f"env '{name}': actions", _action_remedy(action))
    if not np.issubdtype(action.dtype, np.floating):
        raise InputError(f"env '{name}': actions are integers ({action.dtype}); {_CONTINUOUS}")
    _check_vector(observation, f"env '{name}': observations", _observation_remedy(observation))
    if not action.is_bounded("both"):
        raise InputError(
            f"env '{name}': actions are unbounded; register it with finite bounds, for example "
            "through gymnasium.wrappers.TransformAction"
        )
    return observation, action


def _check_vector(space: gymnasium.Space, what: str, remedy: str) -> None:
    """Raise, with the remedy, unless the space is a box of one dimension."""
    if not isinstance(space, Box):
        raise InputError(f"{what} are {type(space).__name__}, but a flat Box is needed; {remedy}")
    if len(space.shape) != 1 or space.shape[0] == 0:
        raise InputError(f"{what} have shape {space.shape}, but a flat vector is needed; {remedy}")


def _observation_remedy(space: gymnasium.Space) -> str:
    if not space.is_np_flattenable:
        return "choose an environment whose observations are vectors"
    return "make vectors of them with --set env.flatten=true (Gymnasium's FlattenObservation)"


def _action_remedy(space: gymnasium.Space) -> str:
    if not isinstance(space, Box | Dict | Tuple):
        return _CONTINUOUS
    return (
        "register the environment through gymnasium.wrappers.TransformAction with a flat Box as "
        "its action space"
    )
