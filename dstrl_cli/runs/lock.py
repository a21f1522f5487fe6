"""The lock of a run folder: one process at a time writes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstrl_cli.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: folders are then not locked
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"

_IN_USE = "folder {} is in use by another dstrl: wait for it, or choose another --out"


def check_unused(path: Path) -> None:
    """Raise InputError where another process holds the folder."""
    if in_use(path):
        raise InputError(_IN_USE.format(path))


def in_use(path: Path) -> bool:
    """Whether a live process holds the folder; never creates the lock."""
    if fcntl is None or not is_file(path / LOCK_FILE):
        return False
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def acquire(path: Path) -> int:
    """Return a descriptor that holds the folder's lock. Raises InputError where it is taken."""
    file = path / LOCK_FILE
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"folder {path} cannot be written ({error.strerror}): choose another --out"
            ) from error
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file between our opening and locking it.
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise InputError(_IN_USE.format(path)) from error
        os.close(descriptor)


def release(path: Path, descriptor: int) -> None:
    """Give back the lock that `acquire` returned."""
    (path / LOCK_FILE).unlink(missing_ok=True)
    os.close(descriptor)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises InputError where another process holds it."""
    descriptor = acquire(path)
    try:
        yield
    finally:
        release(path, descriptor)


def is_file(path: Path) -> bool:
    """Whether there is such a file that can be seen: `Path.is_file` may raise."""
    return os.path.isfile(path)  # noqa: PTH113
