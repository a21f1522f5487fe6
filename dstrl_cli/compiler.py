"""How loops are compiled here: one decorator, and the cache of what was compiled on disk.

Compiled code is single-threaded, releases the interpreter lock, and is compiled once for an
installation. What it computes is its own file's business (`nets.kernels`, `replay_kernels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba

jit: Any = numba.njit(
    nogil=True,
    cache=True,
    error_model="numpy",
    # Sums may be reassociated, so that they vectorise; NaN and infinity keep their meaning.
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)


def changed(sources: Sequence[str]) -> float:
    """Return when the last of some files changed."""
    return max(Path(source).stat().st_mtime for source in sources)


def are_cached(functions: Sequence[Any], sources: Sequence[str]) -> bool:
    """Return whether functions were compiled, and are on disk, since their sources changed."""
    return all(
        any(
            index.stat().st_mtime >= changed(sources)
            for index in Path(function.stats.cache_path).glob(
                f"*.{function.py_func.__qualname__}-*.nbi"
            )
        )
        for function in functions
    )


def discard_stale(function: Any, sources: Sequence[str]) -> None:
    """Remove what was compiled before a source of it changed: the compiler watches one file alone.

    Args:
        function: any compiled function of the module that is meant.
        sources: the module's file first, then those that it takes code from.
    """
    for file in Path(function.stats.cache_path).glob(f"{Path(sources[0]).stem}.*.nb[ci]"):
        with suppress(OSError):  # another process was faster, or the installation is read-only
            if file.stat().st_mtime < changed(sources):
                file.unlink()
