"""Environments that exit, hang, crash, wander off or do not close, and who notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_samples import foreign
from program_samples import REPOSITORY
from training_samples import run, train

from dstrl_cli.envs import make_batch, spec
from dstrl_cli.envs.calls import contained

TINY = (
    *("--dst=sst", "--sparsity=0.5", "--steps=30", "--engine=masked", "--device=cpu"),
    *("--set=hidden_sizes=8,8", "--set=batch_size=8", "--set=learning_starts=20"),
    *("--set=eval_every=15", "--set=eval_episodes=2"),
)

HANGS = "environment 0 (Hangs-v0) failed: a call of step took longer than env.timeout = 0.4 s"


def dstrl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, in which the samples can be imported."""
    paths = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def summary(folder: Path) -> dict[str, Any]:
    (file,) = folder.rglob("summary.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.parametrize(
    ("habit", "cause"),
    [("exits", "Exited: it called os._exit(0)"), ("bye", "SystemExit: bye")],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_an_environment_that_ends_the_process_fails_alone(
    habit: str, cause: str, workers: int
) -> None:
    batch = make_batch(spec(foreign(habit)), 2, workers=workers)
    batch.reset([0, 1])
    for _ in range(3):
        batch.step(torch.zeros(2, 1))
    assert batch.failures[1].endswith(f"failed: {cause}")
    batch.close()


def test_observations_that_turn_complex_fail_and_lose_no_half() -> None:
    batch = make_batch(spec(foreign("turns complex")), 1)
    batch.reset([0])
    for _ in range(3):
        batch.step(torch.zeros(1, 1))
    assert batch.failures[0].endswith("failed: ValueError: an observation of complex numbers")
    batch.close()


def test_only_the_calling_thread_of_this_process_is_kept_from_exiting() -> None:
    before = os._exit
    with contained():
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert os._exit is before


def test_a_crash_in_the_foreground_is_said_and_marked(tmp_path: Path) -> None:
    done = dstrl(tmp_path, "-m", "dstrl_cli", "train", f"--env={foreign('crashes')}", *TINY)
    assert done.returncode == 1
    assert "its process was killed by SIGKILL" in done.stderr
    assert summary(tmp_path)["status"] == "failed"


def test_an_environment_that_hangs_in_the_runs_own_process_ends_it(tmp_path: Path) -> None:
    name, sets = foreign("hangs"), {"env": {"timeout": 0.4}, "learning_starts": 20}
    program = f"import dstrl_cli; dstrl_cli.train(env={name!r}, dst='sst', steps=30, sets={sets})"
    done = dstrl(tmp_path, "-c", program)
    assert done.returncode == 1
    assert HANGS in done.stderr
    found = summary(tmp_path)
    assert (found["status"], found["error"]) == ("failed", HANGS)


def test_an_environment_that_hangs_in_a_worker_fails_its_run(tmp_path: Path) -> None:
    sets = ["env.timeout=0.4", "env_workers=1"]
    (folder,) = train([run("sst", env=foreign("hangs"), sets=sets)], tmp_path)
    found = summary(folder)
    assert (found["status"], found["error"]) == ("failed", HANGS)


def test_a_hanging_worker_fails_its_environments_and_no_others() -> None:
    batch = make_batch(spec(foreign("hangs"), timeout=0.3), 2, workers=2)
    batch.reset([0, 1])
    steps = [batch.step(torch.zeros(2, 1), [number < 2, True]) for number in range(3)]
    assert list(batch.failures) == [1]
    assert "a call of step took longer than env.timeout = 0.3 s" in batch.failures[1]
    assert steps[-1].reward.tolist() == [0, 0]
    assert batch.step(torch.zeros(2, 1), [False, True]).reward.tolist() == [0, 0]
    batch.close()


def test_the_working_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    batch = make_batch(spec(foreign("moves away")), 1)
    assert Path.cwd() == tmp_path
    batch.reset([0])
    assert Path.cwd() == tmp_path


def test_an_environment_that_does_not_close_leaves_a_finished_run(tmp_path: Path) -> None:
    for workers in (0, 1):
        batch = make_batch(spec(foreign("does not close")), 1, workers=workers)
        batch.reset([0])
        batch.close()
    (folder,) = train([run("sst", env=foreign("does not close"))], tmp_path)
    assert summary(folder)["status"] == "finished"


def test_global_generators_are_seeded_for_a_run_by_itself(tmp_path: Path) -> None:
    files = []
    for seed, out in ((0, "one"), (0, "two"), (1, "three")):
        (folder,) = train([run("sst", seed, foreign("global"))], tmp_path / out)
        assert "shares" in summary(folder)["notes"][0]
        files.append((folder / "policy.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_watch_and_its_limits_change_no_number() -> None:
    batch = make_batch(spec(foreign(), timeout=60.0), 1)
    start = batch.reset([3])
    assert start[0, 0] == np.float32(np.random.default_rng(3).uniform())
    assert [batch.step(torch.zeros(1, 1)).reward.item() for _ in range(6)] == [1.0] * 6
    batch.close()
