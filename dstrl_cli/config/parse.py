"""From nested mappings to checked configurations and back, with errors that name key and origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from dstrl_cli.config.keys import MAPPINGS, unknown_key
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.ranges import shortened
from dstrl_cli.errors import InputError


class Origin(NamedTuple):
    """Where a value came from: the key as it was written there (perhaps a macro), and in what."""

    key: str
    source: str


_REASONS = {
    "too_short": "must hold at least one value",
    "string_too_short": "must not be empty",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text; what looks like something else needs quotes",
}
"""What pydantic's kinds of errors mean for a user, where its own words would not say."""


def explain(
    error: ValidationError,
    unknown: Callable[[str], str] = unknown_key,
    origins: Mapping[str, Origin] | None = None,
) -> str:
    """Return pydantic's complaints as one message: key, value, what is valid, where it was set."""
    lines = []
    for item in error.errors(include_url=False):
        dotted = ".".join(part for part in item["loc"] if isinstance(part, str))
        origin = (origins or {}).get(dotted)
        key = origin.key if origin else dotted
        reason = _REASONS.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        reason = reason.replace("Input should", "should")
        if item["type"] == "extra_forbidden":
            line = unknown(key)
        elif item["type"] == "missing":
            line = f"{key} is missing"
        elif dotted not in MAPPINGS and isinstance(item["input"], BaseModel | Mapping):
            # a check across keys
            line = f"{key}: {reason}" if key else reason
        else:
            line = f"{key} = {shortened(item['input'])}: {reason}"
        lines.append(f"{line} (set by {origin.source})" if origin else line)
    return "\n".join(dict.fromkeys(lines))


def from_dict(data: Mapping[str, Any], origins: Mapping[str, Origin] | None = None) -> RunConfig:
    """Return the checked configuration of a nested mapping, such as a run's `config.yaml`.

    The block `run:` (versions, device, command line: where the run came from) is left out, and
    the sparsity of a dense network, which means nothing, becomes 0. `origins` says where a dotted
    key was set, for messages. Raises InputError.
    """
    try:
        config = RunConfig.model_validate({k: v for k, v in data.items() if k != "run"})
    except ValidationError as error:
        raise InputError(explain(error, origins=origins)) from None
    dense = {
        name: network.model_copy(update={"sparsity": 0.0})
        for name, network in (("actor", config.actor), ("critic", config.critic))
        if network.ignores_sparsity
    }
    return config.model_copy(update=dense)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Return the configuration as nested dicts, lists and numbers, ready for YAML."""
    return config.model_dump(mode="json")
