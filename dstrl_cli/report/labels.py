"""Names and order of a table's rows, as the method presets give them.

A method without a preset, such as a user's own file, keeps its own name and comes last.
"""

from __future__ import annotations

from dataclasses import dataclass

from dstrl_cli.config.methods import LAST_ORDER, find_method
from dstrl_cli.errors import InputError


@dataclass(frozen=True, order=True)
class MethodLabel:
    """A row's place and name; sorting by it gives the papers' order of rows."""

    order: int
    label: str


def method_label(method: str) -> MethodLabel:
    """Return label and order of a method such as `rlx2`, `our-rlx2` or `rlx2+nstep5`."""
    name, plus, suffix = method.partition("+")
    try:
        preset = find_method(name)
        base = MethodLabel(preset.order, preset.label)
    except InputError:
        base = MethodLabel(LAST_ORDER, name)
    return MethodLabel(base.order, f"{base.label} +{suffix}") if plus else base
