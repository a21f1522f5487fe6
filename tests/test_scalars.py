"""Curves for TensorBoard and Weights & Biases: names, numbers, resume, and what is missing."""

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from wandb_samples import history

import dstrl_cli
from dstrl_cli.cli import main
from dstrl_cli.training import writers
from dstrl_cli.training.scalars import ScalarSink, write_logged

SMALL = {
    "learning_starts": 100,
    "hidden_sizes": [8, 8],
    "eval_every": 100,
    "eval_episodes": 1,
    "batch_size": 16,
    "topology.update_interval": 50,
    "engine": "masked",
}
NAVIGATION = "2DNav-v1/td3-rlx2/s0.5/seed0"


class Kept:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {}
        self.closed = 0

    def add(self, points: Mapping[str, float], step: int) -> None:
        for name, value in points.items():
            self.points.setdefault(name, []).append((step, value))

    def flush(self) -> None:
        return

    def close(self) -> None:
        self.closed += 1


class Failing(Kept):
    """A writer whose disk is full."""

    def add(self, points: Mapping[str, float], step: int) -> None:
        raise OSError("the disk is full")


def trained(out: Path, **sets: object) -> Path:
    dstrl_cli.train(env="2DNav-v1", steps=300, sparsity=0.5, out=out, sets=SMALL | sets)
    return out / NAVIGATION


# --- names and numbers ----------------------------------------------------------------------------


def test_rows_become_curves_named_as_in_stable_baselines3():
    kept = Kept()
    sink = ScalarSink(kept, "kept", print)
    episode = {"step": 5, "return": 2.0, "length": 5, "success": None}
    sink.episodes([episode, episode | {"step": 9, "return": 4.0, "length": 4, "success": 1}])
    sink.evaluation(10, [1.0, 3.0], [5, 7], [0.0, 1.0])
    sink.progress({"step": 10, "critic_loss": 0.5, "alpha": None, "steps_per_s": math.nan})
    sink.summary({"status": "finished"})
    assert kept.points == {
        "rollout/ep_rew_mean": [(5, 2.0), (9, 3.0)],
        "rollout/ep_len_mean": [(5, 5.0), (9, 4.5)],
        "rollout/success_rate": [(9, 1.0)],
        "eval/mean_reward": [(10, 2.0)],
        "eval/mean_ep_length": [(10, 6.0)],
        "eval/success_rate": [(10, 0.5)],
        "train/critic_loss": [(10, 0.5)],
    }
    assert kept.closed == 1


def test_rollouts_average_the_last_hundred_episodes():
    kept = Kept()
    rows = [{"step": n, "return": float(n), "length": 1} for n in range(1, 121)]
    ScalarSink(kept, "kept", print).episodes(rows)
    assert kept.points["rollout/ep_rew_mean"][-1] == (120, 70.5)  # of 21 to 120


def test_a_topology_update_is_summed_over_layers_and_neurons_are_not():
    kept = Kept()
    sink = ScalarSink(kept, "kept", print)
    row = {"step": 7, "network": "actor", "layer": 0, "active": 9, "dropped": 2, "grown": 3}
    sink.topology([row, row | {"layer": 1, "grown": 4}])
    sink.neurons([{"step": 8, "network": "actor", "layer": 1, "units": 4, "dormant": 2}])
    assert kept.points["topology/actor_grown"] == [(7, 7.0)]
    sink.topology([row | {"step": 9}, row | {"step": 9, "grown": 1}])  # two updates after a step
    assert kept.points["topology/actor_grown"][1:] == [(9, 3.0), (9, 1.0)]
    assert kept.points["neurons/actor_1_dormant"] == [(8, 2.0)]
    assert "neurons/actor_1_units" not in kept.points


def test_what_goes_wrong_in_a_writer_ends_it_and_is_said_once():
    said: list[str] = []
    sink = ScalarSink(Failing(), "tensorboard", said.append)
    for step in (1, 2):
        sink.evaluation(step, [1.0], [1])
    sink.close()
    assert said == ["warning: tensorboard ended early, training goes on: the disk is full"]


def test_replayed_files_give_the_curves_that_training_gave(tmp_path: Path, monkeypatch):
    live = Kept()
    monkeypatch.setitem(writers.WRITERS, "tensorboard", lambda *_: live)
    monkeypatch.setattr(writers, "check", lambda _: None)
    run = trained(tmp_path, tensorboard=True)
    again = Kept()
    write_logged(run, ScalarSink(again, "again", print))
    assert again.points.keys() == live.points.keys()
    assert again.points == live.points
    assert {"eval/mean_reward", "train/critic_loss", "topology/actor_grown"} <= again.points.keys()


# --- the packages themselves ----------------------------------------------------------------------


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves in TensorBoard's files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), purge_orphaned_data=False).Reload()
    return {
        name: [(each.step, each.value) for each in read.Scalars(name)]
        for name in read.Tags()["scalars"]
    }


LOGS = ("eval.csv", "episodes.csv", "topology.csv", "hashes.csv", "policy.safetensors")


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_has_each_point_once_also_after_a_resume_and_numbers_stay(tmp_path: Path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    plain = trained(tmp_path / "plain")
    run = trained(tmp_path / "curves", tensorboard=True, keep_checkpoint=True)
    for name in LOGS:
        assert (run / name).read_bytes() == (plain / name).read_bytes()
    before = curves(run / "tensorboard")
    assert [step for step, _ in before["eval/mean_reward"]] == [0, 100, 200, 300]
    dstrl_cli.train(
        env="2DNav-v1",
        steps=400,
        sparsity=0.5,
        out=tmp_path / "curves",
        sets=SMALL | {"tensorboard": True, "keep_checkpoint": True},
        dst="sst",
    )
    sst = tmp_path / "curves/2DNav-v1/td3-sst/s0.5/seed0"
    dstrl_cli.train(
        env="2DNav-v1",
        steps=600,
        sparsity=0.5,
        out=tmp_path / "curves",
        sets=SMALL | {"tensorboard": True},
        dst="sst",
        resume=True,
    )
    for name, points in curves(sst / "tensorboard").items():
        steps = [step for step, _ in points]
        assert steps == sorted(set(steps)), name
    found = [step for step, _ in curves(sst / "tensorboard")["eval/mean_reward"]]
    assert found == [0, 100, 200, 300, 400, 500, 600]


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_offline_and_a_resumed_run_keeps_its_id(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    asked = {"env": "2DNav-v1", "sparsity": 0.5, "out": tmp_path, "dst": "sst"}
    sets = SMALL | {"wandb": True, "keep_checkpoint": True}
    dstrl_cli.train(**asked, steps=200, sets=sets)
    folder = tmp_path / "2DNav-v1/td3-sst/s0.5/seed0/wandb"
    own = writers.former_id(folder)
    dstrl_cli.train(**asked, steps=300, sets=sets, resume=True)
    assert writers.former_id(folder) == own is not None
    rows = history(folder)
    points = [row["global_step"] for row in rows if "eval/mean_reward" in row]
    assert points == [0, 100, 200, 300]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_without_the_package_nothing_is_written(tmp_path: Path, capsys, monkeypatch, name):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        writers.importlib.util, "find_spec", lambda each: None if each == name else found(each)
    )
    for command in ("train", "sweep"):
        asked = [command, "--env", "2DNav-v1", "--steps", "100", f"--{name}"]
        assert main([*asked, "--out", str(tmp_path / "out")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f'--{name}: {name} is not installed: pip install "dstrl[{name}]"' in said
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_sweep_writes_curves_in_its_processes(tmp_path: Path, capsys):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    sets = [f"--set={key}={str(value).replace(' ', '')}" for key, value in SMALL.items()]
    asked = ["sweep", "--env", "2DNav-v1", "--dst", "sst", "--steps", "200", "--tensorboard"]
    assert main([*asked, *sets, "--out", str(tmp_path)]) == 0
    folder = tmp_path / "2DNav-v1/td3-sst/s0.95/seed0/tensorboard"
    assert [step for step, _ in curves(folder)["eval/mean_reward"]] == [0, 100, 200]
