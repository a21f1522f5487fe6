"""What a run's folder holds of attempts to train it: a later look sees whether there was another.

Nothing is known of when: who plans a run notes what is there before anything else of its folder is
read, and compares when the folder is locked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, written_at
from dstrl_cli.runs.summary import read_summary


@dataclass(frozen=True)
class Left:
    """What attempts left.

    Attributes:
        summary: of the last one; None: it left none.
        saved: when the checkpoint was written; None: there is none.
    """

    summary: Mapping[str, Any] | None = None
    saved: int | None = None


NOTHING = Left()
"""No attempt was made, or none left anything."""


def left_in(path: Path) -> Left:
    """Return what attempts have left in a run's folder by now."""
    return Left(read_summary(path), written_at(path / CHECKPOINT_FOLDER))
