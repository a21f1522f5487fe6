"""Worker processes: how many, where they are, how they die, and that nothing is left of them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import gymnasium
import pytest
import torch
from env_samples import Counter, faulty

from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs import make_batch, make_batches, spec
from dstrl_cli.envs.base import BatchEnv
from dstrl_cli.envs.workers.pool import worker_count
from dstrl_cli.errors import DstrlError
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training import trainer

WHERE = "env_samples:Whereabouts-v0"


def processes(batch: BatchEnv) -> list[int]:
    """Reset a batch of `Whereabouts`; return the process of each environment."""
    return [int(number) for number in batch.reset(range(batch.num_envs))[:, 0]]


def step(batch: BatchEnv) -> list[int]:
    """Step a batch of `Whereabouts`; return the steps that each environment has made."""
    return batch.step(torch.zeros(batch.num_envs, 1)).next_observation[:, 1].int().tolist()


@pytest.mark.parametrize(
    ("setting", "num_envs", "device", "expected"),
    [
        ("auto", 30, "cpu", 0),
        ("auto", 30, "cuda", 16),
        ("auto", 5, "cuda", 5),
        ("auto", 3, "cuda", 0),
        (0, 30, "cuda", 0),
        (4, 30, "cpu", 4),
        (4, 3, "cuda", 3),
    ],
)
def test_how_many_workers(setting: int, num_envs: int, device: str, expected: int) -> None:
    assert worker_count(setting, num_envs, device, cores=16) == expected


def test_batches_share_workers_that_leave_with_the_last_of_them() -> None:
    training, evaluation, single = make_batches(spec(WHERE), [5, 30, 1], workers=3)
    where, there = processes(training), processes(evaluation)
    assert os.getpid() not in where
    assert len(set(where)) == 3
    assert [where.count(process) for process in dict.fromkeys(where)] == [1, 2, 2]
    assert list(dict.fromkeys(where)) == list(dict.fromkeys(there))
    assert set(processes(single)) < set(where)
    evaluation.close()
    evaluation.close()
    assert step(training) == [1] * 5
    single.close()
    training.close()
    for process in set(where):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_nobody_waits_for_workers_without_need() -> None:
    batch = make_batch(spec(WHERE), 2)
    assert processes(batch) == [os.getpid()] * 2


def test_a_killed_worker_fails_its_environments_and_no_others() -> None:
    training, evaluation = make_batches(spec(WHERE), [5, 6], workers=2)
    where = processes(training)
    assert step(training) == [1] * 5
    os.kill(where[0], signal.SIGKILL)
    seen = training.step(torch.zeros(5, 1))
    assert seen.next_observation[:, 1].tolist() == [1, 1, 2, 2, 2]
    assert seen.observation[:, 1].tolist() == [1, 1, 2, 2, 2]
    assert seen.reward.tolist() == [0, 0, 1, 1, 1]
    assert list(training.failures) == [0, 1]
    assert training.failures[1] == (
        "environment 1 (Whereabouts-v0) failed: its worker process was killed by SIGKILL "
        "(out of memory?)"
    )
    # Another batch starts a new worker; what was lost stays lost until its own reset.
    there = processes(evaluation)
    assert evaluation.failures == {}
    assert where[0] not in there
    assert where[-1] in there
    assert step(training) == [1, 1, 3, 3, 3]
    with pytest.raises(DstrlError, match="killed by SIGKILL"):
        training.get_state()
    assert set(processes(training)) == set(there)
    assert training.failures == {}
    assert step(training) == [1] * 5
    training.close()
    evaluation.close()


def test_states_are_read_and_set_beside_those_of_a_dead_worker() -> None:
    batch = make_batch(spec(faulty("dies")), 4, workers=2)
    batch.reset([0, 2, 4, 6])
    batch.step(torch.zeros(4, 2))
    os.kill(batch._group._workers[0][0]._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    lost, also_lost, *read = batch.read_states()
    assert isinstance(lost, DstrlError)
    assert lost is also_lost
    batch.reset([1, 0, 0, 0])
    batch.set_state([None, None, *read])  # type: ignore[list-item]
    assert batch.step(torch.zeros(4, 2)).reward.tolist() == [1, 1, 2, 2]
    assert list(batch.step(torch.zeros(4, 2)).host.reward) == [0, 0, 3, 3]  # type: ignore[union-attr]
    batch.set_state([None, None, *read])  # type: ignore[list-item]
    assert list(batch.failures) == [0, 1]
    batch.close()


def test_an_environment_that_kills_its_worker() -> None:
    batch = make_batch(spec(faulty("dies")), 4, workers=4)
    batch.reset([0, 1, 2, 3])
    rewards = [batch.step(torch.zeros(4, 2)).reward.tolist() for _ in range(3)]
    assert rewards == [[1, 1, 1, 1], [2, 0, 2, 0], [3, 0, 3, 0]]
    assert list(batch.failures) == [1, 3]
    batch.close()


def test_a_worker_that_cannot_start_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register = "import gymnasium\nfrom env_samples import Whereabouts\n"
    register += "gymnasium.register('Passing-v0', Whereabouts)\n"
    (tmp_path / "passing.py").write_text(register)
    monkeypatch.syspath_prepend(tmp_path)
    batch = make_batch(spec("passing:Passing-v0"), 2, workers=2)
    os.kill(processes(batch)[0], signal.SIGKILL)
    (tmp_path / "passing.py").write_text("raise RuntimeError('gone')")
    assert step(batch) == [0, 1]
    assert batch.reset([0, 1])[0].tolist() == [0, 0]
    assert "failed: RuntimeError: gone" in batch.failures[0]
    assert step(batch) == [0, 1]
    batch.close()


def test_an_environment_that_workers_cannot_make() -> None:
    gymnasium.register("OnlyHere-v0", Counter)
    try:
        with pytest.raises(
            DstrlError, match=r"'OnlyHere-v0' cannot be made in a worker.*env_workers=0"
        ):
            make_batch(spec("OnlyHere-v0"), 2, workers=2)
    finally:
        del gymnasium.registry["OnlyHere-v0"]


def test_training_with_workers_gives_the_same_files(tmp_path: Path) -> None:
    sets = ["hidden_sizes=[12,12]", "batch_size=16", "learning_starts=40", "eval_every=60"]
    sets += ["eval_episodes=3", "threads=1"]
    flags = {"env.id": "Hopper-v5", "steps": 120, "seed": 3, "sparsity": 0.6, "engine": "masked"}
    files = []
    for workers in (0, 2):
        config = resolve("dst", sets=[*sets, f"env_workers={workers}"], flags=flags)
        run = prepare(config, tmp_path / str(workers))
        with RunFolder(run.path).create(to_dict(run.config), overwrite=False) as folder:
            trainer.train([run.config], [[folder]], run.spec, "cpu")
        files.append([(run.path / name).read_text() for name in ("eval.csv", "episodes.csv")])
    assert files[0] == files[1]
    assert files[0][0].count("\n") == 1 + 3 * 3


# A program with workers, which share its standard output: it has ended only when they have.
PROGRAM = f"""
import sys, torch
import dstrl_cli.training.trainer
from dstrl_cli.envs import make_batch, spec
batch = make_batch(spec({WHERE!r}), 4, workers=2)
batch.reset(range(4))
try:
    print("ready", flush=True)
    while True:
        batch.step(torch.zeros(4, 1))
except KeyboardInterrupt:
    if "close" in sys.argv:
        batch.close()
    print("interrupted", flush=True)
"""


def run(*arguments: str) -> subprocess.Popen[str]:
    """Start `PROGRAM` in a process group of its own, as a shell would; return it once ready."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(PROGRAM), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("arguments", [["close"], []])
def test_an_interrupt_reaches_the_parent_only(arguments: list[str]) -> None:
    process = run(*arguments)
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60) == ("interrupted\n", "")
    assert process.returncode == 0


def test_no_worker_outlives_its_parent() -> None:
    process = run()
    process.kill()
    assert process.communicate(timeout=60) == ("", "")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_closed_batches_leave_no_files_open() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    gc.collect()
    before = open_files()
    for _ in range(2):
        batch = make_batch(spec(WHERE), 4, workers=2)
        os.kill(processes(batch)[0], signal.SIGKILL)
        step(batch)
        batch.close()
        del batch
    gc.collect()  # the memory lives as long as someone looks at it
    assert open_files() == before
