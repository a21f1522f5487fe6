"""How long a run is at most, once its environment is known."""

from __future__ import annotations

from collections.abc import Container

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.ranges import MAX_LENGTH
from dstrl_cli.errors import InputError


def with_default_steps(
    config: RunConfig, explicit: Container[str], time_limit: int | None
) -> RunConfig:
    """Return the configuration with as many steps as its episodes can take.

    `steps` stays as it is where somebody gave it, where no episodes are given, and where episodes
    have no time limit.

    Args:
        config: the configuration.
        explicit: the dotted keys that a preset, `--set` or a flag gave.
        time_limit: steps after which the environment ends an episode; None: it may go on.

    Raises InputError where the episodes may take more steps than a run can have.
    """
    if config.episodes is None or time_limit is None or "steps" in explicit:
        return config
    steps = config.episodes * time_limit
    if steps > MAX_LENGTH:
        raise InputError(
            f"episodes = {config.episodes:,}: at {time_limit:,} steps an episode they may take "
            f"{steps:,} steps, and a run has at most {MAX_LENGTH:,}; lower episodes, or give "
            "--steps"
        )
    return config.model_copy(update={"steps": steps})
