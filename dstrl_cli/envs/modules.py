"""Environments that other modules register, `module:id`, also where two modules register one id.

Gymnasium has one entry for an id: a second module that registers it replaces the first one's. Here
every module keeps what it registered.
"""

from __future__ import annotations

import sys

import gymnasium
from gymnasium.envs.registration import EnvSpec

from dstrl_cli.registry import import_here

_registered: dict[str, EnvSpec] = {}
"""`module:id` -> the entry that the import of the module made."""


def import_module(module: str) -> None:
    """Import a module that registers environments, and keep what it registers.

    Entries that it replaced are put back: a plain id goes on to mean what it meant. Whatever the
    import raises passes through.
    """
    if module in sys.modules:
        return
    before, level = dict(gymnasium.registry), gymnasium.logger.min_level
    gymnasium.logger.min_level = gymnasium.logger.ERROR  # else it warns of replaced entries
    try:
        import_here(module)
    finally:
        gymnasium.logger.min_level = level
    for name, entry in list(gymnasium.registry.items()):
        if entry is not before.get(name):
            _registered[f"{module}:{name}"] = entry
            gymnasium.registry[name] = before.get(name, entry)


def entry(env_id: str) -> EnvSpec | None:
    """Return Gymnasium's entry of an id, or that which the module of `module:id` made; or None.

    A module that something else imported is taken to have made the entry that there is.
    """
    return _registered.get(env_id) or gymnasium.registry.get(env_id.rpartition(":")[2])
