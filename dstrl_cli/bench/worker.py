"""The process in which one work is timed, with memory, threads and compiled code of its own.

It makes its work, says that it is ready, and times it whenever it is asked, until its pipe is
closed. Heavy modules are imported only for the work that needs them.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from dstrl_cli.bench.plan import Work
from dstrl_cli.bench.timing import Parted, Saved, Timed
from dstrl_cli.registry import load
from dstrl_cli.training.run import explain

TIMED = {
    "train": "dstrl_cli.bench.work:Training",
    "update": "dstrl_cli.bench.work:Training",
    "product": "dstrl_cli.bench.work:Product",
    "infer": "dstrl_cli.bench.acting:Acting",
    "sb3": "dstrl_cli.bench.peers:sb3",
    "sbx": "dstrl_cli.bench.peers:sbx",
    "rltools": "dstrl_cli.bench.rltools_peer:CompiledTraining",
}
"""What times a kind of work, or a peer's work of any kind."""

WARM_UP_SHARE = 0.1
"""Share of a round's time that runs unmeasured before it, to warm caches that went cold."""


def main(connection: Connection, work: Work, folder: str) -> None:
    """Time `work` on request; `folder`, which must not exist yet, is this process's own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    warnings.simplefilter("ignore")
    own = Path(folder)
    own.mkdir(parents=True)
    with (own / "output.txt").open("w") as output:
        os.dup2(output.fileno(), sys.stdout.fileno())
        os.dup2(output.fileno(), sys.stderr.fileno())
    try:
        _serve(connection, work, own)
    except EOFError:
        return
    except BaseException as error:
        connection.send(("error", explain(error)))


def _serve(connection: Connection, work: Work, folder: Path) -> None:
    name = work.kind if work.contender == "dstrl" else work.contender
    timed: Timed = load(TIMED, name)(work, folder)
    connection.send(("ready", getattr(timed, "compile_s", None)))
    while True:
        question, seconds = connection.recv()
        match question:
            case "time":
                timed.run(seconds * WARM_UP_SHARE)
                connection.send(("time", timed.run(seconds)))
            case "memory":
                connection.send(("memory", (peak_memory(), device_memory())))
            case "parts":
                connection.send(("parts", cast(Parted, timed).parts(seconds)))
            case "checkpoint":
                connection.send(("checkpoint", cast(Saved, timed).checkpoint()))


def device_memory() -> float | None:
    """Return the most memory taken of the accelerator so far, in MB of 1e6 bytes, if any."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return float(torch.cuda.max_memory_reserved() / 1e6)


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MB of 1e6 bytes.

    Linux's own counter starts anew with a program; `getrusage` would remember the parent's.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
