"""The layout of the masked engine on the host: `beside`'s rings, by torch operations."""

from __future__ import annotations

from typing import final

from torch import Tensor
from typing_extensions import override

from dstrl_cli.replay.beside import BesideReplay
from dstrl_cli.replay.tensors import TensorReplay


@final
class PairedReplay(BesideReplay, TensorReplay):
    """Ring buffer that stores and finds next observations in a ring of their own."""

    @override
    def store_next(self, next_observation: Tensor, truncated: Tensor, ended: Tensor) -> None:
        self.write(self.next_observation, next_observation)

    @override
    def next_of(self, rows: Tensor) -> Tensor:
        return self.take(self.next_observation, rows)
