"""Sparsity labels: what is written can be read, and nothing else passes for one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.config.labels import LABEL_PATTERN, format_sparsity_label, parse_sparsity_label


@pytest.mark.parametrize(
    ("actor", "critic", "label"),
    [
        (0.95, 0.95, "s0.95"),
        (0.96, 0.88, "a0.96-c0.88"),
        (0, 0.5, "a0-c0.5"),
        (0.0, 0.0, "s0"),
        (1e-6, 1e-6, "s1e-06"),
        (0.1 + 0.2, 0.3, "s0.3"),
    ],
)
def test_labels_by_hand(actor: float, critic: float, label: str) -> None:
    assert format_sparsity_label(actor, critic) == label


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("0.95", (0.95, 0.95)),
        ("0", (0, 0)),
        ("a0.90/c0.85", (0.9, 0.85)),
        ("a0.96-c0.88", (0.96, 0.88)),
    ],
)
def test_published_tables_labels_are_read_too(text: str, pair: tuple[float, float]) -> None:
    assert parse_sparsity_label(text) == pair


@given(*[st.integers(0, 10**9 - 1)] * 2)
def test_what_is_written_can_be_read(first: int, second: int) -> None:
    actor, critic = first / 10**9, second / 10**9
    label = format_sparsity_label(actor, critic)
    assert re.fullmatch(LABEL_PATTERN, label)
    assert parse_sparsity_label(label) == (actor, critic)


@pytest.mark.parametrize(
    "text", ["", "s", "dense", "seed0", "a0.9", "a0.9-0.8", "s0.9-c0.8", "s-1"]
)
def test_anything_else_is_refused(text: str) -> None:
    assert not re.fullmatch(LABEL_PATTERN, text)
    with pytest.raises(ValueError, match="is no sparsity label"):
        parse_sparsity_label(text)
