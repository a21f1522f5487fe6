"""Other physics: MuJoCo environments whose gravity or masses are multiplied by a factor."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from dstrl_cli.errors import InputError

Factors = tuple[tuple[str, float], ...]
"""Names of `FACTORS`, each with the factor."""


def with_physics(env: gymnasium.Env, factors: Factors, name: str) -> gymnasium.Env:
    """Return the environment itself, its physics changed for good.

    Raises InputError where it has no MuJoCo model, or nothing that the factor would change.
    """
    for quantity, factor in factors:
        inner: Any = env.unwrapped
        model = getattr(inner, "model", None)
        mujoco = sys.modules.get("mujoco")  # imported by every environment that has such a model
        if mujoco is None or not isinstance(model, mujoco.MjModel):
            raise InputError(
                f"{quantity} = {factor:g}: env '{name}' is no MuJoCo task, so that its {quantity} "
                "cannot be changed"
            )
        FACTORS[quantity](model, factor, name)
        # Inertias of subtrees and the softness of contacts follow from masses.
        mujoco.mj_setConst(model, inner.data)
    return env


def _gravity(model: Any, factor: float, name: str) -> None:
    """Multiply the acceleration of gravity."""
    if not model.opt.gravity.any():
        raise InputError(f"gravity = {factor:g}: env '{name}' has no gravity that it would change")
    model.opt.gravity[:] *= factor


def _mass(model: Any, factor: float, name: str) -> None:
    """Multiply the masses and inertias of all bodies: their densities."""
    model.body_mass[:] *= factor
    model.body_inertia[:] *= factor


FACTORS: Mapping[str, Callable[[Any, float, str], None]] = {"gravity": _gravity, "mass": _mass}
