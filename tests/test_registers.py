"""What fits into the registers of a processor, and that code for another one computes the same."""

from __future__ import annotations

import pytest

from dstrl_cli.nets.sparse.registers import AVX2, AVX512, NEON, SSE, registers

PRODUCTS = """
import numpy as np
from dstrl_cli.nets.sparse import kernels, registers
from dstrl_cli.nets.sparse.engine import Topology, aligned
T = registers.TILE
masks = [np.random.default_rng(n).random((1, 9, 9)) < share for n, share in enumerate((0.5, 1))]
topology, sizes = Topology.of(masks), np.array([9, 9, 9])
draw = np.random.default_rng(0).standard_normal
value, bias = draw(len(topology.index), np.float32), draw((1, 18), np.float32)
x, tiles = draw((50, 9), np.float32), -(-50 // T)
first, hidden = aligned(tiles, 9, T), aligned(1, tiles, 18, T)
out = np.empty((1, 50, 9), np.float32)
kernels.forward(
    x, sizes, topology.rows, topology.index, value, bias, first, hidden, out
)
grads, biases = np.empty_like(value), np.empty_like(bias)
kernels.backward(
    np.ones_like(out), sizes, value, topology.columns, topology.source, topology.position,
    np.empty_like(value), np.empty((1, len(value)), np.float32),
    np.empty((1, tiles, 18), np.float32), first, hidden, aligned(1, tiles, 18, T), grads, biases,
    aligned(tiles, 9, T), True, True,
)
print(T, *(repr(float(np.abs(each).sum())) for each in (out, grads, biases)))
"""


@pytest.mark.parametrize(
    ("features", "fitting"),
    [
        ("+sse2,+avx,+avx2,+avx512f,-amx", AVX512),
        ("+sse2,+avx,+avx2,-avx512f", AVX2),
        ("+neon,+fp-armv8", NEON),
        ("+sse2,-avx", SSE),
    ],
)
def test_registers_are_those_of_the_processor(features: str, fitting: object) -> None:
    assert registers(features) is fitting


@pytest.mark.parametrize("fitting", [AVX512, AVX2, NEON, SSE])
def test_the_sums_of_a_dense_layer_fit_into_the_registers(fitting: object) -> None:
    available = {AVX512: 32, AVX2: 16, NEON: 32, SSE: 16}[fitting]  # type: ignore[index]
    above, below = fitting.block  # type: ignore[attr-defined]
    assert fitting.rows * fitting.vectors + 2 <= available  # type: ignore[attr-defined]
    assert above * below + above + below <= available
