"""How loops are compiled by Numba: one decorator, and its cache of compiled code on disk.

Compiled code runs on one thread and releases the interpreter lock. It is compiled at the first use
after installation and then loaded from disk. The loops are in `nets.sparse.kernels`,
`nets.sparse.simd` and `replay.kernels`.
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


def last_change(sources: Sequence[str]) -> float:
    """Return when one of the files was last changed, in seconds since the epoch."""
    return max(Path(source).stat().st_mtime for source in sources)


def are_cached(functions: Sequence[Any], sources: Sequence[str]) -> bool:
    """Return whether functions are compiled on disk, and their sources have not changed since."""
    return all(
        any(
            index.stat().st_mtime >= last_change(sources)
            for index in Path(function.stats.cache_path).glob(
                f"*.{function.py_func.__qualname__}-*.nbi"
            )
        )
        for function in functions
    )


def discard_stale(function: Any, sources: Sequence[str]) -> None:
    """Remove a module's compiled code if one of its sources changed since.

    The compiler itself only notices changes of the module's own file.

    Args:
        function: any compiled function of the module.
        sources: the module's file first, then those that it takes code from.
    """
    for file in Path(function.stats.cache_path).glob(f"{Path(sources[0]).stem}.*.nb[ci]"):
        with suppress(OSError):  # another process was faster, or the installation is read-only
            if file.stat().st_mtime < last_change(sources):
                file.unlink()
