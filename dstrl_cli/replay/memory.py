"""Memory for the rings of a replay buffer.

A batch reads rows from all over the rings. With pages of 4 KB the processor looks nearly every row
of a large buffer up in its page tables, which takes as long as reading it; huge pages, where the
system has them, are few enough to be remembered.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

SMALL = 1 << 21
"""Bytes of a huge page: below, memory is taken as usual."""


def uninitialised(*shape: int, device: str) -> Tensor:
    """Return a tensor of float32 numbers, on the host in huge pages where it is large enough."""
    size = math.prod(shape)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if torch.device(device).type != "cpu" or advice is None or 4 * size < SMALL:
        return torch.empty(*shape, device=device)
    pages = mmap.mmap(-1, 4 * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(advice)
    except OSError:  # the system was built without them
        return torch.empty(*shape)
    return torch.frombuffer(pages, dtype=torch.float32).view(*shape)
