"""How loops are compiled by Numba: one decorator, and its cache of compiled code on disk.

Compiled code runs on one thread and releases the interpreter lock. It is compiled at the first use
after installation and then loaded from disk: from beside the module, from the user's folder of
caches, or, where neither can be written, from a folder for temporary files. The variable
`NUMBA_CACHE_DIR` names another one. The loops are in `nets.sparse`,
`replay.kernels` and `algos.compiled`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba
from numba.core.caching import FunctionCache
from numba.core.runtime._nrt_python import c_helpers  # type: ignore[import-not-found]
from typing_extensions import override

config: Any = numba.config

_OPTIONS: Any = {
    "nogil": True,
    "error_model": "numpy",
    # Sums may be reassociated, so that they vectorise; NaN and infinity keep their meaning.
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}

_INNER: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_PREFIX = "dstrl-numba-"


def _keep_copies_apart() -> None:
    """Let every function that is compiled have copies of its own of those that it calls.

    Otherwise such copies share a name, and which of them runs depends on what was compiled or
    loaded before. They differ in how sums are associated: the run that compiles would give other
    numbers than the runs that load.
    """
    from numba.core import codegen

    libraries: Any = codegen.CPUCodeLibrary

    optimize = getattr(libraries, "_optimize_final_module", None)
    if optimize is None:  # another version of the compiler
        return

    def with_own_copies(library: Any) -> None:
        for each in library._final_module.functions:
            if each.name.startswith("_ZN") and each.linkage.name == "linkonce_odr":
                each.linkage = "internal"
        optimize(library)

    libraries._optimize_final_module = with_own_copies


_keep_copies_apart()


def jit(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call; see above for where its code is kept."""
    return _stored(function)


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that only compiled code calls, with the first function that calls it.

    What would take its arguments out of Python objects is left out: that compiles longer than most
    loops.
    """
    return _stored(function, **_INNER)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function as a part of those that call it: the call itself costs nothing."""
    return numba.njit(forceinline=True, **_OPTIONS, **_INNER)(function)


def _stored(function: Callable[..., Any], **more: Any) -> Any:
    """Return what compiles a function, and keeps its code on disk where there is a place for it."""
    for folder in (None, _temporary_folder):
        if folder is not None and not _keep_in(folder()):
            break
        with suppress(RuntimeError):  # no folder can be written
            compiled: Any = numba.njit(**_OPTIONS, **more)(function)
            compiled._cache = StoredCode(function)
            return compiled
    return numba.njit(**_OPTIONS, **more)(function)


class StoredCode(FunctionCache):
    """Loads a function's code without what only compiling needs: 40 MB and a third of a second."""

    @override
    def load_overload(self, sig: Any, target_context: Any) -> Any:
        _name_helpers()
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


@cache
def _name_helpers() -> None:
    """Tell LLVM the addresses of the compiler's C functions, by which stored code calls them."""
    for name, address in c_helpers.items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


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
    folder = Path(tempfile.gettempdir(), f"{_PREFIX}{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        if not ours or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return tempfile.mkdtemp(prefix=_PREFIX)
    except OSError:
        return None
    return str(folder)


def kept_elsewhere() -> str | None:
    """Return the folder among temporary files in which compiled code is kept, if it is."""
    folder = str(config.CACHE_DIR or "")
    return folder if Path(folder).name.startswith(_PREFIX) else None


def compile_in_turns(modules: Sequence[Any]) -> None:
    """Let modules compile their functions, or load them from disk.

    Of several processes that begin at the same time, each takes a module that no other compiles, so
    that none is compiled twice.

    Args:
        modules: each with `FUNCTIONS`, `SOURCES` and `compile_all`.
    """
    left = list(modules)
    for wait in (False, True):
        for module in list(left):
            with _turn(module, wait) as ours:
                if ours:
                    module.compile_all()
                    left.remove(module)


@contextmanager
def _turn(module: Any, wait: bool) -> Iterator[bool]:
    """Hold what keeps other processes from compiling a module; yield whether it is held."""
    folder = module.FUNCTIONS[0].stats.cache_path
    if folder is None or are_cached(module.FUNCTIONS, module.SOURCES):
        yield True
        return
    from filelock import FileLock, Timeout  # only compiling needs it

    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder, f"{module.__name__}.lock"), timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError):  # a file system without locks: compile it twice
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


@cache
def let_go() -> None:
    """Take the compiler itself out of this process's memory, once: training needs only its code.

    These 50 MB are pages as they lie in the compiler's library; whatever compiles later reads them
    from there again. Only Linux says which pages those are; elsewhere nothing happens.
    """
    with suppress(OSError, AttributeError):
        give_back = ctypes.CDLL(None).madvise
        give_back.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for begin, end in _unchanged_pages("libllvmlite"):
            give_back(begin, end - begin, mmap.MADV_DONTNEED)


def _unchanged_pages(library: str) -> list[tuple[int, int]]:
    """Return the ranges of addresses at which a library lies in memory as it does in its file."""
    found, here = [], None
    for line in Path("/proc/self/smaps").read_text(errors="replace").splitlines():
        first, *words = line.split()
        if "-" in first:  # a range: 7f00-7fff r-xp 00000000 08:01 1234 /usr/lib/libllvmlite.so
            here = first if library in words[-1] else None
        elif here is not None and first == "Anonymous:" and words[0] == "0":
            begin, _, end = here.partition("-")
            found.append((int(begin, 16), int(end, 16)))
    return found


def last_change(sources: Sequence[str]) -> float:
    """Return when one of the files, or how they are compiled, was last changed.

    In seconds since the epoch.
    """
    return max(Path(source).stat().st_mtime for source in (*sources, __file__))


def are_cached(functions: Sequence[Any], sources: Sequence[str]) -> bool:
    """Return whether functions are compiled on disk, and their sources have not changed since."""
    return all(
        any(
            index.stat().st_mtime >= last_change(sources)
            for index in _kept(
                function, f"{_module(function)}.{function.py_func.__qualname__}-*.nbi"
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
    for file in _kept(function, f"{Path(sources[0]).stem}.*.nb[ci]"):
        with suppress(OSError):  # another process was faster, or the installation is read-only
            if file.stat().st_mtime < last_change(sources):
                file.unlink()


def _module(function: Any) -> str:
    """Return the name of a function's file, with which those of its compiled code begin."""
    return Path(function.py_func.__code__.co_filename).stem


def _kept(function: Any, pattern: str) -> Iterable[Path]:
    """Return the files of a function's compiled code; none where it is not kept."""
    folder = function.stats.cache_path
    return () if folder is None else Path(folder).glob(pattern)
