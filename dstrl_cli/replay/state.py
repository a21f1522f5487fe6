"""The rows of one member of a buffer as a checkpoint holds them, whatever the buffer's layout.

The valid rows come from the oldest to the newest. Most next observations are the observation of the
next row and are not repeated; `breaks` are the rows where they are not, the newest row among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.runs.checkpoint import Pieces

CHUNK = 1 << 16
"""Rows that are compared at once, which bounds the memory that reading a buffer takes."""


@dataclass(frozen=True)
class Filled:
    """The rows that one member was given, without a gap and without crossing the ring's end.

    Attributes:
        rows: where they lie in the ring.
        breaks: those of them, counted from the oldest, whose next observation is not the
            observation of the next row [N], ascending.
        observations: the next observations of these [N, obs].
    """

    rows: slice
    breaks: Tensor
    observations: Tensor


def whole(value: NDArray[Any] | Pieces) -> NDArray[Any]:
    """Return an array, also one that is still in pieces."""
    return np.concatenate(value) if isinstance(value, Pieces) else value


def pieces(ring: Tensor, start: int, size: int) -> Pieces:
    """Return `size` rows from `start` on of a member's ring [capacity, n], on the host.

    On the host these are views, which change when the ring does.
    """
    end = start + size
    parts = [ring[start:end], ring[: max(0, end - len(ring))]]
    return Pieces([part.cpu().numpy() for part in parts])


def unlinked(observation: Tensor, next_observation: Tensor, start: int, size: int) -> Tensor:
    """Return the rows, counted from `start`, whose next observation is not in the next row.

    Both are rings [capacity, obs] with `size` valid rows. They are compared bit by bit; the newest
    row always counts.
    """
    found = []
    capacity = len(observation)
    for first in range(0, size - 1, CHUNK):
        ages = torch.arange(first, min(first + CHUNK, size - 1), device=observation.device)
        here, following = (start + ages) % capacity, (start + ages + 1) % capacity
        held, seen = next_observation[here], observation[following]
        differs = (held.view(torch.int32) != seen.view(torch.int32)).any(1)
        found.append(ages[differs])
    newest = torch.arange(max(0, size - 1), size, device=observation.device)
    return torch.cat([*found, newest])


def link(next_observation: Tensor, observation: Tensor, filled: Filled) -> None:
    """Fill a member's ring of next observations [capacity, obs]."""
    first, end = filled.rows.start, filled.rows.stop
    next_observation[first : max(first, end - 1)] = observation[first + 1 : end]
    next_observation[first + filled.breaks] = filled.observations


def read_breaks(state: Mapping[str, Any], dropped: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return `breaks` and their observations of a state without its oldest `dropped` rows."""
    breaks = whole(state["breaks"]) - dropped
    kept = breaks >= 0
    return breaks[kept], whole(state["break_observations"])[kept]


def sizes(states: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the rows of every state."""
    return [state["outcome"].shape[0] for state in states]
