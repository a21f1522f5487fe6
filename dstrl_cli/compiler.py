"""How loops are compiled by Numba: one decorator, and its cache of compiled code on disk.

Compiled code runs on one thread and releases the interpreter lock. It is compiled at the first use
after installation and then loaded from disk: from beside the module, from the user's folder of
caches, or, where neither can be written, from a folder for temporary files. The variable
`NUMBA_CACHE_DIR` names another one. The loops are in `nets.sparse` and `replay.kernels`.
"""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

config: Any = numba.config

_OPTIONS: Any = {
    "nogil": True,
    "error_model": "numpy",
    # Sums may be reassociated, so that they vectorise; NaN and infinity keep their meaning.
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}


_PREFIX = "dstrl-numba-"


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call; see above for where its code is kept."""
    for folder in (None, _temporary_folder):
        if folder is not None and not _keep_in(folder()):
            break
        with suppress(RuntimeError):  # no folder can be written
            return numba.njit(cache=True, **_OPTIONS)(function)
    return numba.njit(**_OPTIONS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of those that call it: the call itself costs nothing."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


def _keep_in(folder: str | None) -> bool:
    """Make a folder that of compiled code, here and in processes that are started."""
    if folder is None:
        return False
    config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"] = folder
    return True


@cache
def _temporary_folder() -> str | None:
    """Return a folder for compiled code among the temporary files, or None where there is none.

    It is the user's alone: loading compiled code runs it.
    """
    owner = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir(), f"{_PREFIX}{owner}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if hasattr(os, "getuid"):
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == owner
            if not ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return tempfile.mkdtemp(prefix=_PREFIX)
    except OSError:
        return None
    return str(folder)


def kept_elsewhere() -> str | None:
    """Return the folder among temporary files in which compiled code is kept, if it is."""
    folder = str(config.CACHE_DIR or "")
    return folder if Path(folder).name.startswith(_PREFIX) else None


def last_change(sources: Sequence[str]) -> float:
    """Return when one of the files was last changed, in seconds since the epoch."""
    return max(Path(source).stat().st_mtime for source in sources)


def are_cached(functions: Sequence[Any], sources: Sequence[str]) -> bool:
    """Return whether functions are compiled on disk, and their sources have not changed since."""
    return all(
        any(
            index.stat().st_mtime >= last_change(sources)
            for index in _kept(function, f"*.{function.py_func.__qualname__}-*.nbi")
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
    for file in _kept(function, f"{Path(sources[0]).stem}.*.nb[ci]"):
        with suppress(OSError):  # another process was faster, or the installation is read-only
            if file.stat().st_mtime < last_change(sources):
                file.unlink()


def _kept(function: Any, pattern: str) -> Iterable[Path]:
    """Return the files of a function's compiled code; none where it is not kept."""
    folder = function.stats.cache_path
    return () if folder is None else Path(folder).glob(pattern)
