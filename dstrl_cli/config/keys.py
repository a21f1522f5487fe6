"""The dotted keys of a run: which exist, and which stand for two of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from dstrl_cli.config.foreign import counterpart
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.errors import suggest

MACROS: dict[str, tuple[str, str]] = {
    "sparsity": ("actor.sparsity", "critic.sparsity"),
    "initial_sparsity": ("actor.initial_sparsity", "critic.initial_sparsity"),
    "allocation": ("actor.allocation", "critic.allocation"),
    "layers": ("actor.layers", "critic.layers"),
    "redo_interval": ("actor.redo_interval", "critic.redo_interval"),
    "redo_threshold": ("actor.redo_threshold", "critic.redo_threshold"),
    **{
        f"topology.{name}": (f"actor.topology.{name}", f"critic.topology.{name}")
        for name in TopologyConfig.model_fields
    },
}
"""Keys of presets, method files and `--set` that stand for the same key of both networks."""

FREE_FORM = ("env.kwargs", "actor.topology.params", "critic.topology.params")
"""Groups below which every name is a key; the environment or the score decides which it knows."""


MAPPINGS = ("learning_rate",)
"""Keys of which a value may be a mapping, as in `learning_rate: {linear: 7.3e-4}`."""


def _leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


@cache
def keys() -> tuple[str, ...]:
    """Return every dotted key of a run, in the order of the models; none below `FREE_FORM`."""
    return tuple(key for key in _leaves(RunConfig) if key not in FREE_FORM)


def expand(key: str) -> tuple[str, ...]:
    """Return the keys of a run that a written key stands for: itself, or those of a macro.

    An unknown key, or a group of keys, stands for none. Directly below a free-form group every name
    is a key, as in `topology.params.power`.
    """
    if free_form_group(key) is None:
        return tuple(name for name in MACROS.get(key, (key,)) if name in keys())
    group, _, name = key.rpartition(".")
    groups = MACROS.get(group, (group,))
    return tuple(f"{each}.{name}" for each in groups if each in FREE_FORM)


def free_form_group(key: str) -> str | None:
    """Return the free-form group, or the macro of two, that a written key is or lies below."""
    macros = (name for name, targets in MACROS.items() if set(targets) <= set(FREE_FORM))
    return next((each for each in (*FREE_FORM, *macros) if f"{key}.".startswith(f"{each}.")), None)


def unknown_key(key: str, value: Any = None) -> str:
    """Return the message for an unknown key, and what to write instead.

    That is what a key of another tool is called here, a sibling, or a key of nearly its name
    elsewhere. `value` is what was written, None where it is not known.
    """
    if answer := counterpart(key, value):
        return f"unknown key '{key}': {answer}"
    valid = [*keys(), *FREE_FORM, *MACROS]
    group, _, leaf = key.rpartition(".")
    siblings = [name for name in valid if name.rpartition(".")[0] == group]
    near = difflib.get_close_matches(leaf, {name.rpartition(".")[2] for name in valid}, n=1)
    namesakes = [name for name in valid if name.rpartition(".")[2] in near]
    return suggest("key", key, siblings if siblings and group else namesakes or siblings or valid)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one flat dict of dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
