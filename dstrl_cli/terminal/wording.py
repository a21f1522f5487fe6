"""Numbers and ends of runs in words, as screens and overviews show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dstrl_cli.runs.status import FINISHED

Row = Mapping[str, Any]


def ending(label: str, summary: Row) -> str:
    """Return in one line how a run ended."""
    status = str(summary.get("status"))
    parts = [f"{status:<11}", label]
    if (result := final_return(summary)) is not None and status == FINISHED:
        parts.append(f"return {result}")
    if error := summary.get("error"):
        parts.append(str(error))
    return " ".join(parts)


def final_return(summary: Row) -> str | None:
    """Return `mean ± std` of the last evaluation, or None."""
    result = summary.get("final_return") or {}
    if result.get("mean") is None:
        return None
    return f"{number(result['mean'])} ± {number(result.get('std'))}"


def number(value: Any) -> str:
    """Return a number in about four digits; `-` where there is none."""
    if value is None:
        return "-"
    value = float(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def count(value: Any) -> str:
    """Return a whole number with thousands separated; `-` where there is none."""
    return "-" if value is None else f"{int(value):,}"


def progress(done: int, of: int, short: bool = False) -> str:
    """Return how far something has come: `200/1,000`, or `20%` where there is little room."""
    return f"{done / of:.0%}" if short else f"{count(done)}/{count(of)}"


def success_words(rate: float | None) -> list[str]:
    """Return a success rate as `success 80%`, or nothing where none is known."""
    return [] if rate is None else [f"success {rate:.0%}"]
