"""Names and order of a table's rows.

A shipped method is named as its preset says today. A user's own is named as the run stored it
(`method_label`, `method_order`); without that it keeps the name of its file and comes last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from dstrl_cli.config.methods import LAST_ORDER, find_method, list_methods


@dataclass(frozen=True, order=True)
class MethodLabel:
    """A row's place and name; sorting by it gives the papers' order of rows."""

    order: int
    label: str


def method_label(method: str, config: Mapping[str, Any] | None = None) -> MethodLabel:
    """Return label and order of a method such as `rlx2`, `our-rlx2` or `rlx2+nstep5`.

    `config` holds the dotted keys of a run of it.
    """
    name, plus, suffix = method.partition("+")
    base = _shipped().get(name) or _stored(name, config or {})
    return MethodLabel(base.order, f"{base.label} +{suffix}") if plus else base


@cache
def _shipped() -> Mapping[str, MethodLabel]:
    methods = map(find_method, list_methods())
    return {each.name: MethodLabel(each.order, each.label) for each in methods}


def _stored(name: str, config: Mapping[str, Any]) -> MethodLabel:
    label, order = config.get("method_label"), config.get("method_order")
    return MethodLabel(
        order if isinstance(order, int) else LAST_ORDER,
        label if isinstance(label, str) and label else name,
    )
