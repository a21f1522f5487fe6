"""The initial masks of a run that starts with those of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def stored_masks(
    tensors: Mapping[str, NDArray[Any]], heads: Sequence[str], layers: int
) -> list[list[Tensor]]:
    """Return the masks [in, out] of every head and layer.

    Args:
        tensors: what a policy file holds; that it fits was checked when the run was planned.
        heads: the names of the heads: actor; critic1, critic2.
        layers: how many there are.
    """
    return [
        [torch.from_numpy(tensors[f"{head}.mask.{layer}"] != 0) for layer in range(layers)]
        for head in heads
    ]
