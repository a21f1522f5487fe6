"""Streams: numbers that depend on seed, name and step alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from dstrl_cli import streams

Kind = Callable[..., streams.Stream]
KINDS: list[Kind] = [streams.normal, streams.uniform]


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_sees_the_same_numbers_alone_and_among_others(kind: Kind) -> None:
    among, alone = kind([7, 3, 11], "noise", (4, 2)), kind([3], "noise", (4, 2))
    for step in (0, 5, 20_000):  # 8 numbers a step: another block
        assert torch.equal(among.at(step)[1], alone.at(step)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_do_not_depend_on_the_order_of_steps(kind: Kind) -> None:
    steps = [0, 1, 8191, 8192, 16_384, 30_000]  # blocks of 65536 / 8 = 8192 steps
    forward, backward = kind([5], "noise", (8,)), kind([5], "noise", (8,))
    first = {step: forward.at(step).clone() for step in steps}
    for step in reversed(steps):
        assert torch.equal(backward.at(step), first[step])
    assert torch.equal(kind([5], "noise", (8,)).at(16_384), first[16_384])


def test_seeds_names_steps_and_blocks_differ() -> None:
    stream = streams.normal([0, 1], "noise", (8,))
    drawn = [stream.at(step).clone() for step in (0, 1, 8191, 8192, 16_384)]
    drawn.append(streams.normal([0, 1], "other", (8,)).at(0))
    rows = [row for numbers in drawn for row in numbers]
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


def test_a_step_larger_than_a_block_has_a_block_of_its_own() -> None:
    stream = streams.uniform([0], "wide", (70_000,))
    assert stream.block == 1
    first = stream.at(0).clone()
    assert not torch.equal(stream.at(1), first)
    assert torch.equal(stream.at(0), first)


def test_derived_seeds_are_distinct_and_fit_a_generator() -> None:
    found = {
        streams.derived_seed(seed, name, index)
        for seed in (0, 1, 10, 12)
        for name in ("a", "b", "a/1", "growth", "growth1")
        for index in (0, 1, 10, 2)
    }
    assert len(found) == 4 * 5 * 4
    assert all(0 <= seed < 2**63 for seed in found)


def test_generators_for_one_use_repeat() -> None:
    drawn = [torch.rand(3, generator=streams.generator(4, "actor/weights")) for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.equal(
        drawn[0], torch.rand(3, generator=streams.generator(4, "critic/weights"))
    )


def test_distributions() -> None:
    normal = streams.normal([1], "n", (65_536,)).at(0)
    assert normal.mean() == pytest.approx(0, abs=0.02)
    assert normal.std() == pytest.approx(1, abs=0.02)
    uniform = streams.uniform([1], "u", (65_536,), dtype=torch.float64).at(0)
    assert uniform.dtype == torch.float64
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert uniform.min() >= 0
    assert uniform.max() < 1
