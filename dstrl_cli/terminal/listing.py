"""What may be chosen on the command line, for `dstrl list`: each name with a few facts.

Nothing here imports torch; only the environments import gymnasium.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from dstrl_cli.config.keys import MACROS, flatten
from dstrl_cli.config.limits import FAN_IN_USAGE
from dstrl_cli.config.methods import find_method, list_methods
from dstrl_cli.config.metrics import METRICS, metric_usage
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.presets import list_presets, load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.config.starts import STARTS
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.registry import (
    ALGORITHMS,
    ALLOCATIONS,
    BUDGETS,
    DROP_SCORES,
    ENGINES,
    GROW_SCORES,
    INITIAL_MASKS,
    SCHEDULES,
    SCORES,
)
from dstrl_cli.terminal.columns import Layout, fitting_table

Item = Mapping[str, Any]


def items(what: str) -> list[Item]:
    """Return what there is of a kind, `name` first. Raises InputError for an unknown kind."""
    if what not in KINDS:
        raise InputError(suggest("list", what, KINDS))
    return KINDS[what]()


def table(found: list[Item], width: int) -> Table:
    """Return a row for each item, for a terminal of `width` columns.

    Where the columns do not fit beside one another, all but the first stand below one another.
    """
    headings, rest = list(found[0]), list(found[0])[1:]
    beside = Layout(headings, [[_in_words(value) for value in item.values()] for item in found])
    if len(rest) < 2:
        return fitting_table([beside], width)
    below = Layout(
        [headings[0], ", ".join(rest)],
        [
            [
                _in_words(item[headings[0]]),
                "\n".join(f"{name}: {_in_words(item[name])}" for name in rest),
            ]
            for item in found
        ],
    )
    return fitting_table([beside, below], width)


def _in_words(value: Any) -> str:
    """Return a value as a person reads it; a break is possible after every `|`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    if isinstance(value, int | float):
        return f"{value:,.10g}"
    return "-" if value is None else str(value).replace("|", " | ")


# --- the kinds ----------------------------------------------------------------------------------


def _methods() -> list[Item]:
    found: list[Item] = []
    for name in list_methods():
        method = find_method(name)
        algos = [algo for algo in ALGORITHMS if method.refusal(algo) is None]
        found.append({"name": name, "label": method.label, "algorithms": algos})
    return found


def _envs() -> list[Item]:
    from dstrl_cli.envs.specs import known_envs

    return [{"name": name} for name in known_envs()]


def _scores() -> list[Item]:
    return [
        {
            "name": name,
            "scores": [use for use, can in (("drop", row.drops), ("grow", row.grows)) if can],
            "networks": ["critic"] if row.needs_td_error else ["actor", "critic"],
        }
        for name, row in SCORES.items()
    ]


def _presets() -> list[Item]:
    return [
        {"name": name, "description": load_sweep_preset(name).description}
        for name in list_presets()
    ]


def _keys() -> list[Item]:
    """Return every key with its type, what a bare `dstrl train` has, and what it means.

    Keys that a run fills in itself are left out.
    """
    schema, used = RunConfig.model_json_schema(), flatten(to_dict(resolve()))
    meanings = dict(_meanings(RunConfig))
    own = {"algo", "method", *(row.source for row in STARTS.values())}
    found: list[Item] = [
        {"name": key, "type": type_, "default": used.get(key), "meaning": meanings[key]}
        for key, type_ in _types(RunConfig, schema, schema)
        if key not in own
    ]
    both = {"type": "sets it for both", "default": None, "meaning": "The actor's and the critics'."}
    macros = ({"name": key, **both} for key in MACROS)
    return [*found, *macros]


def _meanings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the description, which stands below it, of every key of a model."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    statements = definition.body if isinstance(definition, ast.ClassDef) else []
    for key, below in pairwise(statements):
        match key, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                kind = model.model_fields[name].annotation
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    yield from _meanings(kind, f"{prefix}{name}.")
                else:
                    yield f"{prefix}{name}", str(text)


def _types(
    model: type[BaseModel], block: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the type in words of every key of a model."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = schema["$defs"][kind.__name__]
            yield from _types(kind, inner, schema, f"{prefix}{name}.")
        else:
            key = f"{prefix}{name}"
            yield key, _names(key) or _in_schema(block["properties"][name])


NAMES: Mapping[str, Iterable[str]] = {
    "drop": DROP_SCORES,
    "grow": GROW_SCORES,
    "schedule": SCHEDULES,
    "budget": BUDGETS,
    "initial_mask": INITIAL_MASKS,
    "allocation": ALLOCATIONS,
    "engine": ("auto", *ENGINES),
    "device": ("auto", "cpu", "cuda", "cuda:N"),
    "threads": ("auto", "N"),
    "env_workers": ("auto", "N"),
    "checkpoint_every": ("N", "90s", "10m", "2h"),
    "learning_rate": ("number > 0", "{linear: number}"),
    "train_freq": ("N", "[N, step]", "[N, episode]"),
    "gradient_steps": ("N", "-1"),
    "timeout": ("seconds", "10m", "null"),
    "fan_in": FAN_IN_USAGE,
    "n_of_m": ("N:M", "[N:M, N:M, ...]", "null"),
    "metric": [metric_usage(name) for name in METRICS],
}
"""Last part of a key -> the names that it takes, where its model does not list them."""


def _names(key: str) -> str:
    """Return the names that a key takes; an actor has no score that needs a critic's TD error."""
    names = NAMES.get(key.rpartition(".")[2], ())
    if key.startswith("actor.topology."):
        names = [name for name in names if name not in SCORES or not SCORES[name].needs_td_error]
    return "|".join(names)


_WORDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "true|false",
    "string": "text",
    "object": "names and values",
    "null": "null",
}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
_BOUNDS |= {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def _in_schema(field: Mapping[str, Any]) -> str:
    """Return a type of a JSON schema in words, with its bounds."""
    if "enum" in field:
        return "|".join(field["enum"])
    if "anyOf" in field:
        return " or ".join(map(_in_schema, field["anyOf"]))
    if field.get("type") == "array":
        return f"list of {_in_schema(field['items'])}" if "items" in field else "two numbers"
    bounds = [f"{sign} {field[name]:g}" for name, sign in _BOUNDS.items() if name in field]
    return f"{_WORDS[field['type']]} {', '.join(bounds)}".rstrip()


FOOTNOTES = {
    "keys": "The defaults are those of a bare dstrl train (TD3, rlx2); other methods have others."
}

KINDS: dict[str, Callable[[], list[Item]]] = {
    "methods": _methods,
    "envs": _envs,
    "scores": _scores,
    "keys": _keys,
    "presets": _presets,
}
"""What `dstrl list` knows."""
