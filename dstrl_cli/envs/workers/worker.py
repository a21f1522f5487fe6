"""The life of a worker process: it steps its share of each batch when woken, and sleeps otherwise.

Started by ``workers`` as a program of its own; both sides of what they say to each other are
described there. No torch, so that a worker is up quickly and small.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dstrl_cli.envs.specs import EnvSpec
from dstrl_cli.envs.workers.block import buffer_size, make_block
from dstrl_cli.envs.workers.group import EnvGroup
from dstrl_cli.errors import DstrlError

CALL = 255
"""The command byte that announces a message; smaller ones step the batch of that number."""
MASKED = 128
"""Added to a batch's number: step its active environments only."""
NOTHING, MESSAGE = b"\0", b"\1"
"""The two answers: no environment failed, or a message follows."""


@dataclass(frozen=True)
class Share:
    """A worker's part of a batch: the batch, its shared memory, and which rows are the worker's."""

    batch: int
    spec: EnvSpec
    num_envs: int
    file: int
    rows: slice


def main(command_file: int, reply_file: int) -> None:
    """Serve until told to close, or until the parent is gone."""
    for request in (signal.SIGINT, signal.SIGTERM):  # the parent decides what they mean
        signal.signal(request, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_exit_with_parent, args=(command_file,), daemon=True).start()
    commands = Connection(command_file, writable=False)
    replies = Connection(reply_file, readable=False)
    with suppress(EOFError, OSError):  # the parent is gone
        _serve(commands, replies)


def _exit_with_parent(command_file: int) -> None:
    """End the process once nobody can write commands, even while an environment is stepping."""
    watch = select.poll()
    watch.register(command_file, 0)  # hang-ups only
    watch.poll()
    os._exit(1)


def _serve(commands: Connection, replies: Connection) -> None:
    # Everything is looked up once: a woken worker should only step.
    command_file, reply_file = commands.fileno(), replies.fileno()
    groups: dict[int, EnvGroup] = {}
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
                    groups = {share.batch: _join(share) for share in arguments}
                    answer = True, None
                else:
                    answer = True, getattr(groups[batch], name)(*arguments)
            except DstrlError as error:  # becomes the parent's
                answer = False, str(error)
            except Exception as error:
                answer = False, f"{type(error).__name__}: {error}"
        os.write(reply_file, MESSAGE)
        replies.send(answer)
    for group in groups.values():
        group.close()


def _join(share: Share) -> EnvGroup:
    memory = mmap.mmap(share.file, buffer_size(share.spec, share.num_envs))
    block = make_block(share.spec, share.num_envs, memoryview(memory)).part(share.rows)
    return EnvGroup(share.spec, block)
