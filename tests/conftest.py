"""Settings of all tests: one thread, the default of a run and the fastest on tiny networks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _restore_denormals() -> Iterator[None]:
    """Undo what training sets for the process: hypothesis refuses to draw floats without them."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
