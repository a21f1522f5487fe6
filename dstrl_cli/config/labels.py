"""The label of a sparsity, as folders of runs carry it: written and read here alone.

`s0.95` means both networks, `a0.96-c0.88` actor and critics, `s0` two dense networks.
"""

from __future__ import annotations

import re

_NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"

LABEL_PATTERN = rf"(?:s{_NUMBER}|a{_NUMBER}-c{_NUMBER})"
"""A regular expression that matches a whole label."""

_READABLE = re.compile(
    rf"s?(?P<both>{_NUMBER})|a(?P<actor>{_NUMBER})[-/]c(?P<critic>{_NUMBER})", re.ASCII
)


def format_sparsity_label(actor: float, critic: float) -> str:
    """Return the label of the sparsities of actor and critics, to ten digits."""
    first, second = f"{actor:.10g}", f"{critic:.10g}"
    return f"s{first}" if first == second else f"a{first}-c{second}"


def parse_sparsity_label(text: str) -> tuple[float, float]:
    """Return the sparsities of actor and critics that a label names.

    `0.95` and `a0.96/c0.88`, as published tables print them, are read too. Raises ValueError for
    anything else.
    """
    match = _READABLE.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text}' is no sparsity label, such as s0.95 or a0.96-c0.88")
    actor, critic = match["actor"] or match["both"], match["critic"] or match["both"]
    return float(actor), float(critic)
