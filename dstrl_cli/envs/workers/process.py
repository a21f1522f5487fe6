"""One worker process as its parent sees it: start it, send commands, read answers, end it.

`worker` is the program that the process runs; `pool` decides which worker is told what. No torch.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from dstrl_cli.envs.watch import too_long
from dstrl_cli.envs.workers.worker import CALL, NOTHING, WorkerRows
from dstrl_cli.errors import DstrlError
from dstrl_cli.machine import how_it_ended

GRACE_S = 5.0
"""How long a worker may take to close its environments before it is killed."""

LOCKED_S = 30.0
"""How much longer a worker may take than its environments together may, before it is killed.

It ends by itself where an environment hangs (`watch`), unless C code keeps it from doing so.
"""

_PROGRAM = "from dstrl_cli.envs.workers.worker import main; main({}, {})"


class WorkerProcess:
    """A worker process and the parent's ends of the two pipes to it.

    Sending something to a dead worker does nothing, and its answer is the error that says how it
    died. So callers send to all workers and read all answers without a check for deaths in between.
    """

    def __init__(self, parts: Sequence[WorkerRows]) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._commands = Connection(ours_out, readable=False)
        self._replies = Connection(ours_in, writable=False)
        self._wake, self._answer = ours_out, ours_in
        self._death: DstrlError | None = None
        self._answered = select.poll()
        self._answered.register(ours_in, select.POLLIN)
        self._limit = parts[0].spec.timeout
        self._rows = max(len(range(part.num_envs)[part.rows]) for part in parts)
        self._patience_ms: float | None = None  # for an answer; none while environments are made
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(entry or "." for entry in sys.path),
            "OMP_NUM_THREADS": "1",  # there are many workers, each for one core
            "OPENBLAS_NUM_THREADS": "1",
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM.format(theirs_in, theirs_out)],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs_in, theirs_out, *(part.file for part in parts)],
                process_group=0,  # so that Ctrl-C at the terminal reaches the parent only
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.call("start", 0, *parts)

    def started(self) -> DstrlError | None:
        """Wait until the environments are made; if they cannot be, end the process and say why.

        Returns:
            None, or the reason.
        """
        error = self.answer()
        if error is not None:
            self.kill()
            self._death = error
        elif self._limit is not None:  # each environment may be stepped and then reset
            self._patience_ms = 1e3 * (2 * self._rows * self._limit + LOCKED_S)
        return self._death

    def is_dead(self) -> bool:
        """Return whether the process has ended."""
        if self._death is None and self._process.poll() is not None:
            self.wait_for_exit()
        return self._death is not None

    def wake(self, command: bytes) -> None:
        """Send one command byte, which wakes the worker."""
        if self._death is None:
            try:
                os.write(self._wake, command)
            except OSError:
                self.wait_for_exit()

    def call(self, name: str, batch: int, *arguments: Any) -> None:
        """Tell the worker to call a method of a batch's `EnvGroup`."""
        self.wake(bytes([CALL]))
        if self._death is None:
            try:
                self._commands.send((name, batch, arguments))
            except OSError:
                self.wait_for_exit()

    def answer(self) -> Any:
        """Wait for the answer to `wake` or `call`; it is a `DstrlError` if that failed."""
        if self._death is None and not self._answered.poll(self._patience_ms):
            self.kill()
            self._death = DstrlError(too_long("its environment", self._limit or 0.0))
        if self._death is None:
            try:
                kind = os.read(self._answer, 1)
                if kind == NOTHING:
                    return None
                done, value = self._replies.recv()
            except (EOFError, OSError):
                self.wait_for_exit()
            else:
                return value if done else DstrlError(value)
        return self._death

    def ask_to_exit(self) -> None:
        """Ask the process to close its environments and end."""
        self.call("exit", 0)

    def kill(self) -> None:
        """End the process at once."""
        if self._death is None:
            self._process.kill()
            self.wait_for_exit()

    def wait_for_exit(self) -> None:
        """Wait for a process that is ending, kill it after `GRACE_S`, and note how it ended."""
        if self._death is not None:
            return
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._commands.close()
        self._replies.close()
        self._death = DstrlError(how_it_ended("its worker process", code))
