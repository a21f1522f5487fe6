"""What fits into the registers of a processor, and that code for another one computes the same."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
from program_samples import REPOSITORY

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


def products(**variables: str) -> list[str]:
    """Return T, and what the products of one small network add up to."""
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables
    command = [sys.executable, "-c", PRODUCTS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.soak
@pytest.mark.skipif(platform.machine() != "x86_64", reason="features of another processor")
@pytest.mark.parametrize(
    ("name", "features", "rows"),
    [("haswell", "+sse2,+sse4.1,+avx,+avx2,+fma", "32"), ("nehalem", "+sse2,+sse4.1", "16")],
)
def test_code_for_a_lesser_processor_computes_the_same(name: str, features: str, rows: str) -> None:
    _, *here = products()
    tile, *there = products(NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=features)
    assert tile == rows
    assert [float(each) for each in there] == pytest.approx([float(each) for each in here])
