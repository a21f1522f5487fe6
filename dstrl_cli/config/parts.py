"""The parts of a configuration that stand by themselves: the replay buffer, the environment."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from dstrl_cli.config.fields import (
    Duration,
    Name,
    NonNegativeFloat,
    PositiveInt,
    Real,
    Sparsity,
    Whole,
)


class Model(BaseModel):
    """A part of a configuration: it cannot be changed, and takes no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BufferConfig(Model):
    """RLx2's dynamic-capacity buffer (RLX Alg. 2); `check_interval` is in environment steps.

    The oldest `check_batches * batch_size` transitions are compared with the current policy. The
    largest size is the run's `buffer_size`; a `min_size` beyond it never lets the buffer shrink.
    """

    dynamic: bool = False
    min_size: PositiveInt = 100_000
    check_interval: PositiveInt = 10_000
    check_batches: PositiveInt = 8
    shrink: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    distance_threshold: NonNegativeFloat = 0.2
    distance: Literal["mean_squared", "l2"] = "mean_squared"

    @property
    def smallest(self) -> int:
        """Transitions that a dynamic buffer keeps: the least that shrinking it leaves.

        It shrinks while it holds more than `min_size`, each time by int(shrink * size).
        """
        size = self.min_size + 1
        return min(self.min_size, size - int(round(self.shrink * size, 6)))


def _plain(value: Any) -> Any:
    """Return a value that YAML and JSON write and read without loss; a tuple becomes a list."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    not_a_number = isinstance(value, float) and math.isnan(value)
    if (value is None or isinstance(value, bool | int | float | str)) and not not_a_number:
        return value
    raise ValueError("must be true, false, a number, text, null, or a list of these")


class EnvConfig(Model):
    """The environment: a Gymnasium id (the `dstrl/` prefix may be left out) and its task.

    `kwargs` are given to the environment when it is made (`gymnasium.make`): arguments of its
    constructor, or `max_episode_steps`; `seed: run` stands for the run's seed. `flatten` makes
    vectors of dictionaries and arrays that an environment observes. `noise_features` is the share
    of the entries of an observation that is noise, which follows what is observed. An environment
    fails if one call of its `step` or `reset` takes longer than `timeout`, in seconds or as in
    `10m`.
    """

    id: Name
    task: Annotated[Whole, Field(ge=0, le=9)] = 0
    kwargs: dict[str, Annotated[Any, PlainValidator(_plain)]] = {}
    flatten: bool = False
    noise_features: Sparsity = 0.0
    timeout: Duration = 600.0

    def __hash__(self) -> int:
        return hash(
            (self.id, self.task, tuple(sorted(self.kwargs)), self.flatten, self.noise_features)
        )


def env_shorthand(value: Any) -> Any:
    """Return `{id: ID}` for an environment that is written as its id alone."""
    return {"id": value} if isinstance(value, str) else value
