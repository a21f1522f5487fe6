"""Which environments there are, what dstrl knows of each, and how one is made.

An environment is looked up by its id, made once to read its spaces, and refused here, with a
remedy, if its observations or actions are not what the algorithms take. No torch.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import gymnasium
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec
from gymnasium.envs.registration import load_env_creator

from dstrl_cli.envs import modules
from dstrl_cli.envs.calls import close_quietly, contained, explain
from dstrl_cli.envs.noise import with_noise
from dstrl_cli.envs.quiet import log_mujoco_warnings, version_advice_ignored
from dstrl_cli.envs.registration import NAVIGATION_TASKS, PREFIX, has_tasks
from dstrl_cli.envs.spaces import check_spaces
from dstrl_cli.envs.tasks.task_sets import check_task
from dstrl_cli.envs.watch import Watch
from dstrl_cli.errors import InputError
from dstrl_cli.registry import import_problem

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

RUN_SEED = ("seed", "run")
"""The argument, and its value, that stands for the seed of the run."""

ALIKE = 0.8
"""How similar two names must be, of at most 1, for one to be suggested for the other."""


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
        action_dtype: the NumPy type of its actions, whose bounds are exactly those above.
        flatten: whether Gymnasium's FlattenObservation makes vectors of its observations.
        noise_features: share of an observation's entries that is noise (`envs.noise`).
        timeout: seconds that one call of `step` or `reset` may take; None: as long as it wants.
        foreign: whether code of others than Gymnasium and dstrl makes it or wraps it.
        notes: what the user should know of it before a run starts.
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
    action_dtype: str = "float32"
    flatten: bool = False
    noise_features: float = 0.0
    timeout: float | None = field(default=None, compare=False)
    foreign: bool = field(default=False, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def for_seed(self, seed: int) -> EnvSpec:
        """Return the environment of a run with this seed: `RUN_SEED` is replaced by it."""
        if RUN_SEED not in self.kwargs:
            return self
        return replace(self, kwargs=_with_seed(self.kwargs, seed))


def _with_seed(arguments: Arguments, seed: int) -> Arguments:
    return tuple((RUN_SEED[0], seed) if each == RUN_SEED else each for each in arguments)


class _Asked(NamedTuple):
    """How an environment is wanted, apart from its id and task."""

    arguments: Arguments
    flatten: bool
    noise_features: float
    timeout: float | None


def spec(
    env_id: str,
    task: int = 0,
    kwargs: Mapping[str, Any] | None = None,
    *,
    flatten: bool = False,
    noise_features: float = 0.0,
    timeout: float | None = None,
) -> EnvSpec:
    """Look an environment up: Gymnasium's own where it serves the id, else dstrl's.

    Args:
        env_id: an id of Gymnasium's registry, with or without `dstrl/` in front; an id that
            another module registers is written `module:id`, and the module may lie in the current
            folder.
        task: which task of a navigation environment, 0-9.
        kwargs: arguments for `gymnasium.make`: `max_episode_steps`, or those of the environment's
            constructor. A list arrives there as a tuple. `seed: run` stands for the run's seed
            (see `EnvSpec.for_seed`).
        flatten: make vectors of its observations.
        noise_features: share of the entries of its observations that is to be noise.
        timeout: seconds that one call of `step` or `reset` may take.

    Raises:
        InputError: unknown id, an environment that cannot be made, an argument that it does not
            take, spaces that are not flat boxes, unbounded actions, a task where there is none, or
            whatever else `contract` refuses.
    """
    check_task(task)
    for name, reason in _RESERVED.items():
        if name in (kwargs or {}):
            raise InputError(f"env.kwargs.{name} cannot be set: {reason}")
    arguments = ((name, _hashable(value)) for name, value in (kwargs or {}).items())
    asked = _Asked(tuple(sorted(arguments)), flatten, noise_features, timeout)
    return _look_up(env_id, task, asked)


def make_env(spec: EnvSpec, **kwargs: Any) -> gymnasium.Env:
    """Make one environment with its time limit, quietly; `kwargs` such as `render_mode`."""
    env = _make(spec.id, spec.flatten, **_with_task(spec.task, spec.kwargs), **kwargs)
    return with_noise(env, spec.noise_features, spec.name)


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
def _look_up(env_id: str, task: int, asked: _Asked) -> EnvSpec:
    """Make an environment once, check it, and describe it."""
    from dstrl_cli.envs.contract import check

    failures: dict[str, BaseException] = {}
    watch = Watch(env_id, asked.timeout, exit_code=2)
    with contained(), watch:
        for candidate in _candidates(env_id):
            _check_task_choice(candidate, task, asked.arguments)
            chosen = task if has_tasks(candidate) else None
            arguments = _with_task(chosen, asked.arguments)
            try:
                with watch.call(0, "its constructor"):
                    env = _make(candidate, asked.flatten, **arguments)
            except (Exception, SystemExit) as error:  # a constructor may raise anything
                failures[candidate] = error
                continue
            try:
                check_spaces(env, shown_name(candidate))
                env = with_noise(env, asked.noise_features, shown_name(candidate))
                found = _describe(env, candidate, chosen, asked)
                return replace(found, notes=check(env, found, watch))
            finally:
                close_quietly(env)
    candidate, failure = failures.popitem()
    raise _cannot_be_made(candidate, dict(asked.arguments), failure) from failure


def _candidates(env_id: str) -> list[str]:
    """Return the registered ids that `env_id` may mean, Gymnasium's own first."""
    module, _, plain = env_id.rpartition(":")
    if module and module != __package__:
        _import(module, env_id)
        if modules.entry(env_id) is None:
            raise InputError(
                f"env '{env_id}': module '{module}' was imported, but registers no '{plain}'"
                f"{_did_you_mean(plain, gymnasium.registry)} See gymnasium.register"
            )
        found = [env_id]
    else:
        found = [name for name in (plain, PREFIX + plain) if name in gymnasium.registry]
    if not found:
        raise _unknown(env_id)
    return found


def _unknown(env_id: str) -> InputError:
    known = known_envs()
    return InputError(
        f"unknown environment '{env_id}'{_did_you_mean(env_id, known)} An id of another package "
        "is written package:id, as in gymnasium_robotics:FetchReach-v4. Known here: "
        + ", ".join(known)
    )


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the most similar name as a question, or a full stop where none is similar.

    Names must be similar without their versions, which all names have in common.
    """

    def alike(one: str, other: str) -> float:
        return SequenceMatcher(None, one.lower(), other.lower()).ratio()

    found = max(known, key=lambda other: (alike(name, other), other), default=name)
    base, other_base = (re.sub(r"-v\d+$", "", each) for each in (name, found))
    return f"; did you mean '{found}'?" if alike(base, other_base) >= ALIKE else "."


def _import(module: str, env_id: str) -> None:
    try:
        modules.import_module(module)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a module may do anything while it is imported
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
    return dict(_with_seed(arguments, 0)) | ({} if task is None else {"task": task})


def _make(env_id: str, flatten: bool, **kwargs: Any) -> gymnasium.Env:
    module, _, plain = env_id.rpartition(":")
    if module:
        modules.import_module(module)
    with version_advice_ignored():
        _creator(env_id)
        # An environment of others may import MuJoCo only when it loads a model, which is too late.
        if "mujoco" in sys.modules or _is_foreign(env_id):
            log_mujoco_warnings()
        made = (modules.entry(env_id) if module else None) or plain
        env = gymnasium.make(made, disable_env_checker=True, **kwargs)
        return gymnasium.wrappers.FlattenObservation(env) if flatten else env


def _is_foreign(env_id: str) -> bool:
    """Return whether code of others than Gymnasium and dstrl makes an environment or wraps it."""
    own = getattr(_creator(env_id), "__module__", None) or ""
    places = [own, *(wrapper.entry_point for wrapper in _entry(env_id).additional_wrappers)]
    return any(re.match(r"(gymnasium|dstrl_cli)\b", place) is None for place in places)


def _creator(env_id: str) -> Callable[..., gymnasium.Env]:
    """Return the class or function that makes an environment; its module is imported."""
    entry_point = _entry(env_id).entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def _entry(env_id: str) -> GymnasiumSpec:
    entry = modules.entry(env_id)
    assert entry is not None
    return entry


def _cannot_be_made(env_id: str, arguments: dict[str, Any], failure: BaseException) -> InputError:
    """Return the error for an environment whose constructor raised `failure`."""
    env = f"env '{env_id.removeprefix(PREFIX)}'"
    # Gymnasium appends all arguments to a constructor's TypeError.
    said = explain(failure).partition(" was raised from the environment creator")[0]
    reason = str(failure) if isinstance(failure, InputError) else said
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
        f"environment (here are {_installed('gymnasium')} and {_installed('mujoco')})"
    )


def _installed(package: str) -> str:
    """Return a package with its version, or that it is not there."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def _accepted(env_id: str) -> list[str]:
    """Return the arguments in the signature of an environment's class, and `max_episode_steps`."""
    parameters = inspect.signature(_creator(env_id)).parameters.values()
    named = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    other_keys = {*_RESERVED, *(["task"] if has_tasks(env_id) else [])}
    return [*(name for name in named if name not in other_keys), "max_episode_steps"]


def shown_name(env_id: str) -> str:
    """Return an id without its module and `dstrl/`."""
    return env_id.rpartition(":")[2].removeprefix(PREFIX)


def _describe(env: gymnasium.Env, env_id: str, task: int | None, asked: _Asked) -> EnvSpec:
    name = shown_name(env_id)
    observation, action = check_spaces(env, name)
    return EnvSpec(
        id=env_id,
        name=name,
        task=task,
        observation_size=observation.shape[0],
        action_size=action.shape[0],
        action_low=tuple(action.low.tolist()),
        action_high=tuple(action.high.tolist()),
        time_limit=None if env.spec is None else env.spec.max_episode_steps,
        kwargs=asked.arguments,
        action_dtype=str(action.dtype),
        flatten=asked.flatten,
        noise_features=asked.noise_features,
        timeout=asked.timeout,
        foreign=_is_foreign(env_id),
    )
