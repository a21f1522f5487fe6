"""Dropping by sign (SOK Alg. 2): how many of each sign, and which; numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rule_samples import one, rule, view
from torch import Tensor

from dstrl_cli.topology.sign import fraction_shares, half_shares, official_shares


def counts(*numbers: int) -> list[Tensor]:
    return [torch.tensor([[number]]) for number in numbers]


def shares(split: Any, zero: int, negative: int, positive: int, fraction: float) -> tuple[int, ...]:
    found = split(*counts(zero, negative, positive), fraction)
    return found.zero.item(), found.negative.item(), found.positive.item()


@pytest.mark.parametrize(
    ("zero", "negative", "positive", "fraction", "expected"),
    [
        (0, 10, 10, 0.5, (0, 5, 5)),
        (0, 30, 10, 0.1, (0, 3, 1)),
        (0, 0, 20, 0.1, (0, 0, 2)),
        (0, 5, 8, 0.25, (0, 1, 2)),  # int(3.25) = 3: 15 // 13 = 1 negative
        (2, 9, 9, 0.2, (2, 1, 1)),  # int(4) = 4, the two zeros first
        (7, 5, 8, 0.2, (4, 0, 0)),  # zeros alone are more than enough
        (0, 50, 50, 0.29, (0, 14, 15)),  # 29, though 0.29 * 100 falls just short of it
    ],
)
def test_fraction_takes_the_same_share_of_each_sign(
    zero: int, negative: int, positive: int, fraction: float, expected: tuple[int, ...]
) -> None:
    assert shares(fraction_shares, zero, negative, positive, fraction) == expected


@pytest.mark.parametrize(
    ("zero", "negative", "positive", "fraction", "expected"),
    [
        (0, 30, 10, 0.1, (0, 2, 2)),  # c = 4: two of each, whatever the balance
        (0, 10, 10, 0.25, (0, 2, 3)),  # c = 5: the odd one is positive
        (0, 1, 19, 0.2, (0, 1, 3)),  # too few negatives: positives make up
        (0, 19, 1, 0.2, (0, 3, 1)),
        (0, 0, 20, 0.1, (0, 0, 2)),
        (2, 9, 9, 0.2, (2, 1, 1)),
        (0, 90, 90, 0.35, (0, 31, 32)),  # 63, though 0.35 * 180 falls just short of it
    ],
)
def test_half_takes_as_many_of_each_sign(
    zero: int, negative: int, positive: int, fraction: float, expected: tuple[int, ...]
) -> None:
    assert shares(half_shares, zero, negative, positive, fraction) == expected


@pytest.mark.parametrize(
    ("negative", "positive", "expected"),
    [
        # 8216 - int(7805.2) = 411; int(410.8) + 1 = 411: 822 of 16432
        (8216, 8216, (0, 411, 411)),
        # 8220 - int(7809.0) = 411; int(411.6) + 1 = 412: 823 of 16452
        (8220, 8232, (0, 411, 412)),
        (0, 1, (0, 0, 1)),  # int(.05) + 1 = 1
        (1, 0, (0, 1, 0)),  # 1 - int(.95) = 1; there is no positive to drop
    ],
)
def test_official_counts_of_sok_code(
    negative: int, positive: int, expected: tuple[int, ...]
) -> None:
    assert shares(official_shares, 0, negative, positive, 0.05) == expected


def test_official_drops_every_zero() -> None:
    assert shares(official_shares, 9, 100, 100, 0.05) == (9, 5, 6)


@pytest.mark.parametrize(
    ("split", "kept"),
    [
        # active: -6 -5 -4 -3 -2 -1 and 10 20; a half is 4
        ("fraction", [-6.0, -5.0, -4.0, 20.0]),  # 4 6 // 8 = 3 negatives and 1 positive
        ("half", [-6.0, -5.0, -4.0, -3.0]),  # two of each
        ("official", [-6.0, -5.0, -4.0]),  # 6 - int(3) = 3 and int(1) + 1 = 2
    ],
)
def test_dropped_are_the_smallest_positives_and_the_largest_negatives(
    split: str, kept: list[float]
) -> None:
    weight = one([[-1.0, 10.0, -6.0, 0.0], [-3.0, -2.0, 0.0, 0.0], [-5.0, 20.0, -4.0, 0.0]])
    found = rule(
        drop="sign", sign_split=split, drop_fraction=0.5, final_drop=True, end=1
    )  # the final drop shows what goes
    (layer,) = found.change(view([weight]), 1)
    assert sorted(weight[layer.mask].tolist()) == sorted(kept)


@pytest.mark.parametrize("split", ["fraction", "half", "official"])
def test_active_weights_of_exactly_zero_go_first_and_inactive_ones_never(split: str) -> None:
    weight = one([[0.0, 0.1, -0.1, 9.0], [0.0, 8.0, -8.0, -9.0]])
    mask = torch.ones(1, 1, 2, 4, dtype=torch.bool)
    mask[..., 1, 0] = False  # 7 active, one of them zero
    found = rule(drop="sign", sign_split=split, drop_fraction=0.15, final_drop=True, end=1)
    (layer,) = found.change(view([weight], [mask]), 1)
    assert not layer.mask[0, 0, 0, 0]
    assert not layer.mask[0, 0, 1, 0]
    # int(.15 7) = 1; official: 1 zero, 3 - int(2.55) = 1 negative, int(.45) + 1 = 1 positive
    assert layer.dropped.item() == (3 if split == "official" else 1)
    assert layer.mask[0, 0].sum() == 7 - layer.dropped.item()
    assert layer.mask[0, 0, 0, 1].item() == (split != "official")
