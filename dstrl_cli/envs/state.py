"""The state of an environment, read and set as plain data: all that its next steps depend on.

Plain data (numbers, strings, arrays) so that a checkpoint needs no pickle. MuJoCo's tasks, dstrl's
own, and environments whose attributes are plain values, such as classic control, are supported; for
others the error names the attribute or wrapper that is not. No torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from dstrl_cli.envs.noise import NoiseFeatures
from dstrl_cli.errors import DstrlError


@dataclass(frozen=True)
class EnvState:
    """One environment between two steps.

    Attributes:
        observation: what to act on next, float32 [obs].
        elapsed: steps of the current episode, as the time limit counts them.
        random: the state of the environment's bit generator as NumPy gives it; None if it has none.
        fields: the attributes of the environment that are plain values, by name.
        physics: MuJoCo's numbers by name, float64; empty for other environments.
        noise: the state of the generator of noisy features; None where there are none.
    """

    observation: np.ndarray
    elapsed: int
    random: dict[str, Any] | None
    fields: dict[str, Any]
    physics: dict[str, np.ndarray]
    noise: dict[str, Any] | None = None


# Wrappers that keep nothing between steps, or only what is read below: the step count of the time
# limit, the generator of the noise.
_KNOWN_WRAPPERS = (
    wrappers.TimeLimit,
    wrappers.OrderEnforcing,
    wrappers.PassiveEnvChecker,
    wrappers.ClipAction,
    wrappers.RescaleAction,
    wrappers.TransformAction,
    wrappers.TransformObservation,
    wrappers.FlattenObservation,
    wrappers.RescaleObservation,
    wrappers.DtypeObservation,
    wrappers.TransformReward,
    NoiseFeatures,
)

# Attributes that say how an environment is drawn or was made.
_NOT_STATE = (
    *("render_mode", "metadata", "width", "height", "camera_name", "camera_id"),
    *("fullpath", "observation_structure", "_ezpickle_args", "_ezpickle_kwargs"),
)

# MuJoCo computes these from the integration state *before* the last substep, and tasks read them
# before they step again (Ant's velocity is a difference of `xpos`): recomputing them would differ.
_DERIVED = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos"),
    *("site_xmat", "subtree_com", "subtree_linvel", "subtree_angmom", "cinert", "cvel", "cacc"),
    *("cfrc_int", "cfrc_ext", "qacc", "qfrc_actuator", "qfrc_constraint", "actuator_force"),
    *("actuator_length", "actuator_velocity", "ten_length", "ten_velocity", "sensordata"),
)


def read_state(env: gymnasium.Env, observation: np.ndarray) -> EnvState:
    """Return the state of an environment that was reset, with the observation it last gave.

    Raises:
        DstrlError: it, or one of its wrappers, keeps something that is not plain data.
    """
    time_limit, noise = _time_limit(env), _noise(env)
    inner = env.unwrapped
    generator = inner._np_random
    return EnvState(
        observation.copy(),
        (time_limit._elapsed_steps or 0) if time_limit else 0,
        None if generator is None else deepcopy(generator.bit_generator.state),
        _fields(inner),
        _physics(inner),
        None if noise is None else dict(deepcopy(noise.bit_generator.state)),
    )


def write_state(env: gymnasium.Env, state: EnvState) -> None:
    """Put an environment, made as the one that was read, into a state.

    Raises:
        DstrlError: as `read_state`.
    """
    time_limit = _time_limit(env)
    inner = env.unwrapped
    _fields(inner)  # raises if this environment's state could not have been read
    env.reset()  # wrappers raise if an environment is stepped that was never reset
    if time_limit:
        time_limit._elapsed_steps = state.elapsed
    for name, value in state.fields.items():
        setattr(inner, name, deepcopy(value))
    if state.physics:
        _set_physics(inner, state.physics)
    if state.random is not None:
        inner.np_random.bit_generator.state = state.random
    if (noise := _noise(env)) is not None and state.noise is not None:
        noise.bit_generator.state = state.noise


def _noise(env: gymnasium.Env) -> np.random.Generator | None:
    """Return the generator of the noise that an environment's observations end with."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, NoiseFeatures):
            return env.noise
        env = env.env
    return None


def _time_limit(env: gymnasium.Env) -> wrappers.TimeLimit | None:
    """Return the wrapper that counts steps, or None; raise for a wrapper that may keep a state."""
    found = None
    while isinstance(env, gymnasium.Wrapper):
        if type(env) not in _KNOWN_WRAPPERS:
            raise _refusal(env.unwrapped, f"its wrapper {type(env).__name__} may keep state")
        if isinstance(env, wrappers.TimeLimit):
            found = env
        env = env.env
    return found


def _fields(inner: gymnasium.Env) -> dict[str, Any]:
    """Return copies of an environment's attributes.

    Raises DstrlError for one that is not a plain value, and where two share what they hold: copies
    of theirs would not.
    """
    fields = {}
    for name, value in vars(inner).items():
        if name in _NOT_STATE or value is inner._np_random or _is_constant(value):
            continue
        if not _is_plain(value):
            raise _refusal(inner, f"it keeps a {type(value).__name__} ({name})")
        fields[name] = value
    held: list[Any] = []
    for name, value in fields.items():
        own = list(_changeable(value))
        if any(_share(one, other) for one in own for other in held):
            raise _refusal(inner, f"{name} shares memory with another attribute")
        held += own
    return deepcopy(fields)


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value; not where its class adds something to that of a plain one."""
    if type(value) is dict:
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(_is_plain(item) for item in value)
    if type(value) is np.ndarray:
        return value.dtype.kind in "biuf"
    plain = value is None or type(value) in (bool, int, float, str)
    return plain or isinstance(value, np.number | np.bool_ | np.str_)


def _changeable(value: Any) -> Iterator[Any]:
    """Yield the arrays, lists and mappings that a plain value is or holds."""
    if isinstance(value, np.ndarray | list | dict):
        yield value
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _changeable(item)


def _share(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.may_share_memory(one, other)
    return one is other


def _is_constant(value: Any) -> bool:
    """Return whether a value never changes after construction, or is read by another function.

    Instances of dstrl's own frozen classes are only ever set when an environment is made; another
    author's may be replaced as the environment is stepped.
    """
    if isinstance(value, gymnasium.Space | GymnasiumSpec):
        return True
    author = type(value).__module__.partition(".")[0]
    if author == "mujoco" or _is_renderer(value):
        return True
    dataclass_params = getattr(type(value), "__dataclass_params__", None)
    frozen = dataclass_params is not None and dataclass_params.frozen
    return frozen and author in ("dstrl_cli", "gymnasium")


def _is_renderer(value: Any) -> bool:
    return type(value).__module__ == "gymnasium.envs.mujoco.mujoco_rendering"


def _physics(inner: gymnasium.Env) -> dict[str, np.ndarray]:
    if not _has_physics(inner):
        return {}
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    integration = np.empty(mujoco.mj_stateSize(inner.model, kind))
    mujoco.mj_getState(inner.model, inner.data, integration, kind)
    derived = {name: getattr(inner.data, name).copy() for name in _DERIVED}
    return {"integration": integration} | derived


def _set_physics(inner: gymnasium.Env, physics: dict[str, np.ndarray]) -> None:
    import mujoco

    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    mujoco.mj_setState(inner.model, inner.data, physics["integration"], kind)
    mujoco.mj_forward(inner.model, inner.data)  # recomputes contacts and all else not stored
    mujoco.mj_setState(inner.model, inner.data, physics["integration"], kind)
    for name in _DERIVED:
        getattr(inner.data, name)[:] = physics[name]


def _has_physics(inner: gymnasium.Env) -> bool:
    mujoco = sys.modules.get("mujoco")
    return mujoco is not None and isinstance(getattr(inner, "data", None), mujoco.MjData)


def _refusal(inner: gymnasium.Env, reason: str) -> DstrlError:
    name = inner.spec.id if inner.spec is not None else type(inner).__name__
    return DstrlError(
        f"the state of environment '{name}' cannot be read or set: {reason}; MuJoCo tasks, dstrl's "
        "and those that keep numbers and arrays can"
    )
