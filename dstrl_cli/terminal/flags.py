"""The values of flags that several commands have, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dstrl_cli.config.ranges import parse_integers, parse_names, parse_numbers, parse_steps
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.memory import parse_size
from dstrl_cli.sweep.place import Limits
from dstrl_cli.sweep.plan import Axes


def one_number(value: str | float | None, flag: str) -> float | None:
    """Return the one number of a flag. Raises InputError where it names several."""
    if not isinstance(value, str):
        return value
    numbers = parse_numbers(value, flag)
    if len(numbers) > 1:
        raise InputError(f"{flag}: {value!r} is more than one number; only one is taken here")
    return numbers[0]


def one_of(value: str | None, flag: str, other: str | None, other_flag: str) -> str | None:
    """Return a flag's value. Raises InputError where another, which excludes it, is given too."""
    if value is not None and other is not None:
        raise InputError(f"{flag} {value} and {other_flag} {other}: give one of them")
    return value


def limits(jobs: int | None, device_memory: str | None, members: int | None) -> Limits:
    """Return what `--jobs`, `--device-memory` and `--members-per-device` allow."""
    return Limits(jobs, None if device_memory is None else parse_size(device_memory), members)


AS_GIVEN = (
    "init_mask_from",
    "init_weights_from",
    "expert",
    "expert_q",
    "prefill_from",
    "device",
    "engine",
    "replay_device",
    "checkpoint_every",
    "out",
)
"""Flags of `train` and `sweep` whose value is that of the key of this name."""

SWITCHES = ("keep_checkpoint", "tensorboard", "wandb")
"""Flags that switch a key of this name on; without them it is left to presets."""


AXES: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "algos": ("algo", parse_names),
    "methods": ("dst", parse_names),
    "envs": ("env", parse_names),
    "tasks": ("task", parse_integers),
    "sparsities": ("sparsity", parse_numbers),
    "seeds": ("seeds", parse_integers),
}
"""What a sweep may vary: the flag of each axis, and how its values are read."""


def sweep_axes(given: Mapping[str, Any]) -> Axes:
    """Return what a sweep's flags vary. Raises InputError for a value that is not valid."""
    axes: dict[str, Any] = {
        axis: read(given[name], f"--{name}")
        for axis, (name, read) in AXES.items()
        if given[name] is not None
    }
    return Axes(**axes)


def train_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that `train` has flags for, as `run_flags` does those of both commands."""
    sparsity = one_number(given["sparsity"], "--sparsity")
    one = {"env.id": given["env"], "env.task": given["task"], "sparsity": sparsity}
    return one | run_flags(given)


def run_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that `train` and `sweep` both have flags for; None: not given.

    `given` are the flags of one of these commands, by the names of its parameters. Raises
    InputError for a value that is not valid.
    """
    steps, episodes = given["steps"], given["episodes"]
    return {
        "actor.sparsity": one_number(given["actor_sparsity"], "--actor-sparsity"),
        "critic.sparsity": one_number(given["critic_sparsity"], "--critic-sparsity"),
        "seed": one_of(given["seed"], "--seed", given["seeds"], "--seeds"),
        "steps": None if steps is None else parse_steps(steps),
        "episodes": None if episodes is None else parse_steps(episodes, "--episodes", "episodes"),
        **{name: given[name] for name in AS_GIVEN},
        **{name: given[name] or None for name in SWITCHES},
    }
