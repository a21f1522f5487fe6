"""What dstrl knows of an environment before it runs it, and the one place that makes environments.

An environment is looked up by its id, made once to read its spaces, and refused here, with the
remedy, if its observations or actions are not what the algorithms take. No torch.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box

from dstrl_cli.envs.quiet import log_mujoco_warnings, version_advice_ignored
from dstrl_cli.envs.registration import NAVIGATION_TASKS, PREFIX
from dstrl_cli.envs.tasks.task_sets import check_task
from dstrl_cli.errors import InputError, suggest

_OTHER_CONTINUOUS = ("BipedalWalker-v3", "MountainCarContinuous-v0", "Pendulum-v1")


@dataclass(frozen=True)
class EnvSpec:
    """An environment as the trainer sees it.

    Attributes:
        id: the Gymnasium id that is made (``module:id`` where a module registers it).
        name: the id without ``dstrl/``: the name of its results folder.
        task: which task of a navigation environment's set; None elsewhere.
        observation_size: entries of an observation.
        action_size: entries of an action.
        action_low: lower bounds, one per action entry.
        action_high: upper bounds, one per action entry.
        time_limit: steps after which an episode is truncated; None if never.
    """

    id: str
    name: str
    task: int | None
    observation_size: int
    action_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    time_limit: int | None


def spec(env_id: str, task: int = 0) -> EnvSpec:
    """Look an environment up: Gymnasium's own where it serves the id, else dstrl's.

    Args:
        env_id: an id of Gymnasium's registry, with or without ``dstrl/`` in front; an id that
            another module registers is written ``module:id``.
        task: which task of a navigation environment, 0-9.

    Raises:
        InputError: unknown id, an environment that cannot be made, spaces that are not flat boxes,
            unbounded actions, or a task where there is none.
    """
    check_task(task)
    return _look_up(env_id, task)


def make_env(spec: EnvSpec, **kwargs: Any) -> gymnasium.Env:
    """Make one environment with its time limit, quietly; ``kwargs`` such as ``render_mode``."""
    task = {} if spec.task is None else {"task": spec.task}
    return _make(spec.id, **task, **kwargs)


@cache
def _look_up(env_id: str, task: int) -> EnvSpec:
    failure: Exception | None = None
    for candidate in _candidates(env_id):
        name = candidate.removeprefix(PREFIX)
        has_tasks = name in NAVIGATION_TASKS and candidate != name
        if task != 0 and not has_tasks:
            raise InputError(
                f"env.task {task}: '{env_id}' has no tasks; leave it out, or choose one of "
                + ", ".join(NAVIGATION_TASKS)
            )
        try:
            env = _make(candidate, **({"task": task} if has_tasks else {}))
        except Exception as error:  # an environment's constructor may raise anything
            failure = error
            continue
        try:
            return _describe(env, candidate, task if has_tasks else None)
        finally:
            env.close()
    reason = " ".join(str(failure).split())
    raise InputError(
        f"env '{env_id}' cannot be made ({type(failure).__name__}: {reason}); install what it "
        "needs or choose another environment"
    ) from failure


def _candidates(env_id: str) -> list[str]:
    """Return the registered ids that ``env_id`` may mean, Gymnasium's own first."""
    module, _, plain = env_id.rpartition(":")
    if module and module != __package__:
        _import(module, env_id)
        found = [env_id] if plain in gymnasium.registry else []
    else:
        found = [name for name in (plain, PREFIX + plain) if name in gymnasium.registry]
    if not found:
        raise InputError(suggest("environment", env_id, _continuous_ids()))
    return found


def _import(module: str, env_id: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"env '{env_id}': module '{module}' cannot be imported ({error}); check its name and "
            "that it is installed"
        ) from error


def _continuous_ids() -> list[str]:
    """Return the ids worth suggesting: dstrl's, Gymnasium's continuous ones, other packages'."""
    found = list(_OTHER_CONTINUOUS)
    for name, registered in gymnasium.registry.items():
        entry_point = registered.entry_point
        where = (
            entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
        )
        if where.startswith("gymnasium.envs.mujoco.") or not where.startswith("gymnasium."):
            found.append(name.removeprefix(PREFIX))
    return found


def _make(env_id: str, **kwargs: Any) -> gymnasium.Env:
    module, _, plain = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    with version_advice_ignored():
        entry_point = gymnasium.registry[plain].entry_point
        if isinstance(entry_point, str):
            load_env_creator(entry_point)
        # An environment on MuJoCo has imported it by now, whoever wrote that environment.
        if "mujoco" in sys.modules:
            log_mujoco_warnings()
        return gymnasium.make(plain, disable_env_checker=True, **kwargs)


def _describe(env: gymnasium.Env, env_id: str, task: int | None) -> EnvSpec:
    name = env_id.rpartition(":")[2].removeprefix(PREFIX)
    observation, action = env.observation_space, env.action_space
    _check_box(observation, f"env '{name}': observations")
    _check_box(action, f"env '{name}': actions")
    if not np.issubdtype(action.dtype, np.floating):
        raise InputError(
            f"env '{name}': actions are integers ({action.dtype}); choose an environment with "
            "continuous actions"
        )
    if not action.is_bounded("both"):
        raise InputError(
            f"env '{name}': actions are unbounded; register it with finite bounds, for example "
            "through gymnasium.wrappers.TransformAction"
        )
    return EnvSpec(
        id=env_id,
        name=name,
        task=task,
        observation_size=observation.shape[0],
        action_size=action.shape[0],
        action_low=tuple(action.low.tolist()),
        action_high=tuple(action.high.tolist()),
        time_limit=None if env.spec is None else env.spec.max_episode_steps,
    )


def _check_box(space: gymnasium.Space, what: str) -> None:
    """Raise unless the space is a box of one dimension."""
    if not isinstance(space, Box):
        raise InputError(
            f"{what} are {type(space).__name__}, but only Box spaces are supported; choose an "
            "environment with continuous observations and actions"
        )
    if len(space.shape) != 1 or space.shape[0] == 0:
        raise InputError(
            f"{what} have shape {space.shape}, but a flat vector is needed; register the "
            "environment through a wrapper that flattens them (gymnasium.wrappers."
            "FlattenObservation)"
        )
