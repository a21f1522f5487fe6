"""The masks that networks start with, dstrl's own and somebody else's."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from network_samples import run

from dstrl_cli import streams
from dstrl_cli.errors import DstrlError
from dstrl_cli.nets.initial import initial_layers
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.topology.initial.bernoulli import bernoulli_mask
from dstrl_cli.topology.initial.magnitude import magnitude_mask
from dstrl_cli.topology.initial.random import random_mask

WEIGHT = torch.ones(4, 5)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_random_masks_have_the_exact_count_and_no_favourite_position() -> None:
    g = generator()
    drawn = torch.stack([random_mask(WEIGHT, 0.25, 5, g) for _ in range(2000)])
    assert drawn.shape == (2000, 4, 5)
    assert (drawn.sum((-2, -1)) == 5).all()
    assert drawn.double().mean(0) == pytest.approx(0.25, abs=0.05)  # sd .0097


def test_bernoulli_masks_draw_every_position_by_itself() -> None:
    g = generator()
    drawn = torch.stack([bernoulli_mask(WEIGHT, 0.25, 5, g) for _ in range(4000)]).double()
    assert drawn.mean(0) == pytest.approx(0.25, abs=0.04)
    # the count is binomial: variance 20 .25 .75 = 3.75, which an exact count would make 0
    assert drawn.sum((-2, -1)).var() == pytest.approx(3.75, rel=0.15)
    assert bernoulli_mask(WEIGHT, 1.0, 20, g).all()


def test_magnitude_masks_keep_the_largest() -> None:
    weight = torch.tensor([[0.1, -0.9, 0.3], [-0.2, 0.5, 0.0]])
    expected = [[False, True, False], [False, True, False]]
    assert magnitude_mask(weight, 1 / 3, 2, generator()).tolist() == expected


def test_a_mask_is_drawn_for_one_layer_of_one_head() -> None:
    for draw in (random_mask, bernoulli_mask, magnitude_mask):
        with pytest.raises(ValueError, match=r"weight must be \[in, out\], not of shape \[20\]"):
            draw(WEIGHT.flatten(), 0.25, 5, generator())


def seeds_with_an_empty_layer(count: int, sizes: tuple[int, ...], sparsity: float) -> list[int]:
    """Seeds whose first draws, without a second try, leave a layer of an actor empty."""
    found = []
    for seed in range(count):
        g = streams.generator(seed, "actor/masks")
        draws = [bernoulli_mask(torch.ones(i, o), 1 - sparsity, 1, g) for i, o in pairwise(sizes)]
        if not all(mask.any() for mask in draws):
            found.append(seed)
    return found


def test_a_bernoulli_mask_without_connections_is_drawn_again_and_it_is_said() -> None:
    sizes = (4, 32, 1)  # 128 and 32 positions at 0.99: 1.28 and 0.32 connections are expected
    empty = seeds_with_an_empty_layer(20, sizes, 0.99)
    assert 0 < len(empty) < 20
    for seed in range(20):
        network = {"sparsity": 0.99, "allocation": "uniform", "initial_mask": "bernoulli"}
        plan = NetworkPlan("actor", sizes, 1, [run(seed, actor=network)], "cpu")
        told: list[str] = []
        masks = [mask for _, _, mask in initial_layers(plan, 0, told.append)]
        assert all(mask.any() for mask in masks)
        assert bool(told) == (seed in empty)
        said = r"the initial mask of actor, layer [01], was empty (once|\d+ times)"
        assert all(re.fullmatch(f"{said} and was drawn again", line) for line in told)


def test_engines_tell_of_masks_that_were_drawn_again() -> None:
    (seed, *_) = seeds_with_an_empty_layer(20, (4, 32, 1), 0.99)
    network = {"sparsity": 0.99, "allocation": "uniform", "initial_mask": "bernoulli"}
    plan = NetworkPlan("actor", (4, 32, 1), 1, [run(seed, actor=network)], "cpu")
    masked, sparse = MaskedNetwork(plan), SparseNetwork(plan)
    assert torch.equal(masked.active(), sparse.active())
    assert (masked.active() > 0).all()
    said = masked.take_messages()
    assert said == sparse.take_messages() != []
    assert masked.take_messages() == []


OUTSIDE = """
import torch

def first_rows(weight, density, budget, generator):
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[:budget] = True
    return mask.view_as(weight)

def numbers(weight, density, budget, generator):
    return weight

def nothing(weight, density, budget, generator):
    return torch.zeros_like(weight, dtype=torch.bool)

def broken(weight, density, budget, generator):
    raise KeyError("boom")
"""


def test_a_function_of_somebody_else_draws_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_masks.py").write_text(OUTSIDE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = run(0, 0.5, initial_mask="my_masks:first_rows")
    plan = NetworkPlan("critic", (4, 6, 2), 2, [config], "cpu")
    masks = [mask for _, _, mask in initial_layers(plan, 0)]
    assert masks[0].tolist() == [[[True] * 6] * 2 + [[False] * 6] * 2] * 2  # 12 of 24, both heads
    wrong = run(0, 0.5, initial_mask="my_masks:numbers")
    plan = NetworkPlan("critic", (4, 6, 2), 2, [wrong], "cpu")
    with pytest.raises(DstrlError, match=r"critic.initial_mask = 'my_masks:numbers' must return"):
        initial_layers(plan, 0)
    empty = run(0, 0.5, initial_mask="my_masks:nothing")
    plan = NetworkPlan("critic", (4, 6, 2), 2, [empty], "cpu")
    with pytest.raises(DstrlError, match=r"my_masks:nothing' leaves layer 0 of critic1 without"):
        initial_layers(plan, 0)
    broken = run(0, 0.5, initial_mask="my_masks:broken")
    plan = NetworkPlan("critic", (4, 6, 2), 2, [broken], "cpu")
    failed = r"critic.initial_mask = 'my_masks:broken' failed \(KeyError: 'boom', my_masks.py:16\)"
    with pytest.raises(DstrlError, match=failed):
        initial_layers(plan, 0)
