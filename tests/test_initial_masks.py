"""The masks that networks start with, dstrl's own and somebody else's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from network_samples import run

from dstrl_cli.errors import DstrlError
from dstrl_cli.nets.initial import initial_layers
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.topology.initial import bernoulli_mask, magnitude_mask, random_mask

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


OUTSIDE = """
import torch

def first_rows(weight, density, budget, generator):
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[:budget] = True
    return mask.view_as(weight)

def numbers(weight, density, budget, generator):
    return weight
"""


def test_a_function_of_somebody_else_draws_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_masks.py").write_text(OUTSIDE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = run(0, 0.5, initial_mask="my_masks:first_rows")
    plan = NetworkPlan("critic", (4, 6, 2), 2, [config], 1, "cpu")
    masks = [mask for _, _, mask in initial_layers(plan, 0)]
    assert masks[0].tolist() == [[[True] * 6] * 2 + [[False] * 6] * 2] * 2  # 12 of 24, both heads
    wrong = run(0, 0.5, initial_mask="my_masks:numbers")
    plan = NetworkPlan("critic", (4, 6, 2), 2, [wrong], 1, "cpu")
    with pytest.raises(DstrlError, match=r"critic.initial_mask = 'my_masks:numbers' must return"):
        initial_layers(plan, 0)
