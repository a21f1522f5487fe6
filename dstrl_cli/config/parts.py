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
    """A part of a configuration: it cannot be changed, and takes no key that it does not know.

    What stands below a key says what it means; `dstrl list keys` shows it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


class BufferConfig(Model):
    """RLx2's dynamic-capacity buffer (RLX Alg. 2).

    Its largest size is the run's `buffer_size`; with a `min_size` beyond it, it never shrinks.
    """

    dynamic: bool = False
    """Whether the buffer shrinks while its oldest transitions are far from the policy."""
    min_size: PositiveInt = 100_000
    """Transitions down to which it may shrink."""
    check_interval: PositiveInt = 10_000
    """Environment steps between comparisons."""
    check_batches: PositiveInt = 8
    """How many batches of the oldest transitions are compared."""
    shrink: Annotated[Real, Field(gt=0, lt=1)] = 0.1
    """The share that shrinking takes away."""
    distance_threshold: NonNegativeFloat = 0.2
    """The distance of actions above which it shrinks."""
    distance: Literal["mean_squared", "l2"] = "mean_squared"
    """How distances of actions are measured."""

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
    """The environment and its task.

    `kwargs` are those of `gymnasium.make`: arguments of its constructor, or `max_episode_steps`.
    """

    id: Name
    """Gymnasium id; `dstrl/` may be left out."""
    task: Annotated[Whole, Field(ge=0, le=9)] = 0
    """Task of a navigation environment."""
    kwargs: dict[str, Annotated[Any, PlainValidator(_plain)]] = {}
    """Arguments given to the environment; `seed: run` is the run's seed."""
    flatten: bool = False
    """Make vectors of dictionaries and arrays that are observed."""
    noise_features: Sparsity = 0.0
    """The share of an observation's entries that is noise (ANF)."""
    timeout: Duration = 600.0
    """How long one call of the environment may take before it counts as failed."""

    def __hash__(self) -> int:
        return hash(
            (self.id, self.task, tuple(sorted(self.kwargs)), self.flatten, self.noise_features)
        )


def env_shorthand(value: Any) -> Any:
    """Return `{id: ID}` for an environment that is written as its id alone."""
    return {"id": value} if isinstance(value, str) else value
