"""Runs that learn from a trained run: from its policy, its critics, or its first steps."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from resume_samples import copy_while_training, go_on, make_run, numbers
from resume_samples import train as train_run
from training_samples import run, train
from update_samples import take_update

from dstrl_cli.algos.bc import BC
from dstrl_cli.config.identity import run_path
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.nets.frozen import FrozenNetworks
from dstrl_cli.replay.batch import Batch
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.policy import dump, network_tensors, read
from dstrl_cli.sweep.packing import shared_keys
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training.warm_up import WarmUp

ENV = "InvertedPendulum-v5"


@pytest.fixture(scope="module")
def expert(tmp_path_factory) -> Path:
    """A dense run of TD3 that finished."""
    (folder,) = train([run("dense", env=ENV)], tmp_path_factory.mktemp("expert"))
    return _in_its_place(folder)


def _in_its_place(folder: Path) -> Path:
    place = folder.parent / run_path(read_config(folder))
    place.parent.mkdir(parents=True)
    return folder.rename(place)


def plain(method: str, algo: str = "td3", *sets: str, env: str = ENV) -> RunConfig:
    small = ("hidden_sizes=[8]", "batch_size=4", "learning_starts=10", "eval_episodes=1")
    flags = {"env.id": env, "steps": 40, "sparsity": 0.5, "engine": "masked"}
    return resolve(method, algo, sets=(*small, *sets), flags=flags)


def planned(config: RunConfig) -> RunConfig:
    return prepare(config, Path("run")).config


def policy_of(file: Path, observations: np.ndarray) -> np.ndarray:
    """The actions in [-1, 1] of a stored actor, computed by hand."""
    tensors, _ = read(file)
    hidden = observations
    for layer in range(3):
        hidden = hidden @ tensors[f"actor.weight.{layer}"] + tensors[f"actor.bias.{layer}"]
        hidden = np.maximum(hidden, 0) if layer < 2 else np.tanh(hidden)
    return hidden


# --- what they compute ----------------------------------------------------------------------------


def test_frozen_networks_give_each_member_those_of_its_own_file():
    one = network_tensors("actor", [np.array([[2.0], [0]])], [np.array([1.0])], [np.ones((2, 1))])
    two = network_tensors("actor", [np.array([[0.0], [3]])], [np.array([0.0])], [np.ones((2, 1))])
    nets = FrozenNetworks([("a", one), ("b", two), ("a", one)], ["actor"], 1, "cpu")
    x = torch.tensor([[[1.0, 10]], [[1, 10]], [[2, 10]]])  # [P, B, in]
    assert nets(x).flatten().tolist() == [3, 30, 5]


def test_cloning_takes_a_step_on_the_mean_square_distance_to_the_experts_actions(expert):
    config = planned(plain("dense", "bc", f"expert={expert}", "learning_rate=0.01"))
    bc = BC([config], 4, 1)
    observation = torch.linspace(-1, 1, 16).view(1, 4, 4)
    wanted = policy_of(expert / "policy.safetensors", observation[0].numpy())
    before = bc.act(observation)[0].numpy()
    loss = float(np.mean((before - wanted) ** 2))
    action, nothing = torch.zeros(1, 4, 1), torch.zeros(1, 4)
    pairs = torch.cat((observation, action), -1)
    steps = torch.zeros(1, 4, dtype=torch.long)
    batch = Batch.of(4, pairs, nothing, nothing, steps, [observation], [nothing])
    take_update(bc, batch)
    assert float(bc.sums["actor_loss"]) == pytest.approx(loss, rel=1e-5)
    for _ in range(400):
        take_update(bc, batch)
    after = bc.act(observation)[0].numpy()
    assert np.mean((after - wanted) ** 2) < 0.05 * loss


def test_targets_are_the_smaller_value_of_the_experts_critics(expert):
    from dstrl_cli.registry import algorithm_class

    config = planned(plain("dense", "td3", f"expert_q={expert}"))
    made = algorithm_class("td3", True)([config], 4, 1)
    pairs = torch.linspace(-1, 1, 10).view(1, 2, 5)
    tensors, _ = read(expert / "policy.safetensors")
    values = []
    for name in ("critic1", "critic2"):
        hidden = pairs[0].numpy()
        for layer in range(3):
            hidden = hidden @ tensors[f"{name}.weight.{layer}"] + tensors[f"{name}.bias.{layer}"]
            hidden = np.maximum(hidden, 0) if layer < 2 else hidden
        values.append(hidden[:, 0])
    rewards = torch.full((1, 2), 1e6)  # have no part in it
    path = [pairs[..., :4]]
    batch = Batch.of(4, pairs, rewards, rewards, torch.zeros(1, 2, dtype=torch.long), path, path)
    found = made.td_target(batch, torch.zeros(1, 2, 1))
    np.testing.assert_allclose(found[0].numpy(), np.minimum(*values), rtol=1e-5)


def test_a_learned_policy_acts_first_and_other_members_act_at_random(expert):
    quiet = f"prefill_from={expert}", "prefill_noise=0"
    taught, random = planned(plain("dense", "td3", *quiet)), planned(plain("dense"))
    observation = torch.linspace(-1, 1, 8).view(2, 4)
    action, clean = WarmUp([random, taught], 1, "cpu").act(observation, 7)
    alone, _ = WarmUp([random], 1, "cpu").act(observation[:1], 7)
    assert action[0] == alone[0]
    wanted = policy_of(expert / "policy.safetensors", observation[1:].numpy())
    assert float(action[1]) == float(clean[1]) == pytest.approx(float(wanted[0, 0]), rel=1e-5)
    noisy = WarmUp([planned(plain("dense", "td3", quiet[0]))], 1, "cpu").act(observation[1:], 7)
    assert 0 < abs(float(noisy[0]) - float(clean[1])) < 0.6


def test_members_with_and_without_expert_values_share_no_population(expert):
    one, other = planned(plain("dense")), planned(plain("dense", "td3", f"expert_q={expert}"))
    assert shared_keys(one) != shared_keys(other)
    first = planned(plain("dense", "td3", f"prefill_from={expert}"))
    assert shared_keys(one) == shared_keys(first)


# --- whole runs -----------------------------------------------------------------------------------


def test_a_clone_has_no_critics_in_its_files_and_evolves_its_actor(expert, tmp_path):
    sets = [f"expert={expert}", "learning_starts=10"]
    config = resolve(
        "rigl",
        "bc",
        sets=["hidden_sizes=[12,12]", "batch_size=8", "topology.update_interval=10", *sets],
        flags={"env.id": ENV, "steps": 60, "sparsity": 0.5, "engine": "masked"},
    )
    (folder,) = train([config], tmp_path)
    tensors, metadata = read(folder / "policy.safetensors")
    assert {name.partition(".")[0] for name in tensors} == {"actor"}
    assert metadata["algo"] == "bc"
    with (folder / "topology.csv").open(newline="") as file:
        changes = list(csv.DictReader(file))
    assert {row["network"] for row in changes} == {"actor"}
    assert {int(row["step"]) for row in changes} == {20, 30, 40, 50}
    assert run_path(read_config(folder)).parts[1] == "bc-rigl+expert-td3-dense"


@pytest.mark.parametrize(
    ("algo", "key", "method", "engine"),
    [
        ("bc", "expert", "rigl", "sparse"),
        ("td3", "expert_q", "rigl", "masked"),
        ("td3", "prefill_from", "dst", "sparse"),
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_bytes_of_one_that_was_not(
    expert, tmp_path, monkeypatch, algo, key, method, engine
):
    sets = (f"{key}={expert}", "checkpoint_every=30", "target_masking=online_mask")
    made = make_run(tmp_path / "run", method, algo=algo, engine=engine, sets=sets)
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=60)
    assert train_run(made)["status"] == "finished"
    expected, killed = numbers(made.path), copies()
    monkeypatch.undo()
    assert len(killed) >= 2
    for path in killed[:3]:
        assert go_on(made, path)["status"] == "finished"
        assert numbers(path) == expected


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algo", "key", "env", "message"),
    [
        ("bc", "expert", "Pendulum-v1", "is of td3 on InvertedPendulum, and this run is bc on Pen"),
        ("sac", "prefill_from", ENV, "is of td3 on InvertedPendulum, and this run is sac"),
        ("sac", "expert_q", ENV, "is of td3 on InvertedPendulum, and this run is sac"),
        ("td3", "expert", ENV, "td3 does not use it, since it learns from rewards"),
    ],
)
def test_a_run_of_another_kind_is_refused(expert, algo, key, env, message):
    sets = [f"{key}={expert}"] + ([f"expert={expert}"] if key != "expert" and algo == "bc" else [])
    with pytest.raises(InputError, match=rf"{key} = '.*': {message}"):
        planned(plain("dense", algo, *sets, env=env))


def test_cloning_without_an_expert_is_refused():
    with pytest.raises(InputError, match="expert is missing: bc learns from a trained run; give"):
        planned(plain("dense", "bc"))


def test_importance_needs_critics():
    with pytest.raises(InputError, match=r"our-rigl.*importance.*bc has no critics"):
        plain("our-rigl", "bc")


@pytest.mark.parametrize(
    ("method", "sets", "message"),
    [
        ("rigl", ["critic.topology.update_interval=1"], "the critics would never learn"),
        ("tiny", ["critic.hidden_sizes=[4]"], "the widths follow from hidden_sizes"),
        (
            "sst",
            ["critic.topology.schedule=constant", "train_freq=[1,episode]"],
            "the number of updates depends on the episodes",
        ),
        ("rigl", ["critic.topology.fan_in=at_most:1"], "has up to .* connections"),
        (
            "rigl",
            [
                "critic.initial_sparsity=0",
                "critic.topology.budget=cubic",
                "critic.topology.stop_before_end=20",
            ],
            "the critic would not reach its final sparsity",
        ),
    ],
)
def test_keys_of_critics_refuse_nothing_where_there_are_none(expert, method, sets, message):
    with pytest.raises(InputError, match=message):
        planned(plain(method, "td3", *sets))
    planned(plain(method, "bc", f"expert={expert}", *sets))


def test_other_observations_are_refused(expert, tmp_path):
    tensors, metadata = read(expert / "policy.safetensors")
    tensors["actor.weight.0"] = np.ones((5, 12), np.float32)
    tensors["actor.mask.0"] = np.ones((5, 12), np.uint8)
    file = tmp_path / "policy.safetensors"
    file.write_bytes(dump(tensors, metadata))
    with pytest.raises(InputError, match=r"layers of its actor are 5x12 \+ 12x12 \+ 12x1, and"):
        planned(plain("dense", "td3", f"prefill_from={file}"))


@pytest.mark.parametrize(("key", "name"), [("prefill_from", "actor"), ("expert_q", "critic2")])
@pytest.mark.parametrize("value", [np.nan, 1e30])
def test_weights_that_overflow_are_refused(expert, tmp_path, key, name, value):
    tensors, metadata = read(expert / "policy.safetensors")
    for layer in range(3):
        tensors[f"{name}.weight.{layer}"] = np.full_like(tensors[f"{name}.weight.{layer}"], value)
    file = tmp_path / "policy.safetensors"
    file.write_bytes(dump(tensors, metadata))
    with pytest.raises(InputError, match=f"{key} = .*weights of its {name} are not finite, or so"):
        planned(plain("dense", "td3", f"{key}={file}"))


def test_a_run_that_has_not_finished_is_refused_but_its_file_is_not(expert, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(expert, copied)
    text = (copied / "summary.json").read_text()
    (copied / "summary.json").write_text(text.replace('"finished"', '"interrupted"'))
    with pytest.raises(InputError, match=r"this run has not finished \(it is interrupted\); let"):
        planned(plain("dense", "td3", f"prefill_from={copied}"))
    file = copied / "policy.safetensors"
    assert planned(plain("dense", "td3", f"prefill_from={file}")).prefill_source
