"""What the neurons of one network do: which are dormant or cut off, and how rich its features are.

Pure functions on one head of a network, its layers from the input on: weights [in, out], biases
[out], masks [in, out]. They compute on the host what both engines store alike. Nothing here changes
a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-9
"""Added to a layer's mean activation, as in the authors' code of ReDo."""

RANK_SHARE = 0.99
"""Share of the sum of all singular values that an effective rank covers (Kumar et al. 2021)."""

SATURATED = 0.99
"""An action beyond this, in either direction of [-1, 1], is saturated."""


def layer_outputs(
    weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Tensor
) -> list[Tensor]:
    """Return what each layer of a ReLU network puts out for inputs [B, in]: [B, out] each.

    Hidden layers are given after the ReLU, the last layer as it is.
    """
    found, below = [], inputs
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        below = torch.addmm(bias, below, weight)
        if layer + 1 < len(weights):
            below = below.relu_()
        found.append(below)
    return found


def activity(hidden: Tensor) -> Tensor:
    """Return the score of every unit of a hidden layer [B, units] -> [units] (Sokar et al. 2023).

    It is the unit's mean activation over that of its layer: dormant units are at 0 or little above.
    """
    mean = hidden.abs().mean(0)
    return mean / (mean.mean() + TINY)


def effective_rank(features: Tensor) -> int:
    """Return how many directions of features [B, units] hold nearly all of them.

    It is the least number of singular values that make `RANK_SHARE` of the sum of all (srank).
    """
    rows = features.double()
    # the singular values are the roots of the eigenvalues of the smaller product with itself
    product = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
    values = torch.linalg.eigvalsh(product).clamp_(min=0).sqrt_().flip(0)
    total = values.sum()
    if total == 0:
        return 0
    return int((values.cumsum(0) < RANK_SHARE * total).sum()) + 1


def saturated_share(actions: Tensor) -> float:
    """Return which share of actions in [-1, 1] is beyond `SATURATED`."""
    return float((actions.abs() > SATURATED).double().mean())


@dataclass(frozen=True)
class Wiring:
    """What the masks of a network say of the units of one layer.

    Attributes:
        units: how many there are.
        no_input: units without an active input; their output is constant.
        no_output: units without an active output; nothing depends on them. None: the last layer.
        max_fan_in: the most active inputs that one unit has.
        paths: ways over active connections from the network's inputs to the layer's units.
    """

    units: int
    no_input: int
    no_output: int | None
    max_fan_in: int
    paths: float


def wiring(masks: Sequence[Tensor]) -> list[Wiring]:
    """Return what masks [in, out] say of the units of every layer."""
    found = []
    reached = torch.ones(masks[0].shape[0], dtype=torch.float64)  # paths to each unit of a layer
    for layer, mask in enumerate(masks):
        reached = reached @ mask.double()
        fan_in = mask.sum(0, dtype=torch.long)
        fan_out = None if layer + 1 == len(masks) else masks[layer + 1].sum(1, dtype=torch.long)
        found.append(
            Wiring(
                units=mask.shape[1],
                no_input=int((fan_in == 0).sum()),
                no_output=None if fan_out is None else int((fan_out == 0).sum()),
                max_fan_in=int(fan_in.max()),
                paths=float(reached.sum()),
            )
        )
    return found
