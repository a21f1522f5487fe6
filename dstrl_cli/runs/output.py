"""`log.txt`: what the process of a run printed, attempt after attempt. It only grows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

OUTPUT_FILE = "log.txt"


def append(path: Path, data: bytes) -> None:
    """Append to the `log.txt` of the run folder `path`. Where that fails, the run goes on."""
    with suppress(OSError), (path / OUTPUT_FILE).open("ab", buffering=0) as file:
        file.write(data)
