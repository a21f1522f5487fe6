"""What `dstrl verify` found, in words and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dstrl_cli.report.words import counted
from dstrl_cli.training.verify import Difference, Verification

UNKNOWN = "unknown"


def lines(found: Verification) -> Iterator[str]:
    """Yield how far run and repetition are equal, or where they differ, and what is to be known."""
    yield outcome(found)
    if found.difference is None:
        yield f"compared: {', '.join(f'{name} ({n:,})' for name, n in found.rows.items())}"
        differing = [f"{name} {a} | {b}" for name, a, b in _origins(found) if a != b]
        if differing:
            yield f"although these differ (the run | this repetition): {'; '.join(differing)}"
    else:
        yield from _difference_lines(found.difference)
        yield "where they trained (the run | this repetition):"
        other_processor = False
        for name, theirs, ours in _origins(found):
            same = "" if theirs == ours else "  <- differs"
            yield f"  {name}: {theirs} | {ours}{same}"
            other_processor |= name == "processor" and theirs != ours
        if other_processor:
            yield (
                "another processor rounds differently, which is enough: to the last digit a run "
                "repeats on its own kind of processor"
            )
    if found.absent:
        yield f"not compared, the run has none: {', '.join(found.absent)}"
    yield from (f"note: {note}" for note in found.notes)


def outcome(found: Verification) -> str:
    """Return in one line what was found."""
    if found.difference is None:
        rows = counted(sum(found.rows.values()), "row")
        return f"equal through step {found.step:,} ({rows}, {found.hashes} hashes)"
    where = ", ".join(filter(None, (found.difference.where, found.difference.column)))
    return f"differs first at step {found.difference.step:,}, in {found.difference.file}: {where}"


def _difference_lines(found: Difference) -> Iterator[str]:
    missing = "has no such row"
    yield f"  the run:         {missing if found.theirs is None else found.theirs}"
    yield f"  this repetition: {missing if found.ours is None else found.ours}"


def _origins(found: Verification) -> Iterator[tuple[str, str, str]]:
    """Yield (name, theirs, ours) of versions, commit, processor, device, engine and threads."""
    theirs, ours = (
        {**(each.get("versions") or {}), **{k: v for k, v in each.items() if k not in HIDDEN}}
        for each in (found.theirs, found.ours)
    )
    for name in dict.fromkeys((*ours, *theirs)):
        yield name, str(theirs.get(name, UNKNOWN)), str(ours.get(name, UNKNOWN))


HIDDEN = ("versions", "command", "resumed", "extended_from")
"""What of the origin of a run says nothing about its numbers, or is shown one by one."""


def as_json(run: Path, found: Verification) -> Mapping[str, Any]:
    """Return the same for programs."""
    return {"run": str(run), "equal": found.difference is None, **asdict(found)}
