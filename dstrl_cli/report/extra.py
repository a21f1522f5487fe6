"""The further columns that a table may have: parameters, FLOPs and the critics' neurons, in words
and as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from dstrl_cli.report.table import Cell, Cost, Neurons

Parts = list[str]
"""The text of a cell, in pieces that may stand beside or below one another."""


NEURONS = "neurons"
"""The name of the column that is read from other files than the others (`critics`)."""

Numbers = TypeVar("Numbers", Cost, Neurons)


@dataclass(frozen=True)
class ExtraColumn(Generic[Numbers]):
    """A column that is shown where it is asked for.

    Attributes:
        heading: its name for a person.
        of: the numbers of a cell that it shows; None where the cell has none.
        fields: those of them that programs get.
        parts: what a person reads of them.
        cost: whether they are sizes or FLOPs, which published tables may have too.
    """

    heading: str
    of: Callable[[Cell], Numbers | None]
    fields: tuple[str, ...]
    parts: Callable[[Numbers], Parts]
    cost: bool = True

    def text(self, cell: Cell) -> Parts | None:
        """Return what a person reads of a cell."""
        found = self.of(cell)
        return None if found is None else self.parts(found)

    def numbers(self, cell: Cell) -> dict[str, float | None]:
        """Return what programs get of a cell, by field."""
        found = self.of(cell)
        return {name: getattr(found, name, None) for name in self.fields}


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


def _neurons_parts(neurons: Neurons) -> Parts:
    unread, inputs = neurons.critic_unread_inputs, neurons.critic_inputs
    shown = (
        ("dormant {:.1f}%", neurons.critic_dormant_percent),
        ("no input {:.1f}%", neurons.critic_no_input_percent),
        ("fan-in {:.4g}", neurons.critic_max_fan_in),
        ("paths {:.3g}", neurons.critic_paths),
    )
    parts = [words.format(value) for words, value in shown if value is not None]
    return parts if unread is None else [*parts, f"unread {unread:.3g} of {inputs:.4g}"]


EXTRA_COLUMNS: Mapping[str, ExtraColumn[Any]] = {
    "params": ExtraColumn(
        heading="parameters",
        of=lambda cell: cell.cost,
        fields=(
            *("sok_active", "sok_ratio", "rlx_active", "rlx_ratio"),
            *("realised_actor_sparsity", "realised_critic_sparsity"),
        ),
        parts=_params_parts,
    ),
    "flops": ExtraColumn(
        heading="FLOPs",
        of=lambda cell: cell.cost,
        fields=(
            *("train_flops", "train_ratio", "test_flops", "test_ratio"),
            *("train_flops_full", "train_ratio_full"),
        ),
        parts=_flops_parts,
    ),
    NEURONS: ExtraColumn(
        heading="critics' neurons",
        of=lambda cell: cell.neurons,
        fields=tuple(field.name for field in fields(Neurons)),
        parts=_neurons_parts,
        cost=False,
    ),
}
"""Every such column by the name that asks for it."""
