"""Reading files that may come from others: what a file is and how large it is are looked at first.

A pipe would be waited for, a device read without end, and deeply nested text would overflow the
parser. No content is ever executed. What is read is checked by those who ask for it.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_YAML = 1_000_000
"""Bytes of a YAML file, and of any text that is parsed as YAML."""

MAX_JSON = 10_000_000
"""Bytes of a JSON file."""

MAX_TABLE = 1 << 30
"""Bytes of a CSV file. A row takes about 40, so these are the rows of 25 million episodes."""

MAX_POLICY = 1 << 32
"""Bytes of a policy file."""

MAX_DEPTH = 50
"""How deeply groups and lists of a document may be nested."""

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


class NotReadable(OSError):
    """A file is not of the kind or size that is read; `strerror` says so."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, reason)

    def __str__(self) -> str:
        return str(self.strerror)


def check_file(path: Path, limit: int) -> None:
    """Raise OSError unless `path` is a regular file, or a link to one, of at most `limit` bytes.

    The file is not opened: opening some devices alone has an effect.
    """
    try:
        _check(os.stat(path), limit)  # noqa: PTH116  # the same call as for the open file below
    except ValueError:  # a NUL in the name
        raise NotReadable("is no name of a file") from None


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file. Raises OSError where it is none, or larger."""
    check_file(path, limit)
    # Should a pipe have taken its place since, opening it does not wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(descriptor), limit)
        content = file.read(limit + 1)
    if len(content) > limit:  # files of /proc have no size
        raise _too_large(limit)
    return content


def read_text(path: Path, limit: int, errors: str = "strict") -> str:
    """Return the content of a regular UTF-8 file, every end of line as a newline.

    Raises OSError where it is none, or larger, and UnicodeDecodeError for other encodings.
    """
    text = read_bytes(path, limit).decode("utf-8", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError where it is none, or nested too deeply."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise _too_deep()
        groups = [each for each in level if isinstance(each, dict | list)]
        level = [
            below
            for group in groups
            for below in (group.values() if isinstance(group, dict) else group)
        ]
        depth += 1
    return value


def _check(status: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special file")
        raise NotReadable(f"is a {kind}, not a file")
    if status.st_size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> NotReadable:
    return NotReadable(f"is larger than {limit:,} bytes, which no such file is")


def _too_deep() -> ValueError:
    return ValueError(f"is nested more than {MAX_DEPTH} deep")
