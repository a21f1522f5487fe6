"""Runs a plan on this machine: every population in a process of its own, on the CPU one per run.

A population that fails, or whose process dies, stops no other. What to run is `plan`'s business,
where is `place`'s.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import mark_ended, read_summary
from dstrl_cli.sweep.packing import Population
from dstrl_cli.sweep.place import Place
from dstrl_cli.terminal.display import Display, DisplayReporter
from dstrl_cli.training.run import Outcome, Run, explain, quiet, train

GRACE_S = 30.0
"""How long interrupted processes may take to write their summaries."""

REPORT_EVERY_S = 0.2


def train_here(place: Place, display: Display) -> Outcome:
    """Train the only run of a plan in this process; whatever stops it passes through."""
    (run,), (device, *_) = place.runs, place.devices
    display.start(0, run.label, run.config.steps)
    (summary,) = train([run], device.name, DisplayReporter(display, 0, [run.label]))
    display.finish(0, run.label, summary)
    return Outcome(run, summary)


def execute(place: Place, display: Display) -> list[Outcome]:
    """Train all runs and return how each ended, in the order of the plan.

    KeyboardInterrupt passes through once every run has ended as `interrupted`.
    """
    lanes = place.lanes()
    live: dict[Connection, _Job] = {}
    outcomes: dict[str, Outcome] = {}
    free = list(range(len(lanes)))
    try:
        while live or any(lanes):
            for lane in list(free):
                if not lanes[lane]:
                    continue
                number, population = lanes[lane].popleft()
                display.start(number, population.title, population.runs[0].config.steps)
                connection, job = _start(number, population, lane)
                live[connection] = job
                free.remove(lane)
            for ready in wait(list(live)):
                assert isinstance(ready, Connection)
                if not _receive(ready, live[ready], display):
                    job = live.pop(ready)
                    free.append(job.lane)
                    outcomes |= {end.run.label: end for end in _finish(ready, job, display)}
    except BaseException:
        with _interrupts_held():  # a second Ctrl-C waits until all have ended
            _interrupt(live)
        raise
    return [outcomes[run.label] for run in place.runs]


# --- in a population's process ------------------------------------------------------------------


class _PipeReporter:
    """Reports from a population's process to the one that shows them."""

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
        self._send("evaluation", member, dict(row))

    def message(self, text: str) -> None:
        self._send("message", text)

    def _send(self, *message: Any) -> None:
        try:
            self._connection.send(message)
        except (BrokenPipeError, ConnectionError):
            raise KeyboardInterrupt from None  # nobody is left to run for


def _work(runs: Sequence[Run], device: str, connection: Connection) -> None:
    """Train one population: the whole life of a process."""

    def interrupt(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    import torch  # noqa: F401  # an exception inside its import prints stacks on the screen

    signal.signal(signal.SIGTERM, interrupt)
    quiet()
    end: tuple[str, str | None] = ("done", None)
    try:
        train(runs, device, _PipeReporter(connection))
    except KeyboardInterrupt:
        end = ("interrupted", None)
    except InputError as error:
        end = ("refused", str(error))
    except Exception as error:  # becomes the runs' outcome
        end = ("failed", explain(error))
    with suppress(OSError):  # the other end may be gone
        connection.send(("end", *end))
    connection.close()


# --- in the process that waits for them ---------------------------------------------------------


@dataclass
class _Job:
    """A population in a process of its own, and what the process has said about its end.

    `before` are the summaries that earlier attempts left, by the run's label.
    """

    number: int
    population: Population
    lane: int
    before: Mapping[str, Mapping[str, Any] | None]
    process: BaseProcess
    end: tuple[str, str | None] | None = None


def _start(number: int, population: Population, lane: int) -> tuple[Connection, _Job]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    before = {run.label: read_summary(run.path) for run in population.runs}
    # no daemon: it may start processes for its environments
    process = context.Process(
        target=_work, args=(population.runs, population.device.name, sender), daemon=False
    )
    with _interrupts_held():
        process.start()
    sender.close()  # the process holds the only other end, so that its death closes the pipe
    return receiver, _Job(number, population, lane, before, process)


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
        case "evaluation", [member, row]:
            display.evaluation(job.number, job.population.runs[member].label, row)
        case "message", [text]:
            display.message(f"{job.population.title}: {text}")
        case "end", [status, error]:
            job.end = (status, error)
    return True


def _finish(connection: Connection, job: _Job, display: Display) -> list[Outcome]:
    """Return the outcomes of runs whose process has ended, however it did."""
    connection.close()
    job.process.join()
    ends: Sequence[Mapping[str, Any]]
    match job.end or ("died", None):
        case "refused", cause:  # the folders are not theirs to write
            ends = [{"status": "failed", "error": cause} for _ in job.population.runs]
        case "done", _:
            ends = _ends(job, "failed", "it left no summary")
        case "died", _:
            ends = _ends(job, "failed", _death(job.process.exitcode))
        case status, cause:
            ends = _ends(job, status, cause)
    outcomes = [Outcome(run, end) for run, end in zip(job.population.runs, ends, strict=True)]
    for outcome in outcomes:
        display.finish(job.number, outcome.run.label, outcome.summary)
    return outcomes


def _ends(job: _Job, status: str, error: str | None) -> list[Mapping[str, Any]]:
    """Return the summaries that members left before their process ended, or mark how it did."""

    def end(run: Run) -> Mapping[str, Any]:
        left = read_summary(run.path)
        fresh = left is not None and left != job.before[run.label]
        return left if left and fresh else mark_ended(run.path, status, error)

    return [end(run) for run in job.population.runs]


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
        for run in job.population.runs:
            if read_summary(run.path) is None:
                mark_ended(run.path, "interrupted", None)
