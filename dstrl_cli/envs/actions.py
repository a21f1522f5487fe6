"""From a policy's actions in [-1, 1] to those of an environment, in the type of its action space.

No torch. `runs.policy.Policy.act` does the same from the bounds in a policy file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.envs.specs import EnvSpec


def action_dtype(spec: EnvSpec) -> np.dtype[Any]:
    """Return the type in which actions are computed: that of the space, or float32 if it is finer.

    Every bound of the space is exactly a number of this type.
    """
    return np.result_type(np.dtype(spec.action_dtype), np.float32)


def action_scale(spec: EnvSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the middle and half the width of the action bounds, [act] each, in `action_dtype`."""
    low, high, dtype = np.array(spec.action_low), np.array(spec.action_high), action_dtype(spec)
    return (low / 2 + high / 2).astype(dtype), (high / 2 - low / 2).astype(dtype)


class ActionScale:
    """Maps actions in [-1, 1] to an environment's bounds: -1 to the lower, 1 to the upper."""

    def __init__(self, spec: EnvSpec) -> None:
        dtype = action_dtype(spec)
        self._middle, self._half = action_scale(spec)
        self._low, self._high = np.array(spec.action_low, dtype), np.array(spec.action_high, dtype)

    def __call__(self, unit: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the actions [..., act] within the bounds, written to `out` where it is given.

        They are clipped, because rounding may pass a bound by a last digit.
        """
        action = np.maximum(self._middle + self._half * unit, self._low, out=out)
        return np.minimum(action, self._high, out=out)  # np.clip takes twice as long
