"""Scores, schedules and their parameters from modules outside of dstrl."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import outside_samples
import pandas as pd
import pytest
import torch
from network_samples import ROWS, Data, build, copies, masks_of, moments, run, step
from program_samples import REPOSITORY, dstrl
from rule_samples import rule
from update_samples import finish_update

from dstrl_cli.cli import main
from dstrl_cli.config.identity import differences, identity
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.registry import SCORES, load
from dstrl_cli.topology.extensions import check_extensions
from dstrl_cli.topology.rule import Score, ScoreParams


def outside(name: str, **keys: Any) -> RunConfig:
    """A run whose critic drops by a score of `outside_samples`, every third of 20 updates."""
    topology = {"drop": f"outside_samples:{name}", "schedule": "constant", "update_interval": 3}
    config = run(0, 0.5, topology=topology | keys, steps=20, learning_starts=0)
    check_extensions(config)
    return config


# --- what a score sees ----------------------------------------------------------------------------


def test_an_observer_sees_active_gradients_moments_and_progress_at_every_update() -> None:
    network, data = build(outside("Watcher")), Data()
    score = network.groups[0].rule.drop
    assert isinstance(score, outside_samples.Watcher)
    for number in range(1, 5):
        before = masks_of(network)
        x, y = data.next()
        network.backward(2 * (network.forward(x) - y))
        dense = copies(network.grads.weights)
        finish_update(network, None, torch.full((1, 2), 3.0), ROWS)
        view = score.observed[-1]
        assert view.progress == number / 20
        assert (view.batch_size, view.td_error.tolist()) == (ROWS, [[3.0, 3.0]])
        for layer in range(3):
            assert torch.equal(view.gradients[layer], dense[layer] * before[layer])
            assert view.masks[layer].equal(before[layer])
            if number != 3:  # the third also changes the topology, after it was observed
                assert torch.equal(view.weights[layer], network.params.weights[layer])
                for seen, held in zip(view.moments[layer], moments(network), strict=True):
                    assert torch.equal(seen, held[layer])
    (prepared,) = score.prepared
    assert prepared.gradients is None  # `needs_gradient` asks for the dense one, this one does not
    assert prepared.moments is not None
    assert prepared.progress == 3 / 20


def test_a_score_that_observes_nothing_sees_topology_updates_only() -> None:
    network, data = build(outside("Steady")), Data()
    for _ in range(7):
        step(network, data)
    score = network.groups[0].rule.drop
    assert isinstance(score, outside_samples.Steady)
    assert [view.progress for view in score.seen] == [3 / 20, 6 / 20]
    assert not network.watched
    assert not network.observing


def test_a_schedule_of_somebody_else_decides_the_fraction() -> None:
    found = rule(100, schedule="outside_samples:Early", drop_fraction=0.3)
    assert [found.fraction(update) for update in (1, 49, 50, 100)] == [0.3, 0.3, 0.0, 0.0]


# --- what the registry says of dstrl's own --------------------------------------------------------


@pytest.mark.parametrize("name", SCORES)
def test_the_registry_and_the_class_of_a_score_agree(name: str) -> None:
    row, score = SCORES[name], load(SCORES, name)
    assert row.drops == (score.drop is not Score.drop)
    assert row.grows == (score.grow is not Score.grow)
    assert row.needs_td_error == score.needs_td_error
    keys: dict[str, Any] = {"drop": name} if row.drops else {"grow": name}
    if name == "none":
        keys |= {"schedule": "static"}
    assert not rule(**keys).observers
    assert bool(rule(**keys, accumulate="critic_update").observers) == row.needs_td_error


# --- keys and parameters --------------------------------------------------------------------------


def test_parameters_are_keys_of_either_network_or_of_both() -> None:
    config = resolve("rlx2", sets=["topology.params.power=2", "critic.topology.params.power=3"])
    assert config.actor.topology.params == {"power": 2}
    assert config.critic.topology.params == {"power": 3}
    assert from_dict(to_dict(config)) == config
    assert hash(from_dict(to_dict(config)).actor) == hash(config.actor)
    assert identity(config)["critic.topology.params.power"] == 3
    assert differences(resolve("rlx2"), config) == [
        "actor.topology.params.power: not set -> 2",
        "critic.topology.params.power: not set -> 3",
    ]


@pytest.mark.parametrize("key", ["topology.params", "actor.topology.params", "topology.params.a.b"])
def test_a_parameter_has_one_name(key: str) -> None:
    with pytest.raises(InputError, match=r"topology\.params\.NAME = VALUE"):
        resolve("rlx2", sets=[f"{key}=1"])


def write_score(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` the current one, with the README's score in it."""
    (folder / "saliency.py").write_text(outside_samples.SCORE)
    (folder / "saliency.yaml").write_text(outside_samples.METHOD)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "saliency", raising=False)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            ["critic.topology.params.power=wide"],
            r"critic\.topology\.params\.power = 'wide': must be a number",
        ),
        (
            ["critic.topology.params.pwer=1"],
            r"unknown key 'critic\.topology\.params\.pwer'; did you mean "
            r"'critic\.topology\.params\.power'\? Valid: critic\.topology\.params\.power$",
        ),
        (
            ["actor.topology.drop=magnitude", "actor.topology.params.power=1"],
            "'actor.topology.params.power': neither magnitude nor gradient has parameters",
        ),
        (["critic.topology.drop=saliency:Salency"], "critic.topology.drop = 'saliency:Salency'"),
        (["critic.topology.drop=sliency:S"], "module 'sliency' is not found"),
        (["critic.topology.grow=saliency:Saliency"], "Saliency has no method `grow`"),
        (
            ["actor.topology.drop=outside_samples:not_a_score"],
            r"must be a subclass of dstrl_cli\.topology\.rule\.Score",
        ),
        (
            ["actor.topology.grow=outside_samples:OfCritics"],
            r"needs the TD error of a critic; set critic\.topology\.grow instead",
        ),
        (
            ["actor.topology.schedule=outside_samples:Steady"],
            r"must be a subclass of dstrl_cli\.topology\.schedules\.Schedule",
        ),
        (["actor.initial_mask=outside_samples:SCORE"], "must be a function"),
        (["actor.initial_mask=outside_samples:absent"], "actor.initial_mask = 'outside_samples:ab"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(
    sets: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_score(tmp_path, monkeypatch)
    config = resolve(Path("saliency.yaml"), sets=sets)  # reading a configuration imports nothing
    with pytest.raises(InputError, match=message):
        check_extensions(config)


def test_what_has_no_effect_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_score(tmp_path, monkeypatch)
    for key in ("critic.topology.schedule=static", "critic.dense=true"):
        check_extensions(
            resolve(Path("saliency.yaml"), sets=["critic.topology.params.pwer=1", key])
        )


def test_two_scores_share_the_parameters() -> None:
    class First(Score):
        class Params(ScoreParams):
            a: int = 1
            both: int = 2

    class Second(Score):
        class Params(ScoreParams):
            b: int = 3
            both: int = 4

    config = run(0, topology={"params": {"a": 5, "both": 6}}).critic.topology
    assert First(config).params.model_dump() == {"a": 5, "both": 6}
    assert Second(config).params.model_dump() == {"b": 3, "both": 6}


# --- a user's own folder, from end to end ---------------------------------------------------------

KEYS = (
    "learning_starts=100",
    "topology.update_interval=20",
    "eval_every=100",
    "eval_episodes=2",
    "batch_size=16",
    "hidden_sizes=32,32",
)
TRAIN = ["train", "--dst=saliency.yaml", "--trust", "--env=2DNav-v1", "--steps=300", "--out=runs"]
TRAIN += [f"--set={key}" for key in KEYS]


@pytest.mark.parametrize("engine", ["sparse", "masked"])
def test_a_score_in_a_folder_of_ones_own_trains(
    engine: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_score(tmp_path, monkeypatch)
    dstrl(tmp_path, *TRAIN, "--engine", engine)
    folder = tmp_path / "runs/2DNav-v1/td3-saliency/s0.95/seed0"
    changes = pd.read_csv(folder / "topology.csv")
    assert set(changes.network) == {"actor", "critic1", "critic2"}
    assert changes.dropped.sum() == changes.grown.sum() > 0
    assert changes.groupby(["network", "layer"]).active.nunique().eq(1).all()
    assert "drop: saliency:Saliency" in (folder / "config.yaml").read_text()
    (tmp_path / "saliency.py").unlink()  # what is read of a run imports nothing of its score
    assert main(["table", str(tmp_path / "runs"), "--metric", "final"]) == 0
    assert "2DNav-v1" in capsys.readouterr().out
    assert "saliency" not in sys.modules


def test_a_wrong_parameter_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_score(tmp_path, monkeypatch)
    done = dstrl(tmp_path, *TRAIN, "--set", "critic.topology.params.pwer=1", code=2)
    assert "did you mean" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_the_test_that_the_readme_shows_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_score(tmp_path, monkeypatch)
    (tmp_path / "test_saliency.py").write_text(outside_samples.TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
