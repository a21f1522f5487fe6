"""Whole files, put in place at once: a reader or a kill never sees half of one."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dstrl_cli.errors import DstrlError

CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file would be larger than this system or a limit (ulimit -f) allows",
    errno.EROFS: "the file system is read-only",
    errno.ELOOP: "it is a link, which may lead to any file",
}
"""Why a file cannot be written, in words that say more than the system's."""


def write(path: Path, data: bytes) -> None:
    """Put a whole file in place at once.

    Raises DstrlError where it cannot be written; a former file is then still there.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise not_written(path, error) from error
        raise


def not_written(path: Path, error: OSError) -> DstrlError:
    """Return the error for a file that could not be written, with the cause."""
    cause = CAUSES.get(error.errno or 0) or error.strerror or str(error)
    return DstrlError(f"{path} cannot be written: {cause}")


def as_yaml(document: Mapping[str, Any]) -> str:
    """Return YAML in the order given, tuples as lists."""
    return yaml.safe_dump(_lists(document), sort_keys=False, allow_unicode=True, width=100)


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
