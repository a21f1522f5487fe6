"""Keeps what a population prints in the `log.txt` of its members."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.lock import in_use
from dstrl_cli.runs.output import append
from dstrl_cli.runs.summary import CONFIG_FILE
from dstrl_cli.training.run import Run


class RunLogs:
    """The logs of the members of one population, which print together.

    Until the population has opened its folders they may be those of other attempts: what is
    printed until then waits in memory.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._paths = [run.path for run in runs]
        self._waiting: bytearray | None = bytearray()
        self.line(f"--- started {_now()}")

    def write(self, data: bytes) -> None:
        """Add what was printed."""
        if self._waiting is not None:
            self._waiting += data
            return
        for path in self._paths:
            append(path, data)

    def line(self, text: str) -> None:
        """Add a line."""
        self.write(f"{text}\n".encode())

    def opened(self) -> None:
        """Note that the population has opened its folders, and write what waits."""
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self.write(bytes(waiting))

    def end(self, error: str | None) -> None:
        """Note that the population's process has ended, and of which error."""
        self.line(f"--- ended {_now()}" + (f": {error}" if error else ""))
        if self._waiting is not None:  # it never said that it opened its folders
            self._paths = [
                path for path in self._paths if is_file(path / CONFIG_FILE) and not in_use(path)
            ]
            self.opened()


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
