"""Writing files: whole ones put in place at once, and rows at the end of others.

A reader or a kill never sees half of a whole file. No link is followed: one that somebody planted
in a run folder is replaced, or refused, and what it points to stays as it is.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from dstrl_cli.config.readfile import NotReadable
from dstrl_cli.errors import DstrlError, InputError

CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file would be larger than this system or a limit (ulimit -f) allows",
    errno.EROFS: "the file system is read-only",
    errno.ELOOP: "it is a link, which may lead to any file",
}
"""Why a file cannot be written, in words that say more than the system's."""

NEVER_A_LINK = os.O_NOFOLLOW
"""Flag for `os.open` of a file that must not be a link to another one."""


def write(path: Path, data: bytes) -> None:
    """Put a whole file in place at once.

    Raises DstrlError where it cannot be written; a former file is then still there.
    """
    try:
        with replacing(path) as temporary, create(temporary) as file:
            file.write(data)
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> DstrlError:
    """Return the error for a file that could not be written, with the cause."""
    cause = CAUSES.get(error.errno or 0) or error.strerror or str(error)
    return DstrlError(f"{path} cannot be written: {cause}")


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """Give the name of a file beside `path`, ending in `suffix`, that the block writes.

    The file then takes the place of `path` at once. Where the block raises, it is removed, and
    `path` stays as it was.
    """
    temporary = _beside(path, suffix)
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.part{suffix}")


def create(path: Path) -> BinaryIO:
    """Return a new file, open for writing; what a killed process left under its name goes.

    Raises OSError where it cannot be made, or where something takes its name just then.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NEVER_A_LINK
    return os.fdopen(os.open(path, flags, 0o666), "wb")


def sync_file(path: Path) -> None:
    """Bring what a file holds to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | NEVER_A_LINK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_file(path: Path) -> bool:
    """Whether there is such a file that can be seen: `Path.is_file` may raise."""
    try:
        return path.is_file()
    except OSError:
        return False


def check_output(path: Path, flag: str) -> None:
    """Raise InputError where a file that `flag` names could not be written; leaves nothing."""
    try:
        if path.exists() and not path.is_file():
            raise NotReadable("is a folder, a device or a pipe")
        temporary = _beside(path)
        create(temporary).close()
        temporary.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{flag}: '{path}' cannot be written ({reason})") from None


def refuse_link(path: Path) -> None:
    """Raise InputError where a link stands in place of a folder or a file of a run."""
    if path.is_symlink():
        raise InputError(
            f"{path} is a link: dstrl writes through none inside the results; remove it, or give "
            "the folder that it points to as --out"
        )


DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Written in C where PyYAML has that: the same text, four times as fast."""


def as_yaml(document: Mapping[str, Any]) -> str:
    """Return YAML in the order given, tuples as lists."""
    given = _lists(document)
    return yaml.dump(given, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=100)


def _lists(value: Any) -> Any:
    """Return `value` with plain dictionaries and lists throughout."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value


def as_json(document: Mapping[str, Any]) -> bytes:
    """Return JSON; numbers that it cannot hold become null."""
    return (json.dumps(_finite(document), indent=2, default=_plain) + "\n").encode()


def _finite(value: Any) -> Any:
    """Return `value` with None in place of NaN and infinities: JSON has neither."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a plain number, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)
