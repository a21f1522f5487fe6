"""Sweeps that are interrupted, or whose process is killed: what becomes of their workers."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from program_samples import REPOSITORY
from sweep_samples import SMALL, wait_for

from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, has_state
from dstrl_cli.runs.summary import read_status, read_summary
from dstrl_cli.sweep.interrupts import interrupts_held
from dstrl_cli.terminal.edge import interruptible

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="finds processes in /proc"
)


def interrupt_within(blocks: list[str]) -> None:
    """Interrupt this process within two blocks that hold interruptions, and note their ends."""
    with interrupts_held():
        with interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
        blocks.append("inner")
        time.sleep(0.1)
        blocks.append("outer")


def test_held_interrupts_arrive_when_the_blocks_end_also_beside_other_threads() -> None:
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()  # the system may give it the signal, and Python then calls the handler
    blocks: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupt_within(blocks)
    finally:
        over.set()
        other.join()
    assert blocks == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def sweep(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A sweep of one endless run in a process group of its own; its environments have workers."""
    what = ["--env=Pendulum-v1", "--steps=1e8", "--jobs=1", "--seeds=0,1", f"--out={tmp_path}"]
    keys = [f"--set={key}" for key in (*SMALL, "eval_every=100", "env_workers=1")]
    process = subprocess.Popen(
        [sys.executable, "-m", "dstrl_cli", "sweep", *what, *keys],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        wait_for(lambda: (run(tmp_path) / "best.safetensors").exists())
        yield process
    finally:
        process.kill()
        process.communicate()


def run(out: Path, seed: int = 0) -> Path:
    return out / "Pendulum-v1" / "td3-rlx2" / "s0.95" / f"seed{seed}"


def below(process: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    children = [int(child) for child in text.split()]
    return [each for child in children for each in (child, *below(child))]


def ended(watched: list[int], timeout_s: float) -> bool:
    """Wait until processes that are not this one's have ended; return whether they have."""
    found = []
    for descriptor in watched:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        found.append(bool(poll.poll(1000 * timeout_s)))
        os.close(descriptor)
    return all(found)


def test_the_workers_of_a_killed_sweep_end_and_say_that_they_were_interrupted(tmp_path, sweep):
    worker = int((run(tmp_path) / ".lock").read_text().split()[0])
    processes = below(sweep.pid)
    assert worker in processes
    assert len(below(worker)) == 1  # the one that steps its environments
    watched = [os.pidfd_open(process) for process in processes]
    sweep.kill()
    assert ended(watched, timeout_s=8)
    assert read_status(run(tmp_path)) == "interrupted"
    assert has_state(run(tmp_path) / CHECKPOINT_FOLDER)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_a_signal_ends_a_sweep_and_its_workers(tmp_path, sweep, send, number):
    watched = [os.pidfd_open(process) for process in below(sweep.pid)]
    send(sweep.pid, number)
    shown, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "Traceback" not in shown
    assert shown.splitlines()[-1] == "interrupted"
    assert (read_summary(run(tmp_path)) or {})["steps"] >= 100
    assert [read_status(run(tmp_path, seed)) for seed in (0, 1)] == ["interrupted", None]
    assert ended(watched, timeout_s=8)
    assert has_state(run(tmp_path) / CHECKPOINT_FOLDER)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_interruption_ends_with_the_same_exit_code(name, capsys):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as end, interruptible():
        signal.raise_signal(number)
    assert end.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_nohup_keeps_a_run_alive():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
