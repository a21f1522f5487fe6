"""The further columns that a table may have: parameters and FLOPs, in words and as numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dstrl_cli.report.table import Cost

Parts = list[str]
"""The text of a cell, in pieces that may stand beside or below one another."""


@dataclass(frozen=True)
class ExtraColumn:
    """A column that is shown where it is asked for.

    Attributes:
        heading: its name for a person.
        fields: the fields of `Cost` that programs get.
        parts: what a person reads of a cost.
    """

    heading: str
    fields: tuple[str, ...]
    parts: Callable[[Cost], Parts]


def _params_parts(cost: Cost) -> Parts:
    return [
        f"SOK {cost.sok_active:.0f}",
        f"({cost.sok_ratio:.3f}x)",
        f"RLX {cost.rlx_active:.0f}",
        f"({cost.rlx_ratio:.3f}x)",
        *_realised_parts(cost),
    ]


def _realised_parts(cost: Cost) -> Parts:
    """Return the realised sparsity, of actor and critics where they differ."""
    found = (cost.realised_actor_sparsity, cost.realised_critic_sparsity)
    shown = list(dict.fromkeys(_sparsity_digits(each) for each in found if each is not None))
    return [f"sparsity {'/'.join(shown)}"] if shown else []


def _sparsity_digits(sparsity: float) -> str:
    """Return a sparsity to three digits of the density, so that 0.9996 does not become 1."""
    return f"{1 - float(f'{1 - sparsity:.3g}'):.10g}"


def _flops_parts(cost: Cost) -> Parts:
    full = []
    if cost.notably_more:
        full = [f"full {cost.train_flops_full:.2e}", f"({cost.train_ratio_full:.3f}x)"]
    return [
        f"train {cost.train_flops:.2e}",
        f"({cost.train_ratio:.3f}x)",
        *full,
        f"test {cost.test_flops:.2e}",
        f"({cost.test_ratio:.3f}x)",
    ]


EXTRA_COLUMNS: Mapping[str, ExtraColumn] = {
    "params": ExtraColumn(
        heading="parameters",
        fields=(
            *("sok_active", "sok_ratio", "rlx_active", "rlx_ratio"),
            *("realised_actor_sparsity", "realised_critic_sparsity"),
        ),
        parts=_params_parts,
    ),
    "flops": ExtraColumn(
        heading="FLOPs",
        fields=(
            *("train_flops", "train_ratio", "test_flops", "test_ratio"),
            *("train_flops_full", "train_ratio_full"),
        ),
        parts=_flops_parts,
    ),
}
"""Every such column by the name that asks for it."""
