"""Keys of a run, or of another tool's file, that stand at the top of a preset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dstrl_cli.config.foreign import counterpart
from dstrl_cli.config.keys import expand
from dstrl_cli.errors import InputError


def refuse_stray_keys(content: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise InputError where keys of a run stand at the top of a preset, and not under `config:`.

    RL-Baselines3-Zoo's files have such keys by environment. `known` are the keys of a preset.
    """
    stray = {key: value for key, value in content.items() if key not in known}
    for env_id, block in stray.items():
        if isinstance(block, Mapping) and any(counterpart(str(key), None) for key in block):
            raise InputError(
                f"'{env_id}' holds the settings of an environment, as files of RL-Baselines3-Zoo "
                f"do: a preset has no environments at the top; put the keys of one under "
                f"`config:`, and choose the environment with --env"
                + "".join(f"\n  {line}" for line in _translated(block))
            )
    found = {key: value for key, value in stray.items() if _is_key_of_a_run(key, value)}
    if found:
        lines = _translated({key: found[key] for key in found if counterpart(key, None)})
        raise InputError(
            f"{', '.join(found)}: at the top of a preset there is no such key; put it under "
            "`config:`" + "".join(f"\n  {line}" for line in lines)
        )


def _is_key_of_a_run(key: str, value: Any) -> bool:
    """Whether a key, or every key of a group, may be set in a run, here or in another tool."""
    below = [f"{key}.{name}" for name in value] if isinstance(value, Mapping) else []
    known = [bool(expand(each) or counterpart(each, None)) for each in (key, *below)]
    return known[0] or (len(known) > 1 and all(known[1:]))


def _translated(block: Mapping[Any, Any]) -> list[str]:
    """Return for each key that another tool has what to write here."""
    named = {str(key): value for key, value in block.items()}
    return [f"{key}: {text}" for key in named if (text := counterpart(key, named[key]))]
