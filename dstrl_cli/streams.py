"""Random numbers of the members of a population.

Every use of randomness is a named stream. The numbers of a stream at one step depend on the
member's seed, the stream's name and the step alone: a block of steps is drawn at once from a
generator seeded by (seed, name, block). So a member gets the same numbers alone and among others,
and to resume a stream one needs to know its step only.

Deriving a seed needs no torch, which is imported when the first generator is made.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

BLOCK_NUMBERS = 65_536
"""Numbers in one block of one member; a step that needs more has a block of its own."""


def derived_seed(seed: int, name: str, index: int = 0) -> int:
    """Return the 63-bit seed of the generator for block `index` of stream `name`."""
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, name: str, index: int = 0) -> torch.Generator:
    """Return a fresh host generator for one use not drawn in blocks (weights, masks, growth)."""
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, name, index))


class Stream:
    """Numbers `[P, *shape]` for every step, drawn in blocks from each member's own generator."""

    def __init__(
        self,
        seeds: Sequence[int],
        name: str,
        shape: tuple[int, ...],
        fill: Callable[[Tensor, torch.Generator], Tensor],
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        import torch

        dtype = dtype or torch.float32
        per_step = max(1, math.prod(shape))
        self.seeds, self.name, self.fill = tuple(seeds), name, fill
        self.block = max(1, BLOCK_NUMBERS // per_step)
        self.buffer = torch.empty(len(self.seeds), self.block, *shape, device=device, dtype=dtype)
        self.generator = torch.Generator(device=device)
        self.current = -1

    @cached_property
    def array(self) -> NDArray[Any]:
        """The current block `[P, steps, *shape]` of a stream on the host."""
        found: NDArray[Any] = self.buffer.numpy()
        return found

    def row(self, step: int) -> int:
        """Draw the block of `step` if it is not the current one; return its row in the block."""
        block, offset = divmod(step, self.block)
        if block != self.current:
            for row, seed in zip(self.buffer, self.seeds, strict=True):
                self.fill(row, self.generator.manual_seed(derived_seed(seed, self.name, block)))
            self.current = block
        return offset

    def at(self, step: int) -> Tensor:
        """Return the numbers `[P, *shape]` of `step`; valid until the next call."""
        return self.buffer[:, self.row(step)]


def normal(seeds: Sequence[int], name: str, shape: tuple[int, ...], device: str = "cpu") -> Stream:
    """Return a stream of standard normal numbers, float32."""
    return Stream(seeds, name, shape, lambda row, g: row.normal_(generator=g), device)


def uniform(
    seeds: Sequence[int],
    name: str,
    shape: tuple[int, ...],
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Stream:
    """Return a stream of uniform numbers in [0, 1), float32 unless `dtype` says otherwise."""
    return Stream(seeds, name, shape, lambda row, g: row.uniform_(generator=g), device, dtype)
