"""The vector registers of the processor that the kernels are compiled for, and what fits into them.

A tile holds TILE rows of the batch for every neuron: VECTORS registers of LANES numbers. The sums
of a neuron stay in registers while its connections are added up, and the gradients keep as many
again for the neuron's own activations, so VECTORS is a quarter of the registers at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
from numba.core import codegen


@dataclass(frozen=True)
class Registers:
    """Numbers in a register, registers of a tile, and of what a dense layer takes at once.

    `rows` neurons of a dense layer are summed up together, and `block` pairs of neurons (above,
    below) when it takes the gradients of its weights.
    """

    lanes: int
    vectors: int
    rows: int
    block: tuple[int, int]


AVX512 = Registers(lanes=16, vectors=4, rows=4, block=(4, 4))  # 32 registers of 512 bits
AVX2 = Registers(lanes=8, vectors=4, rows=3, block=(2, 4))  # 16 registers of 256 bits
NEON = Registers(lanes=4, vectors=8, rows=3, block=(4, 4))  # 32 registers of 128 bits
SSE = Registers(lanes=4, vectors=4, rows=3, block=(2, 4))  # 16 registers of 128 bits


def registers(features: str) -> Registers:
    """Return those of a processor with these features, as LLVM lists them: "+avx,+avx2,..."."""
    have = set(features.split(","))
    for feature, fitting in (("+avx512f", AVX512), ("+avx", AVX2), ("+neon", NEON)):
        if feature in have:
            return fitting
    return SSE


def _compiled_for() -> str:
    """Return the features that Numba compiles for: the host's, or those of NUMBA_CPU_FEATURES."""
    config: Any = numba.config
    return str(config.CPU_FEATURES or codegen.get_host_cpu_features())


HERE = registers(_compiled_for())
LANES, VECTORS = HERE.lanes, HERE.vectors
TILE = LANES * VECTORS
"""T: rows of the batch in one tile."""
