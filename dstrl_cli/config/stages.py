"""Presets of several stages, in which later runs take something from earlier ones.

A key that names another run (`config.starts`) may hold what that run is instead of where it lies:
`{stage: expert, same: [env, seed]}` is the run of the stage `expert` that has the environment and
the seed of the run with the key. Further words narrow it down: `{stage: learned, steps: 500000}`.
In a layer of keys it is a text, as every other value of such a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from dstrl_cli.config.identity import env_identity, sparsity_label
from dstrl_cli.config.keys import MACROS, keys
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import explain
from dstrl_cli.config.ranges import parse_names
from dstrl_cli.config.starts import PLACES
from dstrl_cli.errors import InputError, suggest

MARK = "stage:"
"""What the text of a reference begins with; the rest is JSON."""

WORDS = ("algo", "dst", "env", "task", "sparsity", "seed")
"""What runs are told apart by, besides their keys."""


class Reference(BaseModel):
    """Which run of an earlier stage is meant.

    Attributes:
        stage: the name of the stage.
        same: words and keys in which it is as the run that takes something from it.
        where: words and keys, with the values that it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    same: tuple[str, ...] = ()
    where: dict[str, Any] = {}  # pydantic copies it

    @field_validator("same", mode="before")
    @classmethod
    def _names(cls, value: Any) -> list[str]:
        return parse_names(value, "same") if value not in ([], ()) else []

    def __str__(self) -> str:
        """Return it as a preset has it."""
        same = [f"same: [{', '.join(self.same)}]"] if self.same else []
        parts = [f"stage: {self.stage}", *same, *(f"{k}: {v}" for k, v in self.where.items())]
        return f"{{{', '.join(parts)}}}"

    @property
    def text(self) -> str:
        """It as the value of a key."""
        return MARK + self.model_dump_json()


def reference(text: str | None) -> Reference | None:
    """Return the reference that a key's value is; None where it is a place, or nothing."""
    if text is None or not text.startswith(MARK):
        return None
    return Reference.model_validate(json.loads(text.removeprefix(MARK)))


def written(block: Any) -> Any:
    """Return a block of keys in which references are texts; what is no block, as it is.

    Raises InputError for a mapping that is no reference.
    """
    if not isinstance(block, Mapping):
        return block
    return {
        key: _as_text(key, value) if key in PLACES and isinstance(value, Mapping) else value
        for key, value in block.items()
    }


def _as_text(key: str, value: Mapping[str, Any]) -> str:
    own = {name: value[name] for name in ("stage", "same") if name in value}
    where = {str(name): each for name, each in value.items() if name not in own}
    try:
        found = Reference.model_validate({**own, "where": where})
    except ValidationError as error:
        raise InputError(f"{key}: {explain(error, lambda name: f'unknown key {name}')}") from None
    known = (*WORDS, *keys(), *MACROS)
    for name in (*found.same, *where):
        if name not in known:
            raise InputError(f"{key}: {suggest('key', name, known)}")
    return found.text


def value_of(config: RunConfig, name: str) -> Any:
    """Return what a word or key of a reference is in a run."""
    words = {
        "dst": lambda: config.method,
        "env": lambda: env_identity(config.env.id),
        "task": lambda: config.env.task,
        "sparsity": lambda: sparsity_label(config),
    }
    if name in words:
        return words[name]()
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    return found


def is_meant(config: RunConfig, wanted: Reference, by: RunConfig) -> bool:
    """Whether a run is the one that `wanted` means in the run `by`."""
    alike = all(value_of(config, name) == value_of(by, name) for name in wanted.same)
    return alike and all(_has(config, name, value) for name, value in wanted.where.items())


def _has(config: RunConfig, name: str, value: Any) -> bool:
    found = value_of(config, name)
    if name == "sparsity":
        return bool(found in (value, f"s{value}", f"s{value:.10g}" if _is_number(value) else None))
    if name == "env":
        return bool(found == env_identity(str(value)))
    return bool(found == value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
