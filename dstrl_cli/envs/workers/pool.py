"""Worker processes that step environments side by side, over memory they share with the parent.

A pool hosts several batches: every worker owns a run of rows of each. To step a batch the parent
writes one byte to each worker's pipe and reads one byte from each; everything else is in the
shared block. A worker sleeps in ``read`` between its bytes, so a batch that is not stepped costs
nothing. Seldom calls (reset, states) send pickled messages through the same pipes.

Pipes because they wake a process as fast as anything that blocks (measured with empty steps on
two cores: 16 workers 0.11 ms, semaphores 0.10, sockets 0.20) and report its death, which
semaphores do not. Spinning answers in under a microsecond but burns the cores that other workers
step on.

A worker dies with its parent (its pipe closes), ignores Ctrl-C and SIGTERM, and is known to be
dead when its pipe closes. The memory is an unnamed file: no crash leaves anything behind.

The numbers are those of one process, bit for bit, except that training flushes numbers below the
smallest normal one to zero (``torch.set_flush_denormal``) and a worker does not. No torch.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from dstrl_cli.envs.specs import EnvSpec
from dstrl_cli.envs.state import EnvState
from dstrl_cli.envs.workers.block import Block, buffer_size, make_block
from dstrl_cli.envs.workers.group import Causes
from dstrl_cli.envs.workers.process import WorkerProcess
from dstrl_cli.envs.workers.worker import MASKED, Share
from dstrl_cli.errors import DstrlError

FEW = 4
"""Environments below which waking processes saves little."""


def worker_count(setting: int | Literal["auto"], num_envs: int, device: str, cores: int) -> int:
    """Return how many processes step a batch; 0: the calling process does.

    ``auto`` gives a batch of a run on an accelerator one per core, but none to a batch of less
    than ``FEW`` environments, nor to a run on the CPU: there the cores belong to other runs.
    """
    if setting != "auto":
        return min(setting, num_envs)
    if device == "cpu" or num_envs < FEW:
        return 0
    return min(cores, num_envs)


class WorkerPool:
    """``workers`` processes that host a batch of environments per entry of ``counts``.

    Attributes:
        groups: the batches' groups, in order. The pool ends when all of them are closed.

    Raises:
        DstrlError: the workers cannot make the environment.
    """

    def __init__(self, spec: EnvSpec, counts: Sequence[int], workers: int) -> None:
        self._files = [_shared_file(buffer_size(spec, count)) for count in counts]
        self._shares: list[list[Share]] = [[] for _ in range(workers)]
        self._workers: list[WorkerProcess] = []
        self.groups: list[WorkerGroup] = []
        for batch, (count, file) in enumerate(zip(counts, self._files, strict=True)):
            owners = _divide(count, workers)
            memory = mmap.mmap(file, buffer_size(spec, count))
            block = make_block(spec, count, memoryview(memory))
            self.groups.append(WorkerGroup(self, batch, block, owners))
            for index, rows in owners.items():
                self._shares[index].append(Share(batch, spec, count, file, rows))
        self._end = weakref.finalize(self, _end, self._workers, self._files)
        try:
            self._workers.extend(WorkerProcess(shares) for shares in self._shares)
            for worker in self._workers:
                if (error := worker.started()) is not None:
                    raise _not_started(spec, error)
        except BaseException:
            self.kill()
            raise
        self._open = set(range(len(counts)))

    def living(self, index: int) -> WorkerProcess:
        """Return a worker, started anew if it has died: then its environments were never reset."""
        if self._workers[index].is_dead():
            self._workers[index] = WorkerProcess(self._shares[index])
            self._workers[index].started()
        return self._workers[index]

    def kill(self) -> None:
        """End all workers at once: what they were doing is lost."""
        for worker in self._workers:
            worker.kill()

    def leave(self, batch: int) -> None:
        """Close the pool once the last of its batches has left."""
        self._open.discard(batch)
        if not self._open:
            self._end()


def _end(workers: list[WorkerProcess], files: list[int]) -> None:
    for worker in workers:
        worker.dismiss()
    for worker in workers:
        worker.bury()
    while files:
        os.close(files.pop())


def _not_started(spec: EnvSpec, error: DstrlError) -> DstrlError:
    return DstrlError(
        f"environment '{spec.name}' cannot be made in a worker process ({error}): register it in "
        "a module that can be imported and name it 'module:id', or set env_workers=0"
    )


def _shared_file(size: int) -> int:
    """Return the descriptor of an unnamed file: it is gone with the last process that has it."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("dstrl-envs")
    else:
        with tempfile.TemporaryFile() as named:
            file = os.dup(named.fileno())
    os.ftruncate(file, size)
    return file


def _divide(count: int, workers: int) -> dict[int, slice]:
    """Return the rows of each worker that gets any; their numbers differ by at most one."""
    edges = [count * worker // workers for worker in range(workers + 1)]
    return {
        worker: slice(start, stop)
        for worker, (start, stop) in enumerate(pairwise(edges))
        if start < stop
    }


class WorkerGroup:
    """One batch's environments in the workers of a pool; the methods are ``EnvGroup``'s.

    When a worker dies, its environments fail with the cause, and stay where they were last seen,
    until a reset, also if another batch has had the worker started anew.
    """

    def __init__(
        self, pool: WorkerPool, batch: int, block: Block, owners: dict[int, slice]
    ) -> None:
        self.block = block
        self._pool, self._batch, self._owners = pool, batch, owners
        self._workers: list[tuple[WorkerProcess, slice]] = []
        self._seen = block.observation.copy()

    def reset(self, seeds: Sequence[int]) -> Causes:
        """Reset every environment, in new processes where one has died."""
        self._engage()
        self._seen[:] = 0.0
        return self._gather(lambda worker, rows: worker.call("reset", self._batch, seeds[rows]))

    def step(self, masked: bool) -> Causes:
        """Wake every worker, and wait for all."""
        command = bytes([self._batch + MASKED * masked])
        return self._gather(lambda worker, _: worker.wake(command))

    def get_state(self) -> list[EnvState]:
        """Return the state of every environment."""
        answers = self._exchange(lambda worker, _: worker.call("get_state", self._batch))
        return [state for _, states in _checked(answers) for state in states]

    def set_state(self, states: Sequence[EnvState]) -> None:
        """Set the state of every environment, in new processes where one has died."""
        self._engage()
        _checked(
            self._exchange(lambda worker, rows: worker.call("set_state", self._batch, states[rows]))
        )
        np.copyto(self._seen, self.block.observation)

    def close(self) -> None:
        """Leave the pool; closing twice is allowed."""
        self._pool.leave(self._batch)

    def _engage(self) -> None:
        self._workers = [(self._pool.living(index), rows) for index, rows in self._owners.items()]

    def _gather(self, send: Callable[[WorkerProcess, slice], None]) -> Causes:
        """Let every worker do something; return the causes of failures by row of the batch."""
        causes: Causes = {}
        for rows, answer in self._exchange(send):
            if isinstance(answer, DstrlError):
                self._stay(rows)
                causes |= dict.fromkeys(range(rows.start, rows.stop), str(answer))
            elif answer is not None:
                causes |= {rows.start + row: cause for row, cause in answer.items()}
        np.copyto(self._seen, self.block.observation)
        return causes

    def _exchange(self, send: Callable[[WorkerProcess, slice], None]) -> list[tuple[slice, Any]]:
        """Tell every worker something, then hear all answers, so that they work side by side."""
        try:
            for worker, rows in self._workers:
                send(worker, rows)
            return [(rows, worker.answer()) for worker, rows in self._workers]
        except BaseException:  # an answer that nobody heard would be taken for the next one's
            self._pool.kill()
            raise

    def _stay(self, rows: slice) -> None:
        """Undo what a worker may have written when it died."""
        block = self.block
        block.next_observation[rows] = block.observation[rows] = self._seen[rows]
        block.reward[rows] = 0.0
        block.ended[:, rows] = 0.0


def _checked(answers: list[tuple[slice, Any]]) -> list[tuple[slice, Any]]:
    """Return answers unless one is an error; raise that."""
    for _, answer in answers:
        if isinstance(answer, DstrlError):
            raise answer
    return answers
