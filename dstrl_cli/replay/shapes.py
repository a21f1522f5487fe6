"""Checks of the arguments of pure functions on tensors: rank and dtype; values are not read."""

from __future__ import annotations

import torch
from torch import Tensor


def check(function: str, rank: int, dtype: torch.dtype = torch.float32, **tensors: Tensor) -> None:
    """Raise ValueError, naming function and argument, unless tensors have this rank and type."""
    for name, tensor in tensors.items():
        if tensor.dim() != rank or tensor.dtype != dtype:
            raise ValueError(
                f"{function}: {name} must be a {dtype} tensor of rank {rank}, "
                f"not {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
