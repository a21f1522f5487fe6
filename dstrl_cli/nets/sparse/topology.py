"""Which connections a network of the sparse engine has, as index arrays (see `kernels`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class Topology:
    """Index arrays of K heads (see `kernels`): by row and, if made by `of`, also by column.

    The backward pass needs the columns; a trimmed target, which has none, is only run forward.
    """

    columns: Ints
    source: Ints
    position: Ints

    def __init__(self, rows: Ints, index: Ints) -> None:
        self.rows, self.index = rows, index

    @classmethod
    def of(cls, masks: Sequence[NDArray[np.bool_]]) -> Topology:
        """Index the masks, one [K, in, out] per layer."""
        heads = masks[0].shape[0]
        by_row = [[mask[k].T for mask in masks] for k in range(heads)]  # [out, in]
        topology = cls(*cls.indexed(by_row))
        numbered: list[list[NDArray[np.int32]]] = []
        start = 0
        for head in by_row:
            numbered.append([])
            for mask in head:
                number = np.full(mask.shape, -1, np.int32)
                count = int(mask.sum())
                number[mask] = np.arange(start, start + count, dtype=np.int32)
                numbered[-1].append(number.T)  # [in, out]
                start += count
        by_column = [[number >= 0 for number in head] for head in numbered]
        topology.columns, topology.source = cls.indexed(by_column)
        topology.position = np.concatenate([n[n >= 0] for head in numbered for n in head])
        return topology

    @staticmethod
    def indexed(masks: list[list[NDArray[np.bool_]]]) -> tuple[Ints, Ints]:
        """Return row pointers [K, R + 1] and the column of every entry, row by row."""
        counts = [np.concatenate([mask.sum(1) for mask in head]) for head in masks]
        ends = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int32)
        rows, per_head = [], len(counts[0])
        for k in range(len(masks)):
            rows.append(ends[k * per_head : (k + 1) * per_head + 1])
        index = np.concatenate([np.nonzero(mask)[1] for head in masks for mask in head])
        return np.stack(rows), index.astype(np.int32)
