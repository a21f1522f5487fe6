"""The program of a worker process: it steps its environments when told to, and sleeps otherwise.

`process` starts it and `pool` describes what is sent in both directions. No torch, so that a worker
starts quickly and needs little memory.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dstrl_cli.envs.calls import explain, real_exit, seed_globals
from dstrl_cli.envs.specs import EnvSpec
from dstrl_cli.envs.watch import Hung, Watch
from dstrl_cli.envs.workers.block import buffer_size, make_block
from dstrl_cli.envs.workers.group import EnvGroup
from dstrl_cli.errors import DstrlError

CALL = 255
"""The command byte that announces a message; a smaller one steps the batch of that number."""
MASKED = 128
"""Added to a batch's number to step its active environments only."""
NOTHING, MESSAGE = b"\0", b"\1"
"""The two answer bytes: no environment failed, or a message follows."""


@dataclass(frozen=True)
class WorkerRows:
    """The rows of one batch that one worker steps.

    Attributes:
        batch: the batch's number.
        spec: its environment.
        num_envs: how many environments the whole batch has.
        file: descriptor of the memory shared with the parent.
        rows: which of the batch's environments are the worker's.
        global_seed: see `calls.seed_globals`.
    """

    batch: int
    spec: EnvSpec
    num_envs: int
    file: int
    rows: slice
    global_seed: int | None = None


def main(command_file: int, reply_file: int) -> None:
    """Carry out commands until told to exit, or until the parent is gone."""
    for request in (signal.SIGINT, signal.SIGTERM):  # the parent handles them and tells the worker
        signal.signal(request, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_exit_with_parent, args=(command_file,), daemon=True).start()
    commands = Connection(command_file, writable=False)
    replies = Connection(reply_file, readable=False)
    with suppress(EOFError, OSError):  # the parent is gone
        _serve(commands, replies)


def _exit_with_parent(command_file: int) -> None:
    """End the process when the parent is gone, even while an environment is stepping."""
    watch = select.poll()
    watch.register(command_file, 0)  # wakes up only when the other end is closed
    watch.poll()
    real_exit(1)


def _serve(commands: Connection, replies: Connection) -> None:
    # Names are looked up once, outside the loop, which runs once per step of the environments.
    command_file, reply_file = commands.fileno(), replies.fileno()
    groups: dict[int, EnvGroup] = {}

    def hung(_: str, cause: str) -> None:
        """Answer the command that is under way, in place of the thread that hangs."""
        os.write(reply_file, MESSAGE)
        replies.send((False, cause))

    while command := os.read(command_file, 1):
        if command[0] != CALL:
            causes = groups[command[0] % MASKED].step(command[0] >= MASKED)
            if not causes:
                os.write(reply_file, NOTHING)
                continue
            answer: tuple[bool, Any] = True, causes
        else:
            name, batch, arguments = commands.recv()
            if name == "exit":
                break
            try:
                if name == "start":
                    groups = _make_groups(arguments, hung)
                    answer = True, None
                else:
                    answer = True, getattr(groups[batch], name)(*arguments)
            except DstrlError as error:  # raised again in the parent
                answer = False, str(error)
            except (Exception, SystemExit) as error:
                answer = False, explain(error)
        os.write(reply_file, MESSAGE)
        replies.send(answer)
    for group in groups.values():
        group.close()


def _make_groups(parts: Sequence[WorkerRows], hung: Hung) -> dict[int, EnvGroup]:
    """Return the groups of all batches by number; one watch is enough, as one acts at a time."""
    seed_globals(parts[0].global_seed)
    watch = Watch(parts[0].spec.name, parts[0].spec.timeout, hung)
    groups = {}
    for part in parts:
        memory = mmap.mmap(part.file, buffer_size(part.spec, part.num_envs))
        block = make_block(part.spec, part.num_envs, memoryview(memory)).part(part.rows)
        groups[part.batch] = EnvGroup(part.spec, block, watch)
    return groups
