"""Ray clusters whose machines are processes here, and sweeps on them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from program_samples import REPOSITORY
from sweep_samples import SMALL

from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, has_state

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
LOGS = ("eval.csv", "episodes.csv", "topology.csv", "hashes.csv", "neurons.csv")
ENDLESS = 10_000_000

STARTS = 3
"""How often a machine is started: Ray gives its processes half a minute, too little where others
keep all CPUs busy."""


def keys(steps: int, **more: object) -> list[str]:
    chosen = {"eval_every": 1000, "topology.update_interval": 100, **more}
    sets = [*SMALL, *(f"{key}={value}" for key, value in chosen.items())]
    what = ["--env=2DNav-v1", "--metric=final", f"--steps={steps}", "--checkpoint-every=500"]
    return [*what, *(f"--set={each}" for each in sets)]


def sweep(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a sweep in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dstrl_cli", "sweep", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str], code: int) -> str:
    """Wait for a sweep; return what it printed."""
    shown, _ = process.communicate(timeout=1500)
    assert process.returncode == code, shown
    assert "Traceback" not in shown
    return shown


TOKEN = secrets.token_hex(32)
"""What admits these tests, and nobody else on this machine, to the clusters that they start."""


def environment(**more: str) -> dict[str, str]:
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    admitted = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    return os.environ | {"PYTHONPATH": str(REPOSITORY)} | quiet | admitted | more


def folder(out: Path, seed: int) -> Path:
    return out / "2DNav-v1" / "td3-rlx2" / "s0.95" / f"seed{seed}"


def logs(out: Path, seeds: int) -> list[bytes]:
    return [(folder(out, seed) / name).read_bytes() for seed in range(seeds) for name in LOGS]


def holder(out: Path, seed: int) -> int | None:
    """The process that trains a run and has written a checkpoint."""
    try:
        if has_state(folder(out, seed) / CHECKPOINT_FOLDER):
            return int((folder(out, seed) / ".lock").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        pass
    return None


def below(process: int) -> list[int]:
    """A process and those that it started, and so on."""
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        found += [each for child in children for each in below(int(child))]
    return found


def _holds_a_run(process: int) -> bool:
    for each in Path(f"/proc/{process}/fd").glob("*"):
        try:
            if each.readlink().name == ".lock" and "seed" in each.readlink().parent.name:
                return True
        except OSError:
            continue
    return False


class Machine:
    """A machine of a cluster: the processes that `ray start` starts."""

    def __init__(self, arguments: list[str], variables: Mapping[str, str]) -> None:
        # what sets the locks of runs free is the end of their processes, as on a real machine
        start = [*RAY, "start", "--block", "--disable-usage-stats", "--num-cpus=1", *arguments]
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # as long as the machine
        self.process = subprocess.Popen(
            [*start, f"--object-store-memory={80 << 20}"],
            env=environment(**variables),
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def starts(self) -> bool:
        """Wait until it has started; False where Ray gave up, as it does on a busy machine."""
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in self.shown():
            if self.process.poll() is not None:
                assert "timed out during startup" in self.shown(), self.shown()
                return False
            assert time.monotonic() < deadline, self.shown()
            time.sleep(0.2)
        return True

    def shown(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def kill(self) -> None:
        """End all its processes at once, as a power failure does."""
        processes = below(self.process.pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # none may save when it misses another
            for each in processes:
                try:
                    os.kill(each, number)
                except ProcessLookupError:
                    continue
        self.process.wait()
        self.log.close()


class Cluster:
    """Machines of one CPU each."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self.machines: dict[str, Machine] = {}
        here = ["--head", f"--port={port}"]
        self.add("one", *here, "--include-dashboard=false", f"--temp-dir={self.folder.name}")

    def add(self, name: str, *arguments: str, **variables: str) -> Machine:
        where = arguments or (f"--address={self.address}",)
        for _ in range(STARTS):
            machine = self.machines[name] = Machine([*where, f"--node-name={name}"], variables)
            if machine.starts():
                return machine
            shown = machine.shown()
            machine.log.close()
        raise AssertionError(f"Ray did not start {STARTS} times: {shown}")

    def lose(self, name: str) -> None:
        self.machines.pop(name).kill()

    def close(self) -> None:
        for name in reversed(list(self.machines)):
            self.lose(name)
        self.folder.cleanup()

    def trains(self, name: str) -> bool:
        """Whether a process of a machine trains a run; it has begun a file of it."""
        return any(map(_holds_a_run, below(self.machines[name].process.pid)))

    def machine_of(self, process: int) -> str | None:
        """The name of the machine that a process belongs to."""
        for name, machine in self.machines.items():
            if process in below(machine.process.pid):
                return name
        return None


@contextmanager
def cluster(*names: str) -> Iterator[Cluster]:
    """A cluster of a machine called `one` and of those named."""
    made = Cluster()
    try:
        for name in names:
            made.add(name)
        yield made
    finally:
        made.close()
