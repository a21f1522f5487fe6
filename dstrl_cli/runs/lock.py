"""The lock of a run folder: one process at a time writes to it.

The operating system holds the lock for an open file, and releases it when the process that opened
the file ends, however it ends. The file itself, which names the holder, is removed by the holder.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import NEVER_A_LINK, is_file

LOCK_FILE = ".lock"

TRIES, PAUSE_S = 5, 0.01
"""How often a lock is tried: a process that only asks whether it is held has it for an instant."""

_held: set[int] = set()


class InUse(InputError):
    """Another process holds the folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"folder {path} is in use by another dstrl: wait for it, or choose another --out"
        )


def check_unused(path: Path) -> None:
    """Raise InUse where another process holds the folder."""
    if in_use(path):
        raise InUse(path)


def in_use(path: Path) -> bool:
    """Whether a live process holds the folder; never creates the lock."""
    return path in holders([path])


def holder(path: Path) -> str | None:
    """Return which process holds the folder, as `process 123 on host`; None where none does."""
    return holders([path]).get(path)


def holders(paths: Iterable[Path]) -> dict[Path, str]:
    """Return which of the folders are held by live processes, and by which, as `holder` does.

    Who only asks holds a lock for an instant: what seems to be held is looked at again after a
    pause, which is one for all.
    """
    held = [path for path in paths if _is_locked(path)]
    if held:
        time.sleep(PAUSE_S)
    return {path: _holder(path) for path in held if _is_locked(path)}


def _is_locked(path: Path) -> bool:
    """Whether the folder's lock is there and cannot be had."""
    if not is_file(path / LOCK_FILE):
        return False
    descriptor = -1
    for mode in (os.O_RDWR, os.O_RDONLY):  # NFS locks no file that is open for reading alone
        with suppress(OSError):
            descriptor = os.open(path / LOCK_FILE, mode | NEVER_A_LINK)
            break
    if descriptor < 0:
        return False
    try:
        return not _lock(descriptor, tries=1)
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)


def _holder(path: Path) -> str:
    """Return what a lock that is held says of its holder."""
    with suppress(OSError, UnicodeDecodeError, ValueError):
        process, host = (path / LOCK_FILE).read_text(encoding="utf-8")[:300].split()
        return f"process {int(process)} on {host}"
    return "another process"


def acquire(path: Path) -> int:
    """Return a descriptor that holds the folder's lock.

    Raises InUse where another process holds it, InputError where the folder cannot be written.
    """
    file = path / LOCK_FILE
    while True:
        descriptor = -1
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | NEVER_A_LINK, 0o666)
            if not _lock(descriptor):
                raise InUse(path)
            # The previous holder may have removed the file between our opening and locking it.
            if os.path.samestat(os.fstat(descriptor), file.lstat()):
                _name_holder(descriptor)
                _held.add(descriptor)
                return descriptor
        except FileNotFoundError:
            if not path.is_dir():
                raise _unwritable(path, "it is no longer there") from None
        except OSError as error:
            raise _unwritable(path, error.strerror) from error
        finally:
            if descriptor >= 0 and descriptor not in _held:
                os.close(descriptor)


def release(path: Path, descriptor: int) -> None:
    """Give back the lock that `acquire` returned."""
    with suppress(OSError):  # somebody has removed the folder
        (path / LOCK_FILE).unlink()
    _held.discard(descriptor)
    os.close(descriptor)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises InUse where another process holds it."""
    descriptor = acquire(path)
    try:
        yield
    finally:
        release(path, descriptor)


def _lock(descriptor: int, tries: int = TRIES) -> bool:
    """Lock an open file, and return whether that worked."""
    from filelock import lock_descriptor  # takes longer to import than most folders have a use for

    for _ in range(tries - 1):
        if lock_descriptor(descriptor, blocking=False):
            return True
        time.sleep(PAUSE_S)
    return lock_descriptor(descriptor, blocking=False)


def _name_holder(descriptor: int) -> None:
    """Write into the lock file which process holds it."""
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode())


def _unwritable(path: Path, cause: str | None) -> InputError:
    return InputError(f"folder {path} cannot be written ({cause}): choose another --out")


def _leave_locks_to_the_parent() -> None:
    """Close the locks that a forked process inherited: it would hold them after its parent."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)
