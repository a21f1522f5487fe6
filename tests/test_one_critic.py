"""An algorithm with one critic, from outside the package, in everything that counts critics."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from graph_stand_in import Recordings
from network_samples import as_module, soft_update
from population_samples import ACT, OBS, batches, member
from safetensors import safe_open
from torch import nn
from training_samples import train
from update_samples import take_update

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parts import EnvConfig
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.sweep.memory import population_memory

ALGO = "ddpg_sample:DDPG"


def build(runs: list[RunConfig], engine: str = "masked") -> Algorithm:
    built: Algorithm = load(ALGORITHMS, ALGO)(runs, OBS, ACT, "cpu", engine)
    return built


def trainable(method: str, seed: int, engine: str) -> RunConfig:
    keys = {"env": EnvConfig(id="Pendulum-v1"), "engine": engine, "steps": 60, "batch_size": 8}
    keys |= {"learning_starts": 20, "eval_every": 30, "eval_episodes": 1}
    return member(ALGO, method, seed).model_copy(update=keys)


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_a_dense_ddpg_equals_a_plain_one(engine: str) -> None:
    run = member(ALGO, "dense", 3)
    algorithm = build([run], engine)
    actor, critic = as_module(algorithm.actor), as_module(algorithm.critic)
    actor_target, critic_target = copy.deepcopy(actor), copy.deepcopy(critic)
    actor_adam = torch.optim.Adam(actor.parameters(), run.learning_rate)
    critic_adam = torch.optim.Adam(critic.parameters(), run.learning_rate)
    for batch in batches([run], 20):
        s, a, s2 = batch.observation[0], batch.action[0], batch.next_observation[0]
        with torch.no_grad():
            q2 = critic_target(torch.cat([s2, actor_target(s2).tanh()], -1)).squeeze(-1)
            y = batch.reward[0] + batch.discount[0] * q2
        critic_adam.zero_grad()
        nn.functional.mse_loss(critic(torch.cat([s, a], -1)).squeeze(-1), y).backward()
        critic_adam.step()
        actor_adam.zero_grad()
        (-critic(torch.cat([s, actor(s).tanh()], -1)).mean()).backward()
        actor_adam.step()
        soft_update(actor_target, actor, run.tau)
        soft_update(critic_target, critic, run.tau)
        with torch.no_grad():
            take_update(algorithm, batch)
    for network, plain in ((algorithm.actor, actor), (algorithm.critic, critic)):
        for found, expected in zip(
            as_module(network).parameters(), plain.parameters(), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-5)
    metrics = algorithm.take_metrics()
    assert metrics.keys() == {"critic_loss", "q_mean", "actor_loss"}


@pytest.mark.parametrize("method", ["dst", "our-dst", "rlx2"])
def test_both_engines_train_one_sparse_critic_alike(method: str) -> None:
    run = member(ALGO, method, 1, intervals=(50, 50))  # the masks stay the same
    masked, sparse = build([run]), build([run], "sparse")
    with torch.no_grad():
        for batch in batches([run], 12):
            take_update(masked, batch)
            take_update(sparse, batch)
    for ours, theirs in ((masked.actor, sparse.actor), (masked.critic, sparse.critic)):
        assert ours.active().shape == (1, 1, 3)
        for a, b in zip(ours.layers(0), theirs.layers(0), strict=True):
            for left, right in zip(a, b, strict=True):
                torch.testing.assert_close(left, right.to(left.dtype), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_the_files_of_a_run_name_and_count_one_critic(engine: str, tmp_path: Path) -> None:
    run = trainable("dst", 0, engine)
    (folder,) = train([run], tmp_path)
    topology = pd.read_csv(folder / "topology.csv")
    assert set(topology["network"]) == {"actor", "critic1"}
    last = topology[topology["network"] == "critic1"].groupby("layer")["active"].last()
    progress = pd.read_csv(folder / "progress.csv").iloc[-1]
    assert progress["critic_active"] == last.sum()
    with safe_open(folder / "policy.safetensors", "np") as file:
        roles = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert roles == {"actor", "critic1"}
    summary = json.loads((folder / "summary.json").read_text())
    actor, critic = (3 * 12 + 12 * 10 + 10 * 1), (4 * 12 + 12 * 10 + 10 * 1)
    assert summary["status"] == "finished"
    assert summary["parameters"]["sok_dense"] == actor + critic
    assert summary["parameters"]["rlx_dense"] == 2 * (actor + critic)
    a, c = 2 * progress["actor_active"], 2 * progress["critic_active"]
    per_sample = (a + 4 * c) + (3 * a + c)
    assert summary["flops"]["train_total"] == pytest.approx(8 * 40 * per_sample)


def test_a_population_of_such_members_is_captured_as_it_is_trained(tmp_path: Path) -> None:
    methods = ("dense", "sst", "dst", "rlx2")
    configs = [trainable(method, seed, "masked") for seed, method in enumerate(methods)]
    recordings = Recordings()
    plain = train(configs, tmp_path / "plain")
    replayed = train(configs, tmp_path / "replayed", capturing=recordings)
    for one, other in zip(plain, replayed, strict=True):
        for name in ("eval.csv", "topology.csv", "policy.safetensors"):
            assert (one / name).read_bytes() == (other / name).read_bytes()
    assert sum(recording.replays > 0 for recording in recordings.made) > 3


def test_its_memory_is_planned_for_one_critic() -> None:
    one, two = (
        population_memory([trainable("dst", 0, "masked").model_copy(update={"algo": algo})], 3, 1)
        for algo in (ALGO, "td3")
    )
    actor = (3 * 12 + 12) + (12 * 10 + 10) + (10 * 1 + 1)
    critic = (4 * 12 + 12) + (12 * 10 + 10) + (10 * 1 + 1)
    assert one.networks * (actor + 2 * critic) == two.networks * (actor + critic)
    assert one.streams < two.streams  # it draws no noise for its targets
