"""dstrl as a process that may kill itself with SIGKILL at a chosen write.

The program reads jobs, one JSON document a line: `arguments` of dstrl, and where it shall die
`number` and `stage`. Each job runs in a fork of the program, which has imported everything: that
takes a tenth of the time of a new one. It answers with the exit code (negative: the signal), how
many writes there were, and what was printed.

What counts as a write is everything that is about to change a file below a folder `seedN`. Before
number `number` (from 1) the process dies: with the stage `before` without having begun it, with
`amid` when half of the data of a write are in the file.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR
FAILED = 99
IN_A_RUN = re.compile(r"/seed\d+(/|$)")


class Writes:
    """Counts writes to run folders, and dies at one."""

    def __init__(self, number: int, stage: str) -> None:
        self.number, self.stage, self.count = number, stage, 0

    def is_due(self, path: Any) -> bool:
        """Count a change of a file (path or descriptor); return whether to die at it."""
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        if not is_in_run(path):
            return False
        self.count += 1
        return self.count == self.number

    def watch(self, event: str, values: tuple[Any, ...]) -> None:
        """See what is about to happen to files: Python tells, whatever function does it."""
        if event == "open":
            path, _, flags = values
            changes = isinstance(flags, int) and flags & WRITING and not isinstance(path, int)
        elif event in ("os.rename", "os.remove", "os.truncate", "os.mkdir", "os.rmdir"):
            path, changes = values[0], True
        else:
            return
        if changes and self.is_due(path):
            die()

    def write(self, function: Any, descriptor: int, data: Any, flush: Any = None) -> Any:
        """Write data by `function`, or die without having written all of them."""
        if is_in_run(Path(f"/proc/self/fd/{descriptor}").readlink()) and self.is_due(descriptor):
            if self.stage == "amid":
                whole = memoryview(data).cast("B")
                function(whole[: len(whole) // 2])
                if flush is not None:
                    flush()
            die()
        return function(data)


def is_in_run(path: Any) -> bool:
    return bool(IN_A_RUN.search(str(Path(os.fspath(path)).absolute())))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A file whose writes may be the last thing that the process does."""

    def __init__(self, file: Any, writes: Writes) -> None:
        self.file, self.writes = file, writes

    def write(self, data: Any) -> Any:
        file = self.file
        return self.writes.write(file.write, file.fileno(), data, file.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def watch_everything(writes: Writes) -> None:
    """Let every way to change a file pass through `writes`."""
    opened, write = io.open, os.write

    def open_dying(file: Any, mode: str = "r", *others: Any, **more: Any) -> Any:
        found = opened(file, mode, *others, **more)
        path = Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else file
        binary = "b" in mode and mode.strip("rb") != ""
        return Dying(found, writes) if binary and is_in_run(path) else found

    def write_dying(descriptor: int, data: Any) -> int:
        written: int = writes.write(lambda part: write(descriptor, part), descriptor, data)
        return written

    io.open = open_dying  # type: ignore[assignment]
    os.write = write_dying  # type: ignore[assignment]
    sys.addaudithook(writes.watch)


def carry_out(job: dict[str, Any]) -> dict[str, Any]:
    """Run dstrl in a fork of this process; return how that ended."""
    from dstrl_cli.cli import main as dstrl

    with tempfile.NamedTemporaryFile("w+") as output, tempfile.NamedTemporaryFile("w+") as counted:
        child = os.fork()
        if child == 0:
            for descriptor in (1, 2):
                os.dup2(output.fileno(), descriptor)
            code = FAILED
            try:
                writes = Writes(job.get("number", 0), job.get("stage", "before"))
                watch_everything(writes)
                code = dstrl(job["arguments"])
                counted.write(str(writes.count))
                counted.flush()
            except BaseException:
                traceback.print_exc()
            finally:  # whatever happens: what follows is the parent's
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        counted.seek(0)
        output.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "writes": int(counted.read() or 0),
            "output": output.read(),
        }


def main() -> None:
    import gymnasium  # noqa: F401
    import torch  # noqa: F401

    from dstrl_cli.training import trainer  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
