"""Runs a plan on this machine: processes of one run each on the CPU, populations elsewhere.

A run that fails, or whose process dies, stops no other. What to run is `plan`'s business.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from dstrl_cli.display import Display, DisplayReporter
from dstrl_cli.errors import InputError
from dstrl_cli.nets.choice import choose
from dstrl_cli.run import Outcome, Run, explain, find_device, quiet, train
from dstrl_cli.rundir import mark_ended, read_summary
from dstrl_cli.sweep.plan import populations

GRACE_S = 30.0
"""How long interrupted processes may take to write their summaries."""

REPORT_EVERY_S = 0.2


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_jobs(runs: Sequence[Run]) -> int:
    """Return how many runs to train at once on the CPU, so that their threads fill the cores."""
    threads = max((run.config.threads for run in runs), default=1)
    return max(1, min(cores() // threads, len(runs)))


def place(runs: Sequence[Run], jobs: int | None, dry_run: bool) -> dict[str, Any]:
    """Return where and how runs would be carried out: device, engine, mode and folder.

    Raises InputError for a device that this machine does not have, unless for a dry run.
    """
    config = runs[0].config
    named = list(dict.fromkeys(run.config.device for run in runs))
    if len(named) > 1:
        raise InputError(f"device: one sweep runs on one device, not on {' and '.join(named)}")
    device = config.device if dry_run and config.device != "auto" else find_device(config.device)
    choices = [choose(run.config, device) for run in runs]
    where = {
        "device": device,
        "engine": dict(Counter(choice.engine for choice in choices)),
        "engine_reason": choices[0].reason,
        "out": config.out,
    }
    if device == "cpu":
        return where | {"mode": "jobs", "jobs": jobs or default_jobs(runs)}
    return where | {"mode": "populations", "populations": len(populations(runs))}


def train_here(run: Run, device: str, display: Display) -> Outcome:
    """Train one run in this process; whatever stops it passes through."""
    display.start(0, run.label, run.config.steps)
    (summary,) = train([run], device, DisplayReporter(display, 0, [run.label]))
    display.finish(0, run.label, summary)
    return Outcome(run, summary)


def execute(runs: Sequence[Run], device: str, jobs: int | None, display: Display) -> list[Outcome]:
    """Train all runs and return how each ended, in the order given.

    On the CPU in `jobs` processes (None: as many as fill the cores), elsewhere as populations, one
    after another. KeyboardInterrupt passes through once every run has ended as `interrupted`.
    """
    if device != "cpu":
        return _run_populations(runs, device, display)
    return _run_processes(runs, device, jobs or default_jobs(runs), display)


def _run_populations(runs: Sequence[Run], device: str, display: Display) -> list[Outcome]:
    outcomes: dict[str, Outcome] = {}
    for number, population in enumerate(populations(runs)):
        labels = [run.label for run in population]
        title = labels[0] if len(labels) == 1 else f"{len(labels)} runs, as {labels[0]}"
        display.start(number, title, population[0].config.steps)
        ends: Sequence[Mapping[str, Any]]
        try:
            ends = train(population, device, DisplayReporter(display, number, labels))
        except InputError as error:
            ends = [_refused(str(error)) for _ in population]
        except Exception as error:  # whatever it is, the other populations still run
            ends = [mark_ended(run.path, "failed", explain(error)) for run in population]
        for run, summary in zip(population, ends, strict=True):
            outcomes[run.label] = Outcome(run, summary)
            display.finish(number, run.label, summary)
    return [outcomes[run.label] for run in runs]


def _refused(error: str) -> dict[str, Any]:
    """Return the outcome of a run that may not write its folder; the folder is left alone."""
    return {"status": "failed", "error": error}


# --- one process per run ------------------------------------------------------------------------


@dataclass
class _Job:
    """A run in a process of its own, and what the process has said about its end."""

    number: int
    run: Run
    process: BaseProcess
    end: tuple[str, str | None] | None = None


class _PipeReporter:
    """Reports from a run's process to the one that shows them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._next = 0.0

    def progress(
        self, step: int, total: int, steps_per_s: float, info: Mapping[str, Any] | None = None
    ) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_EVERY_S
            self._send("progress", step, total, steps_per_s)

    def evaluation(self, member: int, row: Mapping[str, Any]) -> None:
        self._send("evaluation", dict(row))

    def message(self, text: str) -> None:
        self._send("message", text)

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionError):
            raise KeyboardInterrupt from None  # nobody is left to run for


def _work(run: Run, device: str, connection: Connection) -> None:
    """Train one run: the whole life of a process."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    import torch  # noqa: F401  # an exception inside its import prints stacks on the screen

    signal.signal(signal.SIGTERM, interrupt)
    quiet()
    end: tuple[str, str | None] = ("done", None)
    try:
        train([run], device, _PipeReporter(connection))
    except KeyboardInterrupt:
        end = ("interrupted", None)
    except InputError as error:
        end = ("refused", str(error))
    except Exception as error:  # becomes the run's outcome
        end = ("failed", explain(error))
    with suppress(OSError):  # the other end may be gone
        connection.send(("end", *end))
    connection.close()


def _run_processes(runs: Sequence[Run], device: str, jobs: int, display: Display) -> list[Outcome]:
    waiting = deque(enumerate(runs))
    live: dict[Connection, _Job] = {}
    outcomes: dict[int, Outcome] = {}
    try:
        while waiting or live:
            while waiting and len(live) < jobs:
                number, run = waiting.popleft()
                display.start(number, run.label, run.config.steps)
                connection, job = _start(number, run, device)
                live[connection] = job
            for ready in wait(list(live)):
                assert isinstance(ready, Connection)
                if not _receive(ready, live[ready], display):
                    job = live.pop(ready)
                    outcomes[job.number] = _finish(ready, job, display)
    except BaseException:
        with _interrupts_held():  # a second Ctrl-C waits until all have ended
            _interrupt(live)
        raise
    return [outcomes[number] for number in range(len(runs))]


def _start(number: int, run: Run, device: str) -> tuple[Connection, _Job]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(run, device, sender), daemon=True)
    with _interrupts_held():
        process.start()
    sender.close()  # the process holds the only other end, so that its death closes the pipe
    return receiver, _Job(number, run, process)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Let Ctrl-C arrive only when the block ends, and in processes started meanwhile never.

    A blocked signal stays blocked in a new process: this one alone decides, and tells them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else started in here, and it unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(connection: Connection, job: _Job, display: Display) -> bool:
    """Show one message of a process; False where its pipe has closed."""
    try:
        kind, *content = connection.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        return False
    match kind, content:
        case "progress", [step, total, steps_per_s]:
            display.progress(job.number, step, total, steps_per_s)
        case "evaluation", [row]:
            display.evaluation(job.number, job.run.label, row)
        case "message", [text]:
            display.message(f"{job.run.label}: {text}")
        case "end", [status, error]:
            job.end = (status, error)
    return True


def _finish(connection: Connection, job: _Job, display: Display) -> Outcome:
    """Return the outcome of a run whose process has ended, however it did."""
    connection.close()
    job.process.join()
    path = job.run.path
    match job.end or ("died", None):
        case "done", _:
            summary = read_summary(path) or mark_ended(path, "failed", "it left no summary")
        case "refused", error:
            summary = _refused(str(error))
        case "died", _:
            summary = mark_ended(path, "failed", _death(job.process.exitcode))
        case status, error:
            summary = mark_ended(path, status, error)
    display.finish(job.number, job.run.label, summary)
    return Outcome(job.run, summary)


def _death(exit_code: int | None) -> str:
    """Return in words how a process ended that said nothing about it."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"its process was killed by {name}" + (
            " (out of memory?)" if name == "SIGKILL" else ""
        )
    return f"its process ended unexpectedly with exit code {exit_code}"


def _interrupt(live: Mapping[Connection, _Job]) -> None:
    """End all processes: they write that they were interrupted; what cannot is killed."""
    for connection, job in live.items():
        job.process.terminate()
        connection.close()  # so that no process waits for a reader
    deadline = time.monotonic() + GRACE_S
    for job in live.values():
        job.process.join(max(0.0, deadline - time.monotonic()))
        if job.process.is_alive():
            job.process.kill()
            job.process.join()
        if read_summary(job.run.path) is None:
            mark_ended(job.run.path, "interrupted", None)
