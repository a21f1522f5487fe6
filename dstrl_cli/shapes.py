"""One check of rank and dtype, for the edge of pure functions on tensors. It reads no values."""

from __future__ import annotations

import torch
from torch import Tensor


def check(
    name: str,
    tensor: Tensor,
    axes: str,
    dtype: torch.dtype | None = None,
    like: Tensor | None = None,
) -> None:
    """Check that a tensor has the named axes, as in `check("mask", mask, "M K in out")`.

    Args:
        name: of the argument, for messages.
        axes: one word an axis.
        dtype: which the tensor must have; without one it must be floating point.
        like: a tensor whose shape it must have.

    Raises:
        ValueError: for another number of axes, or another shape than that of `like`.
        TypeError: for another dtype.
    """
    wanted = f"[{', '.join(axes.split())}]"
    if tensor.dim() != len(axes.split()):
        raise ValueError(f"{name} must be {wanted}, not of shape {list(tensor.shape)}")
    if like is not None and tensor.shape != like.shape:
        raise ValueError(
            f"{name} must be {wanted} = {list(like.shape)}, not of shape {list(tensor.shape)}"
        )
    fits = tensor.dtype == dtype if dtype is not None else tensor.dtype.is_floating_point
    if not fits:
        raise TypeError(f"{name} must be {dtype or 'floating point'}, not {tensor.dtype}")
