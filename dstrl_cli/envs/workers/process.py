"""One worker process as its parent sees it: started, told, heard, and buried.

What happens inside is ``worker``'s; who is told what is ``workers``'s. No torch.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from dstrl_cli.envs.workers.worker import CALL, NOTHING, Share
from dstrl_cli.errors import DstrlError

GRACE_S = 5.0
"""How long a worker may take to close its environments before it is killed."""

_PROGRAM = "from dstrl_cli.envs.workers.worker import main; main({}, {})"


class WorkerProcess:
    """One process and our ends of its two pipes.

    Telling a dead worker something does nothing, and its answer is the error that says how it
    died: a death matters only when the answers of all are in.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._commands = Connection(ours_out, readable=False)
        self._replies = Connection(ours_in, writable=False)
        self._wake, self._answer = ours_out, ours_in
        self._death: DstrlError | None = None
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path),
            "OMP_NUM_THREADS": "1",  # many workers, one core each
            "OPENBLAS_NUM_THREADS": "1",
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM.format(theirs_in, theirs_out)],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs_in, theirs_out, *(share.file for share in shares)],
                process_group=0,  # a Ctrl-C at the terminal reaches the parent only
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.call("start", 0, *shares)

    def started(self) -> DstrlError | None:
        """Wait until the environments are made; if they cannot be, end the process and say why."""
        error = self.answer()
        if error is not None:
            self.kill()
            self._death = error
        return self._death

    def is_dead(self) -> bool:
        """Look whether the process has ended."""
        if self._death is None and self._process.poll() is not None:
            self.bury()
        return self._death is not None

    def wake(self, command: bytes) -> None:
        """Send one command byte."""
        if self._death is None:
            try:
                os.write(self._wake, command)
            except OSError:
                self.bury()

    def call(self, name: str, batch: int, *arguments: Any) -> None:
        """Send the call of a method of a batch's group."""
        self.wake(bytes([CALL]))
        if self._death is None:
            try:
                self._commands.send((name, batch, arguments))
            except OSError:
                self.bury()

    def answer(self) -> Any:
        """Return the answer to a wake or a call; a ``DstrlError`` where there is none."""
        if self._death is None:
            try:
                kind = os.read(self._answer, 1)
                if kind == NOTHING:
                    return None
                done, value = self._replies.recv()
            except (EOFError, OSError):
                self.bury()
            else:
                return value if done else DstrlError(value)
        return self._death

    def dismiss(self) -> None:
        """Ask the process to close its environments and end."""
        self.call("exit", 0)

    def kill(self) -> None:
        """End the process as it is."""
        if self._death is None:
            self._process.kill()
            self.bury()

    def bury(self) -> None:
        """Wait for the end of a process that is about to end, and note how it came."""
        if self._death is not None:
            return
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._commands.close()
        self._replies.close()
        self._death = DstrlError(_describe_exit(code))


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"its worker process ended unexpectedly with exit code {code}"
    name = signal.Signals(-code).name
    memory = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its worker process was killed by {name}{memory}"
