"""Lists and ranges of the command line, by hand and over random decimals."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.config.ranges import parse_integers, parse_names, parse_numbers, parse_steps
from dstrl_cli.errors import InputError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.15:0.95", [0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95]),
        ("0.1:0.9", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        ("0.5:0.9:0.15", [0.5, 0.65, 0.8]),  # 0.95 lies beyond the end
        ("0.9,0.95", [0.9, 0.95]),
        ("0.9, 0.5:0.7", [0.9, 0.5, 0.6, 0.7]),
        ("0.9:0.9", [0.9]),
        ("0.5,0.5", [0.5]),
        (0.95, [0.95]),
        ([0.1, "0.3:0.4"], [0.1, 0.3, 0.4]),
    ],
)
def test_numbers(text: Any, numbers: list[Any]) -> None:
    assert parse_numbers(text, "--sparsity") == numbers


@pytest.mark.parametrize(
    "text", ["", "a", "0.1:", "0.9:0.1", "0.1:0.9:0", "0.1:0.9:-0.1", "1:2:3:4", "nan", "0:1:1e-9"]
)
def test_wrong_numbers_name_the_flag(text: Any) -> None:
    with pytest.raises(InputError, match=r"--sparsity"):
        parse_numbers(text, "--sparsity")


@given(st.integers(0, 99), st.integers(1, 30), st.integers(0, 40))
def test_ranges_are_exact_decimals(start: int, step: int, count: int) -> None:
    low, by = Decimal(start) / 100, Decimal(step) / 100
    numbers = parse_numbers(f"{low}:{low + count * by}:{by}", "--sparsity")
    assert numbers == [float(low + i * by) for i in range(count + 1)]
    assert all(len(repr(number)) <= 5 for number in numbers)  # 0.30000000000000004 never


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-4", [0, 1, 2, 3, 4]),
        ("1,3,5", [1, 3, 5]),
        ("0-2,7", [0, 1, 2, 7]),
        ("2,0-2", [2, 0, 1]),
        (3, [3]),
        ([0, 1], [0, 1]),
    ],
)
def test_integers(text: Any, numbers: list[Any]) -> None:
    assert parse_integers(text, "--seeds") == numbers


@pytest.mark.parametrize("text", ["", "-1", "4-0", "a", "1.5", "0-", "0-99999999"])
def test_wrong_integers_name_the_flag(text: Any) -> None:
    with pytest.raises(InputError, match=r"--seeds"):
        parse_integers(text, "--seeds")


def test_names() -> None:
    assert parse_names("dense, sst,dense", "--dst") == ["dense", "sst"]
    with pytest.raises(InputError, match=r"--dst: ',' names no value"):
        parse_names(",", "--dst")


@pytest.mark.parametrize(("text", "steps"), [("1e6", 1_000_000), (5000, 5000), ("1e9", 10**9)])
def test_steps(text: Any, steps: int) -> None:
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["0", "1.5", "1e10", "many", "-5", "inf"])
def test_wrong_steps(text: Any) -> None:
    with pytest.raises(InputError, match=r"--steps: .* from 1 to 1e9"):
        parse_steps(text)
