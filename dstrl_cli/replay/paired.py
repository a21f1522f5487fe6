"""The layout of the masked engine on the host: next observations in a ring of their own.

That takes twice the memory, although the next row mostly repeats it. It works for every
environment: nothing bounds how many episodes an environment may truncate, whose final observations
are in no other row. For torch operations it is also faster than looking next observations up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay.state import Filled, link, unlinked
from dstrl_cli.replay.tensors import TensorReplay


@final
class PairedReplay(TensorReplay):
    """Ring buffer with a ring of its own for next observations; see `Replay`."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.next_observation = self.ring(len(self.size), self.observation_size)

    @override
    def store_next(self, next_observation: Tensor, truncated: Tensor, ended: Tensor) -> None:
        self.write(self.next_observation, next_observation)

    @override
    def next_of(self, rows: Tensor) -> Tensor:
        return self.take(self.next_observation, rows)

    @override
    def faults(self) -> dict[int, str]:
        return {}

    @override
    def breaks(self, member: int, start: int, size: int) -> tuple[Tensor, Tensor]:
        held = self.next_observation[member]
        found = unlinked(self.observation[member], held, start, size)
        return found, held[(start + found) % self.capacity]

    @override
    def set_next(self, filled: Sequence[Filled]) -> None:
        for member, given in enumerate(filled):
            link(self.next_observation[member], self.observation[member], given)

    @override
    def keep_next_of_newest(self, member: int) -> None:
        """Nothing to do: every row has its next observation."""
