"""The values of flags that several commands have, checked."""

from __future__ import annotations

from typing import Any

from dstrl_cli.config.ranges import parse_numbers, parse_steps
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.memory import parse_size
from dstrl_cli.sweep.place import Limits


def one_number(text: str | None, flag: str) -> float | None:
    """Return the one number of a flag. Raises InputError where it names several."""
    if text is None:
        return None
    numbers = parse_numbers(text, flag)
    if len(numbers) > 1:
        raise InputError(f"{flag}: {text!r} is more than one number; only one is taken here")
    return numbers[0]


def one_of(value: str | None, flag: str, other: str | None, other_flag: str) -> str | None:
    """Return a flag's value. Raises InputError where another, which excludes it, is given too."""
    if value is not None and other is not None:
        raise InputError(f"{flag} {value} and {other_flag} {other}: give one of them")
    return value


def limits(jobs: int | None, device_memory: str | None, members: int | None) -> Limits:
    """Return what `--jobs`, `--device-memory` and `--members-per-device` allow."""
    return Limits(jobs, None if device_memory is None else parse_size(device_memory), members)


def run_flags(
    *,
    actor_sparsity: str | None,
    critic_sparsity: str | None,
    seed: str | None,
    seeds: str | None,
    steps: str | None,
    episodes: str | None,
    keep_checkpoint: bool,
    **others: Any,
) -> dict[str, Any]:
    """Return the keys that `train` and `sweep` both have flags for; None: not given.

    `others` are taken as they are. Raises InputError for a value that is not valid.
    """
    return {
        "actor.sparsity": one_number(actor_sparsity, "--actor-sparsity"),
        "critic.sparsity": one_number(critic_sparsity, "--critic-sparsity"),
        "seed": one_of(seed, "--seed", seeds, "--seeds"),
        "steps": None if steps is None else parse_steps(steps),
        "episodes": None if episodes is None else parse_steps(episodes, "--episodes", "episodes"),
        "keep_checkpoint": keep_checkpoint or None,
        **others,
    }
