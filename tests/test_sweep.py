"""Running a sweep here: queues, failures, interruptions, populations."""

import io
import json
import signal
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from sweep_samples import SMALL, leave, runs, wait_for

from dstrl_cli.config.parse import to_dict
from dstrl_cli.errors import DstrlError
from dstrl_cli.machine import Host
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.summary import read_status, read_summary
from dstrl_cli.sweep.devices import Device
from dstrl_cli.sweep.launcher import End, Launcher, Note, execute, summary_of
from dstrl_cli.sweep.local import LocalLauncher
from dstrl_cli.sweep.place import Limits, place_runs
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.sweep.shared import new_summary
from dstrl_cli.sweep.states import resumed
from dstrl_cli.terminal.display import LineDisplay
from dstrl_cli.terminal.sweepview import SweepDisplay
from dstrl_cli.training.run import Outcome, _leave_summaries, out_of_memory

# --- running ------------------------------------------------------------------------------------

BROKEN = """
import os, signal, gymnasium, numpy
from gymnasium.spaces import Box

class Broken(gymnasium.Env):
    observation_space = Box(-1, 1, (2,), numpy.float32)
    action_space = Box(-1, 1, (1,), numpy.float32)
    def __init__(self, how): self.how, self.steps = how, 0
    def reset(self, seed=None, options=None): return self.observation_space.low, {}
    def step(self, action):
        self.steps += 1
        if self.steps > 60 and self.how == "dies": os.kill(os.getpid(), signal.SIGKILL)
        if self.steps > 60 and self.how == "raises": raise RuntimeError("the arm fell off")
        return self.observation_space.low, 0.0, False, self.steps % 10 == 0, {}

for how in ("dies", "raises", "works"):
    gymnasium.register(f"Broken-{how}-v0", entry_point=Broken, kwargs={"how": how})
"""


CPU = Device("cpu")
LIKE_ACCELERATORS = [Device("cpu", 4 * 10**9)] * 2
"""Two devices as far as the plan can tell; what trains on them is the population code."""


def carry_out(found, devices, display=None) -> list[Outcome]:
    planned = resumed(found, overwrite=False)
    placement = place_runs(planned, Limits(jobs=3), Host(cores=2), devices=devices)
    with display or LineDisplay(Console(file=io.StringIO()), runs=3, evaluations=False) as shown:
        return execute(placement, LocalLauncher(), shown)


class Elsewhere(Launcher):
    """Trains nothing: every population says a word, and ends in the order of its start."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.running: list[int] = []
        self.most = 0
        self.stopped = False
        self.killed: list[int] | None = None

    def start(self, number, population) -> None:
        self.started.append(number)
        self.running.append(number)
        self.most = max(self.most, len(self.running))

    def receive(self, timeout_s=None):
        number = self.running.pop(0)
        if number == 2:
            raise KeyboardInterrupt
        return [(number, Note("hello")), (number, End("failed", "no such place"))]

    def stop(self, at_once=False) -> None:
        self.stopped = True

    def busy(self) -> bool:
        return bool(self.running)

    def kill(self) -> None:
        self.killed = list(self.running)


def test_the_loop_keeps_every_queue_busy_whatever_starts_the_populations(tmp_path):
    found = runs(Axes(seeds=(0, 1)), tmp_path)
    out, elsewhere = io.StringIO(), Elsewhere()
    planned = resumed(found, overwrite=False)
    placement = place_runs(planned, Limits(jobs=1), Host(cores=8), devices=[CPU])
    display = LineDisplay(Console(file=out, width=200), runs=2, evaluations=False)
    outcomes = execute(placement, elsewhere, display)
    assert (elsewhere.started, elsewhere.most) == ([0, 1], 1)
    assert [each.summary["error"] for each in outcomes] == ["no such place"] * 2
    assert f"{found[0].label}: hello" in out.getvalue()
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_ends_what_runs_and_passes_through(tmp_path):
    elsewhere = Elsewhere()
    planned = resumed(runs(Axes(seeds=(0, 1, 2, 3)), tmp_path), overwrite=False)
    placement = place_runs(planned, Limits(jobs=2), Host(cores=8), devices=[CPU])
    display = LineDisplay(Console(file=io.StringIO()), runs=4, evaluations=False)
    with pytest.raises(KeyboardInterrupt):
        execute(placement, elsewhere, display)
    assert elsewhere.stopped
    assert elsewhere.killed == []  # the other one ended in time
    assert (elsewhere.started, elsewhere.most) == ([0, 1, 2, 3], 2)


def statuses(outcomes) -> list[str]:
    return [each.summary["status"] for each in outcomes]


@pytest.fixture
def broken_envs(tmp_path, monkeypatch):
    (tmp_path / "broken_env.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    return {how: f"broken_env:Broken-{how}-v0" for how in ("dies", "raises", "works")}


def test_failing_and_dying_runs_stop_no_other(tmp_path, broken_envs):
    found = runs(Axes(envs=tuple(broken_envs.values())), tmp_path / "results")
    out = io.StringIO()
    display = LineDisplay(Console(file=out, width=60), runs=3, evaluations=False)
    outcomes = carry_out(found, [CPU], display)
    assert statuses(outcomes) == ["failed", "failed", "finished"]
    assert [read_status(run.path) for run in found] == ["failed", "failed", "finished"]
    assert "killed by SIGKILL" in outcomes[0].summary["error"]
    assert "the arm fell off" in outcomes[1].summary["error"]
    assert "(3/3)" in out.getvalue()


def test_populations_on_two_devices_and_a_second_call_does_what_is_left(tmp_path, broken_envs):
    envs = (broken_envs["dies"], broken_envs["works"])
    found = runs(Axes(envs=envs, seeds=(0, 1)), tmp_path / "results")
    out = io.StringIO()
    console = Console(file=out, width=90, force_terminal=True)
    display = SweepDisplay(console, [([run.label], 200, 50) for run in found])
    outcomes = carry_out(found, LIKE_ACCELERATORS, display)
    assert [each.run.label for each in outcomes] == [run.label for run in found]
    assert statuses(outcomes) == ["failed", "failed", "finished", "finished"]
    assert [read_status(run.path) for run in found] == statuses(outcomes)
    assert all("killed by SIGKILL" in each.summary["error"] for each in outcomes[:2])
    assert "4 runs: " in out.getvalue()
    again = carry_out(found, LIKE_ACCELERATORS)
    assert [each.run.label for each in again] == [run.label for run in found[:2]]
    assert statuses(again) == ["failed", "failed"]


def test_more_jobs_than_runs_are_no_trouble(tmp_path):
    assert statuses(carry_out(runs(Axes(), tmp_path), [CPU])) == ["finished"]
    assert carry_out(runs(Axes(), tmp_path), [CPU]) == []


def test_a_member_of_a_population_trains_as_it_does_alone(tmp_path):
    alone, together = (
        runs(Axes(seeds=(0, 1)), tmp_path / where, sets=("engine=masked",))
        for where in ("alone", "together")
    )
    assert statuses(carry_out(alone, [CPU])) == ["finished"] * 2
    assert statuses(carry_out(together, LIKE_ACCELERATORS[:1])) == ["finished"] * 2
    for one, other in zip(alone, together, strict=True):
        first, second = (
            [float(row.split(",")[2]) for row in lines(run, "eval.csv")] for run in (one, other)
        )
        assert first == pytest.approx(second, rel=1e-3)
        assert len(first) == 4


def lines(run, name: str) -> list[str]:
    return (run.path / name).read_text().splitlines()[1:]


def test_what_members_left_outlives_the_death_of_their_population(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2)), tmp_path)
    leave(found[0], "failed")  # an earlier attempt
    found = [each.run for each in resumed(found, overwrite=False)]
    leave(found[1], "diverged")
    leave(found[2], None)
    end = End("failed", "its process was killed")
    ends = [summary_of(run, end, new_summary(run)) for run in found]
    assert [each["status"] for each in ends] == ["failed", "diverged", "failed"]
    killed = "its process was killed"
    assert [each.get("error") for each in ends] == [killed, None, killed]
    assert [read_status(run.path) for run in found] == ["failed", "diverged", "failed"]


def test_a_refused_population_leaves_its_folders_alone(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    leave(run, "finished")
    summary = summary_of(run, End("refused", "in use"), None)
    assert summary == {"status": "failed", "error": "in use"}
    assert read_status(run.path) == "finished"


def test_memory_that_runs_out_is_told_with_the_remedy(tmp_path):
    cause = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    wrapped = DstrlError("OutOfMemoryError: CUDA out of memory")
    wrapped.__cause__ = cause
    for error in (cause, wrapped, RuntimeError("can't allocate memory: you tried"), MemoryError()):
        told = out_of_memory(error)
        assert told is not None
        assert "fewer --members-per-device" in str(told)
    assert out_of_memory(RuntimeError("CUDA error: device lost")) is None
    (run,) = runs(Axes(), tmp_path)
    with RunFolder(run.path).create(to_dict(run.config)) as folder:
        folder.summary({"status": "failed", "steps": 7, "error": "CUDA out of memory"})
        _leave_summaries([folder], [run.config], told, over_failed=True)
    assert (read_summary(run.path) or {})["steps"] == 7
    assert "--replay-device cpu" in (read_summary(run.path) or {})["error"]


def test_an_interrupted_sweep_leaves_valid_folders(tmp_path):
    command = [
        sys.executable,
        "-m",
        "dstrl_cli.cli",
        "sweep",
        "--env",
        "2DNav-v1",
        "--seeds",
        "0-2",
    ]
    command += ["--jobs", "2", "--steps", "1e6", "--out", str(tmp_path), "--metric", "final"]
    for key in (*SMALL, "eval_every=100"):
        command += ["--set", key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "2DNav-v1" / "td3-rlx2" / "s0.95"
    try:
        wait_for(lambda: all((first / f"seed{k}" / "policy.safetensors").exists() for k in (0, 1)))
    finally:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert [read_status(first / f"seed{k}") for k in range(3)] == ["interrupted"] * 2 + [None]
    summary = json.loads((first / "seed0" / "summary.json").read_text())
    assert summary["final_return"]["mean"] < 0
