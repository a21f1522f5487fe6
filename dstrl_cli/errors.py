"""The two errors that reach a user, and the words in which others and wrong names are told.

Errors are raised once, at the edge where input enters; the core trusts what it is given.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path


class DstrlError(Exception):
    """A run failed (exit code 1)."""


class InputError(DstrlError):
    """The input was wrong (exit code 2): the message names the key, the value and the remedy."""


def raised_at(error: BaseException, before: str = "", after: str = "") -> str:
    """Return the file and line that raised an error, `agent.py:12`, between two texts.

    Nothing for an error that was not raised.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    return f"{before}{Path(frames[-1].filename).name}:{frames[-1].lineno}{after}"


def described(error: BaseException, longest: int | None = None) -> str:
    """Return an error of unexpected code in one line: `KeyError: 'x', agent.py:12`.

    `longest` is the number of characters of its own message after which that is cut off.
    """
    said = " ".join(str(error).split())[:longest]
    return f"{type(error).__name__}: {said}{raised_at(error, ', ')}"


def stopped_by(error: Exception) -> str:
    """Return in one line what stopped the training, and where."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return described(error)


MAX_NAME = 100
"""Characters of a wrong name that a message repeats."""


def suggest(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return "unknown KIND 'NAME'" with the closest match, where there is one, and the valid names.

    Example: ``suggest("method", "rlx3", ["rlx2", "dst"])`` gives
    ``unknown method 'rlx3'; did you mean 'rlx2'? Valid: dst, rlx2``.
    """
    names = sorted(valid)
    name = name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."
    by_lower = {item.lower(): item for item in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"; did you mean '{by_lower[close[0]]}'?" if close else "."
    shown = ", ".join(names) if len(names) <= 40 else f"{', '.join(names[:40])}, ..."
    return f"unknown {kind} '{name}'{hint} Valid: {shown}"
