"""Runs that are stopped and go on give the files of a run that was never stopped."""

import csv
import functools
import os
import random
import signal
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import yaml
from resume_samples import (
    Lines,
    StopAt,
    copy_while_training,
    go_on,
    make_run,
    numbers,
    stop_at_check,
    train,
)

from dstrl_cli.algos.compiled.update import CompiledUpdate
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.errors import DstrlError
from dstrl_cli.runs import policy
from dstrl_cli.runs.checkpoint import read_values
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.states import resumed
from dstrl_cli.training import checkpoint
from dstrl_cli.training import run as training
from dstrl_cli.training.learner import Learner
from dstrl_cli.training.reporter import Silent

SAVING = ("checkpoint_every=30",)
LEARNING_STARTS = 40  # of the small runs


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_members_whose_summaries_are_written_stay_as_they_are_when_the_others_are_cut_off(
    tmp_path, monkeypatch
):
    runs = [make_run(tmp_path / f"run{seed}", seed=seed) for seed in range(3)]
    written = RunFolder.summary

    def interrupted_once(folder, summary):
        if folder.path == runs[1].path and summary["status"] == "finished":
            raise KeyboardInterrupt
        written(folder, summary)

    monkeypatch.setattr(RunFolder, "summary", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        training.train(runs, "cpu", Silent())
    statuses = [read_summary(run.path)["status"] for run in runs]
    assert statuses == ["finished", "interrupted", "interrupted"]


# --- killed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algo", "method", "engine", "env"),
    [
        ("td3", "rlx2", "sparse", "2DNav-v1"),
        ("sac", "our-rlx2", "masked", "InvertedPendulum-v5"),
        ("td3", "our-dst", "masked", "Pendulum-v1"),
        ("sac", "dst", "sparse", "InvertedPendulum-v5"),
        ("td3", "granet", "sparse", "2DNav-v1"),
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_bytes_of_one_that_was_not(
    tmp_path, monkeypatch, algo, method, engine, env
):
    run = make_run(tmp_path / "run", method, algo=algo, engine=engine, env=env, sets=SAVING)
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=40)
    assert train(run)["status"] == "finished"
    expected, killed = numbers(run.path), copies()
    assert len(killed) >= 3
    assert len(rows(run.path / "topology.csv")) > 30
    for copy in killed:
        for name in ("eval.csv", "topology.csv"):  # torn lines, as a crash of the system leaves
            with (copy / name).open("ab") as file:
                file.write(b"605,cr")
        assert go_on(run, copy)["status"] == "finished"
        assert numbers(copy) == expected
    starts = [yaml.safe_load((each / "config.yaml").read_text())["run"] for each in killed]
    resumed_at = {each["resumed"][0]["step"] for each in starts if "resumed" in each}
    assert resumed_at == {30, 60, 90}


def test_a_run_may_be_resumed_again_and_again(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "our-rlx2", sets=SAVING)
    copies = copy_while_training(monkeypatch, tmp_path / "first", every=1000)
    train(run)
    first = copies()[0]
    copies = copy_while_training(monkeypatch, tmp_path / "second", every=1000)
    go_on(run, first)
    second = copies()[-1]
    summary = go_on(run, second)
    assert numbers(second) == numbers(run.path)
    document = yaml.safe_load((second / "config.yaml").read_text())
    assert [each["step"] for each in document["run"]["resumed"]] == [30, 90]
    assert {"step", "versions", "device", "command"} <= document["run"]["resumed"][1].keys()
    assert summary["wall_time_s"] > summary["evaluation_time_s"] > 0
    assert summary["checkpoint_time_s"] > 0
    times = [float(row["time_s"]) for row in rows(second / "progress.csv")]
    assert times == sorted(times)


def test_the_checkpoint_of_a_finished_run_is_removed_unless_it_is_kept(tmp_path):
    train(make_run(tmp_path / "removed", "sst", sets=SAVING))
    assert not (tmp_path / "removed" / "checkpoint").exists()
    train(make_run(tmp_path / "kept", "sst", sets=(*SAVING, "keep_checkpoint=true")))
    assert read_values(tmp_path / "kept" / "checkpoint")["steps"] == 120
    train(make_run(tmp_path / "only", "sst", sets=("checkpoint_every=0", "keep_checkpoint=true")))
    assert read_values(tmp_path / "only" / "checkpoint")["steps"] == 120


def test_checkpoints_are_written_at_the_steps_or_after_the_time_asked_for(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(RunFolder, "checkpoint", lambda _, state: steps.append(state["steps"]))
    train(make_run(tmp_path / "steps", "sst", sets=("checkpoint_every=50",)))
    assert steps == [50, 100]
    train(make_run(tmp_path / "off", "sst", sets=("checkpoint_every=0",)))
    train(make_run(tmp_path / "late", "sst", sets=("checkpoint_every=2h",)))
    assert steps == [50, 100]
    train(make_run(tmp_path / "often", "sst", sets=("checkpoint_every=0.001s",)))
    assert steps == [50, 100, 100]  # the time is read every 100 steps


def test_a_member_that_wants_no_checkpoints_has_none_where_others_have(tmp_path):
    runs = [
        make_run(tmp_path / str(seed), "sst", seed=seed, sets=(f"checkpoint_every={every}",))
        for seed, every in enumerate((0, 30))
    ]
    signals = [signal.SIGINT]
    said = StopAt(70, lambda: signals and signal.raise_signal(signals.pop()))  # each member asks
    with pytest.raises(KeyboardInterrupt):
        training.train(runs, "cpu", said)
    assert not (runs[0].path / "checkpoint").exists()
    assert read_values(runs[1].path / "checkpoint")["steps"] == 70
    assert "stopped at step 70, where 1 of 2 runs can be resumed" in said.lines


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "checkpoint", full)
    said = Lines()
    assert train(make_run(tmp_path / "run", "sst", sets=SAVING), said)["status"] == "finished"
    assert [line for line in said.lines if "no checkpoint was written at step 30" in line]
    stopped = StopAt(70, functools.partial(signal.raise_signal, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(make_run(tmp_path / "stopped", "sst", sets=SAVING), stopped)
    assert "stopped at step 70, of which nothing is kept" in stopped.lines


def test_a_member_that_cannot_be_kept_costs_the_others_no_checkpoint(tmp_path, monkeypatch):
    runs = [make_run(tmp_path / str(seed), "sst", sets=SAVING, seed=seed) for seed in range(3)]
    real, signals = checkpoint.member_state, [signal.SIGINT]
    said = StopAt(70, lambda: signals and signal.raise_signal(signals.pop()))  # each member asks

    def state(population, member, *rest):
        if member == 1:
            raise DstrlError("it holds an open file")
        return real(population, member, *rest)

    monkeypatch.setattr(checkpoint, "member_state", state)
    with pytest.raises(KeyboardInterrupt):
        training.train(runs, "cpu", said)
    at = [read_values(run.path / "checkpoint")["steps"] for run in (runs[0], runs[2])]
    assert at == [70, 70]
    assert not (runs[1].path / "checkpoint" / "state.safetensors").exists()
    warned = [line for line in said.lines if "no checkpoints of sst seed 1 are written" in line]
    assert len(warned) == 1
    assert "stopped at step 70, where 2 of 3 runs can be resumed" in said.lines


# --- stopped ------------------------------------------------------------------------------------


def test_a_signal_stops_a_run_with_a_checkpoint_from_which_it_goes_on(tmp_path):
    whole = make_run(tmp_path / "whole")
    train(whole)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        run, handler = replace(whole, path=tmp_path / number.name), signal.getsignal(number)
        said = StopAt(70, functools.partial(signal.raise_signal, number))
        with pytest.raises(KeyboardInterrupt):
            train(run, said)
        assert signal.getsignal(number) is handler
        summary = read_summary(run.path)
        assert (summary["status"], summary["steps"]) == ("interrupted", 70)
        assert "stopped at step 70, where it can be resumed" in said.lines
        assert go_on(run, run.path)["status"] == "finished"
        assert numbers(run.path) == numbers(whole.path)


def test_a_second_signal_ends_a_run_at_once(tmp_path):
    def twice() -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    run = make_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, StopAt(70, twice))
    assert read_summary(run.path)["status"] == "interrupted"
    assert not (run.path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("owner", "name", "engine", "sets", "begun"),
    [
        (Learner, "store", "sparse", ("threads=2",), 0),  # beside an update that began early
        (TD3, "train_step", "masked", (), 1),
        (CompiledUpdate, "__call__", "sparse", ("threads=1",), 1),
    ],
)
def test_an_update_that_a_second_signal_ends_is_not_counted(
    tmp_path, monkeypatch, owner, name, engine, sets, begun
):
    whole = train(make_run(tmp_path / "whole", "sst"))
    calls, real = 0, getattr(owner, name)

    def interrupted(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 60:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return real(self, *arguments)

    monkeypatch.setattr(owner, name, interrupted)
    run = make_run(tmp_path / "run", "sst", engine=engine, sets=sets)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    summary = read_summary(run.path)
    share = summary["flops"]["train_total"] / whole["flops"]["train_total"]
    updates = share * (whole["steps"] - LEARNING_STARTS)
    assert updates == pytest.approx(summary["steps"] - LEARNING_STARTS - begun)


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = make_run(tmp_path / "run", "sst")
        summary = train(run, StopAt(70, lambda: signal.raise_signal(signal.SIGHUP)))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert summary["status"] == "finished"


def test_a_run_stopped_during_an_evaluation_repeats_it(tmp_path, monkeypatch):
    whole = make_run(tmp_path / "whole", sets=("checkpoint_every=10m",))
    train(whole)
    first = max(int(row["length"]) for row in rows(whole.path / "eval.csv") if row["step"] == "0")
    before = first + 69  # how often it looked before the evaluation at step 70
    for number in (before + 1, before + 3):
        run = replace(whole, path=tmp_path / str(number))
        stop_at_check(monkeypatch, number)
        with pytest.raises(KeyboardInterrupt):
            train(run)
        monkeypatch.undo()
        values = read_values(run.path / "checkpoint")
        assert (values["steps"], values["evaluated"]) == (70, 0)
        assert {row["step"] for row in rows(run.path / "eval.csv")} == {"0"}
        go_on(run, run.path)
        assert numbers(run.path) == numbers(whole.path)


def test_a_run_stopped_before_its_first_step_starts_over(tmp_path, monkeypatch):
    whole, run = make_run(tmp_path / "whole", "sst"), make_run(tmp_path / "run", "sst")
    train(whole)
    stop_at_check(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        train(run)
    monkeypatch.undo()
    (planned,) = resumed([run], overwrite=False)
    assert (planned.run.start, planned.status) == ("over", "interrupted")
    train(planned.run)
    assert numbers(run.path) == numbers(whole.path)


# --- environments that cannot give their state --------------------------------------------------


@pytest.fixture
def _secretive():
    gymnasium.register("Secretive-v0", "resume_samples:Secretive", max_episode_steps=50)
    yield
    del gymnasium.registry["Secretive-v0"]


@pytest.mark.usefixtures("_secretive")
def test_an_environment_that_cannot_give_its_state_starts_a_new_episode(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", env="Secretive-v0", sets=("checkpoint_every=70",))
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=1000)
    assert train(run)["restarts"] == 0
    (copy,) = copies()
    said = Lines()
    summary = go_on(run, copy, said)
    assert (summary["status"], summary["restarts"]) == ("finished", 1)
    (line,) = [line for line in said.lines if "new episode" in line]
    assert "begins at step 70" in line
    assert "it keeps a object (secret)" in line
    ended = [(row["episode"], row["step"]) for row in rows(copy / "episodes.csv")]
    assert ended == [("0", "30"), ("1", "60"), ("2", "100")]  # steps 61 to 70 are in no episode


@pytest.mark.parametrize("workers", [0, 2])
def test_what_an_environment_draws_from_its_process_goes_on_too(tmp_path, monkeypatch, workers):
    sets = ("checkpoint_every=50", "eval_episodes=4", f"env_workers={workers}")
    run = make_run(tmp_path / "run", "sst", env="env_samples:Borrowing-v0", sets=sets)
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=1000)
    train(run)
    copy, _ = copies()
    random.random()  # another run of this process would have drawn, too
    assert go_on(run, copy)["restarts"] == 0
    assert numbers(copy) == numbers(run.path)


def test_what_a_stopped_evaluation_has_drawn_is_drawn_again(tmp_path, monkeypatch):
    whole = make_run(tmp_path / "whole", "sst", env="env_samples:Borrowing-v0")
    train(whole)
    run = replace(whole, path=tmp_path / "run")
    stop_at_check(monkeypatch, 30 + 69 + 5)  # in the fifth step of the evaluation at step 70
    with pytest.raises(KeyboardInterrupt):
        train(run)
    monkeypatch.undo()
    assert read_values(run.path / "checkpoint")["evaluated"] == 0
    go_on(run, run.path)
    assert numbers(run.path) == numbers(whole.path)


# --- populations --------------------------------------------------------------------------------


def layers(path) -> np.ndarray:
    tensors, _ = policy.read(path / "policy.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def test_members_of_a_population_go_on_together_or_alone(tmp_path, monkeypatch):
    sets = ("checkpoint_every=100",)
    members = [
        make_run(tmp_path / method, method, seed=seed, sets=sets)
        for seed, method in enumerate(("rlx2", "our-dst", "sst"))
    ]
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=10_000)
    training.train(members, "cpu", Lines())
    killed = copies()
    assert len(killed) == 3
    alone = []
    for run, copy in zip(members, killed, strict=True):
        other = copy.with_name(f"{copy.name}-alone")
        other.mkdir()
        for file in copy.rglob("*"):
            if file.is_file():
                target = other / file.relative_to(copy)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(file.read_bytes())
        go_on(run, other)
        alone.append(other)
    at_copies = [replace(run, path=copy) for run, copy in zip(members, killed, strict=True)]
    planned = [each.run for each in resumed(at_copies, overwrite=False)]
    assert [(run.start, run.step) for run in planned] == [("resume", 100)] * 3
    training.train(planned, "cpu", Lines())
    for run, together, by_itself in zip(members, killed, alone, strict=True):
        for path in (together, by_itself):
            assert read_summary(path)["status"] == "finished"
            np.testing.assert_allclose(layers(path), layers(run.path), rtol=1e-4, atol=1e-5)
            lengths = [(row["step"], row["length"]) for row in rows(path / "episodes.csv")]
            assert lengths == [
                (row["step"], row["length"]) for row in rows(run.path / "episodes.csv")
            ]


def test_a_dead_worker_process_takes_only_the_states_of_its_own_environments(tmp_path, monkeypatch):
    sets = ("checkpoint_every=70", "env_workers=2")
    members = [make_run(tmp_path / str(seed), "sst", seed=seed, sets=sets) for seed in range(2)]
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=10_000)
    texts = checkpoint.environment_texts

    def killing(env):
        os.kill(env._group._workers[0][0]._process.pid, signal.SIGKILL)
        return texts(env)

    monkeypatch.setattr(checkpoint, "environment_texts", killing)
    training.train(members, "cpu", Silent())
    statuses = [read_summary(run.path)["status"] for run in members]
    assert statuses == ["failed", "finished"]
    killed = [replace(run, path=copy) for run, copy in zip(members, copies(), strict=True)]
    said = Lines()
    planned = [each.run for each in resumed(killed, overwrite=False)]
    summaries = training.train(planned, "cpu", said)
    ends = [(each["status"], each["restarts"]) for each in summaries]
    assert ends == [("finished", 1), ("finished", 0)]
    (told,) = [line for line in said.lines if "new episode" in line]
    assert "killed by SIGKILL" in told
    assert numbers(killed[1].path) == numbers(members[1].path)
