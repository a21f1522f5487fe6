"""Classes by name: a registry maps a name to "module:Class", loaded when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def load(registry: Mapping[str, str], name: str) -> Any:
    """Return the class that `registry` lists as `name`."""
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)
