"""`log.txt`: what the process of a run printed, attempt after attempt. It only grows."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from dstrl_cli.runs.files import NEVER_A_LINK

OUTPUT_FILE = "log.txt"

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | NEVER_A_LINK
_FLAGS |= os.O_NONBLOCK  # a pipe that nobody reads is not waited for


def append(path: Path, data: bytes) -> None:
    """Append to the `log.txt` of the run folder `path`. Where that fails, the run goes on."""
    with (
        suppress(OSError),
        os.fdopen(os.open(path / OUTPUT_FILE, _FLAGS, 0o666), "ab", buffering=0) as file,
    ):
        file.write(data)
