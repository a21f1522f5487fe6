"""Which environments there are, what dstrl knows of each, and how one is made.

An environment is looked up by its id, made once to read its spaces, and refused here, with a
remedy, if its observations or actions are not what the algorithms take. No torch.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.spaces import Box, Dict, Tuple

from dstrl_cli.envs.quiet import log_mujoco_warnings, version_advice_ignored
from dstrl_cli.envs.registration import NAVIGATION_TASKS, PREFIX, has_tasks
from dstrl_cli.envs.tasks.task_sets import check_task
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.registry import import_here, import_problem

Arguments = tuple[tuple[str, Any], ...]
"""Keyword arguments as sorted pairs, with tuples for lists: they can be hashed."""

_OTHER_CONTINUOUS = (
    *("BipedalWalker-v3", "BipedalWalkerHardcore-v3", "LunarLanderContinuous-v3"),
    *("MountainCarContinuous-v0", "Pendulum-v1"),
)
_RESERVED = {
    "disable_env_checker": "dstrl sets it",
    "id": "choose the environment with env.id (--env)",
    "render_mode": "dstrl sets it where an environment is shown",
}
"""Arguments of `gymnasium.make` that are not the user's, and why."""


@dataclass(frozen=True)
class EnvSpec:
    """An environment as the trainer sees it.

    Attributes:
        id: the Gymnasium id that is made (`module:id` where a module registers it).
        name: the id without `dstrl/`: the name of its results folder.
        task: which task of a navigation environment's set; None elsewhere.
        observation_size: entries of an observation.
        action_size: entries of an action.
        action_low: lower bounds, one per action entry.
        action_high: upper bounds, one per action entry.
        time_limit: steps after which an episode is truncated; None if never.
        kwargs: further arguments that it is made with.
    """

    id: str
    name: str
    task: int | None
    observation_size: int
    action_size: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    time_limit: int | None
    kwargs: Arguments = ()


def spec(env_id: str, task: int = 0, kwargs: Mapping[str, Any] | None = None) -> EnvSpec:
    """Look an environment up: Gymnasium's own where it serves the id, else dstrl's.

    Args:
        env_id: an id of Gymnasium's registry, with or without `dstrl/` in front; an id that
            another module registers is written `module:id`, and the module may lie in the current
            folder.
        task: which task of a navigation environment, 0-9.
        kwargs: arguments for `gymnasium.make`: `max_episode_steps`, or those of the environment's
            constructor. A list arrives there as a tuple.

    Raises:
        InputError: unknown id, an environment that cannot be made, an argument that it does not
            take, spaces that are not flat boxes, unbounded actions, or a task where there is none.
    """
    check_task(task)
    for name, reason in _RESERVED.items():
        if name in (kwargs or {}):
            raise InputError(f"env.kwargs.{name} cannot be set: {reason}")
    arguments = ((name, _hashable(value)) for name, value in (kwargs or {}).items())
    return _look_up(env_id, task, tuple(sorted(arguments)))


def make_env(spec: EnvSpec, **kwargs: Any) -> gymnasium.Env:
    """Make one environment with its time limit, quietly; `kwargs` such as `render_mode`."""
    return _make(spec.id, **_with_task(spec.task, spec.kwargs), **kwargs)


def known_envs() -> list[str]:
    """Return the ids that can be trained on as far as is known without importing MuJoCo.

    These are dstrl's tasks, without `dstrl/`, Gymnasium's own environments with continuous actions
    and vector observations, and whatever other packages have registered.
    """
    found = set(_OTHER_CONTINUOUS)
    for name, registered in gymnasium.registry.items():
        entry_point = registered.entry_point
        where = (
            entry_point if isinstance(entry_point, str) else getattr(entry_point, "__module__", "")
        )
        # Gymnasium's entry points without the dot are versions that it refuses to make.
        if where.startswith("gymnasium.envs.mujoco.") or not where.startswith("gymnasium."):
            found.add(name.removeprefix(PREFIX))
    return sorted(found)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


@cache
def _look_up(env_id: str, task: int, arguments: Arguments) -> EnvSpec:
    failures: dict[str, Exception] = {}
    for candidate in _candidates(env_id):
        _check_task_choice(candidate, task, arguments)
        chosen = task if has_tasks(candidate) else None
        try:
            env = _make(candidate, **_with_task(chosen, arguments))
        except Exception as error:  # an environment's constructor may raise anything
            failures[candidate] = error
            continue
        try:
            return _describe(env, candidate, chosen, arguments)
        finally:
            env.close()
    candidate, failure = failures.popitem()
    raise _cannot_be_made(candidate, dict(arguments), failure) from failure


def _candidates(env_id: str) -> list[str]:
    """Return the registered ids that `env_id` may mean, Gymnasium's own first."""
    module, _, plain = env_id.rpartition(":")
    if module and module != __package__:
        _import(module, env_id)
        if plain not in gymnasium.registry:
            raise InputError(
                f"env '{env_id}': module '{module}' was imported, but registers no '{plain}'; see "
                "gymnasium.register"
            )
        found = [env_id]
    else:
        found = [name for name in (plain, PREFIX + plain) if name in gymnasium.registry]
    if not found:
        raise InputError(suggest("environment", env_id, known_envs()))
    return found


def _import(module: str, env_id: str) -> None:
    try:
        import_here(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(f"env '{env_id}': {import_problem(module, error)}") from error


def _check_task_choice(env_id: str, task: int, arguments: Arguments) -> None:
    """Raise for a task where there are none, and for one that is given as an argument."""
    if task != 0 and not has_tasks(env_id):
        raise InputError(
            f"env.task {task}: '{env_id}' has no tasks; leave it out, or choose one of "
            + ", ".join(NAVIGATION_TASKS)
        )
    if has_tasks(env_id) and "task" in dict(arguments):
        raise InputError("env.kwargs.task cannot be set: choose the task with env.task (--task)")


def _with_task(task: int | None, arguments: Arguments) -> dict[str, Any]:
    """Return all arguments of an environment's class, the task included where there are tasks."""
    return dict(arguments) | ({} if task is None else {"task": task})


def _make(env_id: str, **kwargs: Any) -> gymnasium.Env:
    module, _, plain = env_id.rpartition(":")
    if module:
        import_here(module)
    with version_advice_ignored():
        _creator(plain)
        # An environment on MuJoCo has imported it by now, whoever wrote that environment.
        if "mujoco" in sys.modules:
            log_mujoco_warnings()
        return gymnasium.make(plain, disable_env_checker=True, **kwargs)


def _creator(registered_id: str) -> Callable[..., gymnasium.Env]:
    """Return the class or function that makes an environment; its module is imported."""
    entry_point = gymnasium.registry[registered_id].entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def _cannot_be_made(env_id: str, arguments: dict[str, Any], failure: Exception) -> InputError:
    """Return the error for an environment whose constructor raised `failure`."""
    env = f"env '{env_id.removeprefix(PREFIX)}'"
    # Gymnasium appends all arguments to a constructor's TypeError.
    said = " ".join(str(failure).partition(" was raised from the environment creator")[0].split())
    reason = said if isinstance(failure, InputError) else f"{type(failure).__name__}: {said}"
    unexpected = re.search(r"unexpected keyword argument '(\w+)'", said)
    if unexpected and unexpected[1] in arguments:
        name = unexpected[1]
        return InputError(
            f"env.kwargs.{name} = {arguments[name]!r}: {env} does not take it ({reason}); it takes "
            + ", ".join(_accepted(env_id))
        )
    given = ", ".join(f"env.kwargs.{name} = {value!r}" for name, value in arguments.items())
    return InputError(
        f"{env} cannot be made{f' with {given}' if given else ''} ({reason}); "
        f"{'change its arguments, or ' if given else ''}install what it needs or choose another "
        "environment"
    )


def _accepted(env_id: str) -> list[str]:
    """Return the arguments in the signature of an environment's class, and `max_episode_steps`."""
    parameters = inspect.signature(_creator(env_id.rpartition(":")[2])).parameters.values()
    named = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    other_keys = {*_RESERVED, *(["task"] if has_tasks(env_id) else [])}
    return [*(name for name in named if name not in other_keys), "max_episode_steps"]


def _describe(env: gymnasium.Env, env_id: str, task: int | None, arguments: Arguments) -> EnvSpec:
    name = env_id.rpartition(":")[2].removeprefix(PREFIX)
    observation, action = env.observation_space, env.action_space
    _check_vector(action, f"env '{name}': actions", _action_remedy(action))
    if not np.issubdtype(action.dtype, np.floating):
        raise InputError(f"env '{name}': actions are integers ({action.dtype}); {_CONTINUOUS}")
    _check_vector(observation, f"env '{name}': observations", _observation_remedy(observation))
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
        kwargs=arguments,
    )


def _check_vector(space: gymnasium.Space, what: str, remedy: str) -> None:
    """Raise, with the remedy, unless the space is a box of one dimension."""
    if not isinstance(space, Box):
        raise InputError(f"{what} are {type(space).__name__}, but a flat Box is needed; {remedy}")
    if len(space.shape) != 1 or space.shape[0] == 0:
        raise InputError(f"{what} have shape {space.shape}, but a flat vector is needed; {remedy}")


_CONTINUOUS = (
    "choose an environment with continuous actions (some have an argument for them, as in "
    "--set env.kwargs.continuous=true)"
)


def _observation_remedy(space: gymnasium.Space) -> str:
    if not space.is_np_flattenable:
        return "choose an environment whose observations are vectors"
    return (
        "register the environment through gymnasium.wrappers.FlattenObservation, which makes "
        "vectors of them"
    )


def _action_remedy(space: gymnasium.Space) -> str:
    if not isinstance(space, Box | Dict | Tuple):
        return _CONTINUOUS
    return (
        "register the environment through gymnasium.wrappers.TransformAction with a flat Box as "
        "its action space"
    )
