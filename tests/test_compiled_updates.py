"""The compiled updates against the algorithms: the same run, taken in both ways."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from compiled_samples import ACT, OBS, assert_same, config, learner, store

from dstrl_cli.algos.td3 import TD3
from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.paired import PairedReplay
from dstrl_cli.topology.importance import strengths
from dstrl_cli.training.learner import Learner

UPDATES = 100

KEYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dense": {"actor": {"dense": True}, "critic": {"dense": True}},
    "three steps": {"nstep": 3},
    "three steps later": {"nstep": 3, "nstep_delay": 40},
    "weight decay": {"weight_decay": 1e-2},
    "no delay": {"policy_delay": 1, "target_update_interval": 3},
    "delays that rarely meet": {"policy_delay": 3, "target_update_interval": 2},
    "hard targets": {"tau": 1.0, "target_update_interval": 10},
    "one row": {"batch_size": 1},
    "a whole tile": {"batch_size": 128},
    "one hidden layer": {"hidden_sizes": [33]},
    "three hidden layers": {"hidden_sizes": [17, 40, 9]},
    "correction by connection": {"grown_bias_correction": "connection"},
}
OWN_KEYS: dict[str, dict[str, dict[str, Any]]] = {
    "td3": {"no noise": {"target_noise": 0.0}},
    "sac": {
        "fixed temperature": {"temperature": "fixed", "alpha": 0.2},
        "clamped std": {"log_std_squash": "clamp", "log_std_bounds": [-1, 0.1], "nstep": 2},
        "another entropy": {"target_entropy": -5.0},
    },
}
CASES = [
    pytest.param(algo, keys, id=f"{algo} {name}")
    for algo, own in OWN_KEYS.items()
    for name, keys in (KEYS | own).items()
]


@torch.no_grad()
@pytest.mark.parametrize(("algo", "keys"), CASES)
def test_a_hundred_updates_are_those_of_the_algorithm(algo: str, keys: dict[str, Any]) -> None:
    run = config(algo, **keys)
    compiled, plain = learner(run, True), learner(run, False)
    for step in range(UPDATES):
        for each in (compiled, plain):
            store(each, 1000 + step)
            each.update()
    assert_same(compiled, plain)


EVERY = {"update_interval": 7}
SET = {"drop": "magnitude", "grow": "random", "schedule": "constant", "drop_fraction": 0.2} | EVERY
RIGL = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine"} | EVERY
XU = {"drop": "importance", "grow": "importance", "schedule": "constant"} | EVERY
PRUNED = {"grow": "none", "budget": "cubic", "budget_end": 0.5} | EVERY
RULES: dict[str, dict[str, Any]] = {
    "masked targets": {"target_masking": "online_mask", "rule": RIGL},
    "masked targets, replaced steps": {
        "target_masking": "online_mask",
        "rule": RIGL,
        "rewire": "instead_of_step",
    },
    "trimmed targets": {"target_masking": "magnitude_trim", "rule": SET},
    "trimmed targets, pruned": {
        "target_masking": "magnitude_trim",
        "rule": PRUNED,
        "initial": {"initial_sparsity": 0.0},
    },
    "masked targets, pruned": {
        "target_masking": "online_mask",
        "rule": PRUNED,
        "initial": {"initial_sparsity": 0.0},
    },
    "importance of every update": {
        "target_masking": "online_mask",
        "rule": RIGL,
        "of_critic": XU | {"accumulate": "critic_update"},
    },
    "importance of topology updates": {
        "target_masking": "magnitude_trim",
        "rule": SET,
        "of_critic": XU,
    },
    "correction by connection": {
        "target_masking": "online_mask",
        "rule": RIGL,
        "grown_bias_correction": "connection",
    },
}


def with_rule(
    algo: str, rule: Any = None, initial: Any = None, of_critic: Any = None, **keys: Any
) -> RunConfig:
    network = {"sparsity": 0.8, "topology": rule, **(initial or {})}
    critic = network | {"topology": of_critic or rule}
    return config(algo, actor=network, critic=critic, **keys)


@torch.no_grad()
@pytest.mark.parametrize("algo", ["td3", "sac"])
@pytest.mark.parametrize("name", RULES)
def test_topology_updates_may_come_between_compiled_ones(algo: str, name: str) -> None:
    run = with_rule(algo, **RULES[name])
    compiled, plain = learner(run, True), learner(run, False)
    for step in range(60):
        for each in (compiled, plain):
            store(each, 1000 + step)
            each.update()
        assert_same(compiled, plain, 2e-3)
    assert compiled.algorithm.critic.take_changes()


@torch.no_grad()
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_every_mixture_of_both_ways_is_the_same_run(algo: str) -> None:
    run = with_rule(algo, **RULES["trimmed targets"])
    mixed, plain = learner(run, True), learner(run, False)
    compiled = mixed.compiled
    for step in range(60):
        mixed.compiled = compiled if step % 5 < 3 else None
        for each in (mixed, plain):
            store(each, 1000 + step)
            each.update()
    assert_same(mixed, plain, 2e-3)


@torch.no_grad()
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_a_compiled_update_whose_loss_is_not_finite_freezes_the_networks(algo: str) -> None:
    trained = learner(config(algo), True)
    for _ in range(2):
        trained.update()
    before = [(each.steps, each.params.flat.copy()) for each in networks(trained)]
    trained.replay.reward.fill_(math.nan)
    for _ in range(3):
        trained.update()
    assert trained.algorithm.alive.tolist() == [False]
    for (steps, was), network in zip(before, networks(trained), strict=True):
        assert np.array_equal(was, network.params.flat)
        assert network.steps == steps


def networks(trained: Learner) -> list[SparseNetwork]:
    found = [trained.algorithm.actor, trained.algorithm.critic]
    return [each for each in found if isinstance(each, SparseNetwork)]


@torch.no_grad()
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_a_falling_learning_rate_reaches_compiled_updates(algo: str) -> None:
    run = config(algo, learning_rate={"linear": 3e-3})
    compiled, plain = learner(run, True), learner(run, False)
    for step in range(40):
        for each in (compiled, plain):
            each.follow_schedule(5 * step)
            each.update()
    assert_same(compiled, plain)


@torch.no_grad()
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_states_are_taken_up_in_the_middle_of_a_run(algo: str) -> None:
    run = with_rule(algo, **RULES["trimmed targets"])
    through, stopped = learner(run, True), learner(run, True)
    for each in (through, stopped):
        for _ in range(20):
            each.update()
    resumed = learner(run, True)
    resumed.update()  # whose arrays are replaced afterwards
    resumed.algorithm.set_state([stopped.algorithm.state(0)])
    resumed.replay.set_state([stopped.replay.state(0)])
    for each in (through, resumed):
        for _ in range(20):
            each.update()
    assert_same(through, resumed, 0.0)


def test_an_algorithm_that_is_derived_from_another_takes_its_own_updates() -> None:
    class Own(TD3):
        """Has an update of its own, perhaps."""

    run = config("td3")
    algorithm = Own([run], OBS, ACT, "cpu", "sparse")
    replay = CompiledReplay(1, 200, OBS, ACT, run.gamma)
    assert Learner(algorithm, replay, lambda f: f).compiled is None


def test_the_masked_engine_and_other_buffers_take_no_compiled_updates() -> None:
    run = config("td3")
    masked, sparse = (TD3([run], OBS, ACT, "cpu", engine) for engine in ("masked", "sparse"))
    buffers = [kind(1, 200, OBS, ACT, run.gamma) for kind in (CompiledReplay, PairedReplay)]
    assert Learner(masked, buffers[0], lambda f: f).compiled is None
    assert Learner(sparse, buffers[1], lambda f: f).compiled is None


@torch.no_grad()
@pytest.mark.parametrize("algo", ["td3", "sac"])
@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"collect": "mean"},
        {"actor": {"dense": True}, "hidden_sizes": [33]},
        {"log_std_squash": "clamp", "log_std_bounds": [-1, 0.1]},
    ],
    ids=["plain", "mean", "dense", "clamped"],
)
def test_compiled_code_acts_as_the_algorithm_does(algo: str, keys: dict[str, Any]) -> None:
    trained = learner(config(algo, **keys), True)
    assert trained.compiled is not None
    algorithm = trained.algorithm
    for step in range(8):
        trained.update()
        observation = 3 * torch.randn(1, OBS, generator=torch.Generator().manual_seed(step))
        found = trained.compiled.act(observation, step)
        wanted = algorithm.sample_action(observation, algorithm.exploration.at(step))
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_compiled_action_that_is_no_number_is_zero() -> None:
    trained = learner(config("td3"), True)
    assert trained.compiled is not None
    action, policy_action = trained.compiled.act(torch.full((1, OBS), math.nan), 0)
    assert action.tolist() == [[0.0] * ACT]
    assert policy_action.isnan().all()


def test_compiled_code_stores_what_the_buffer_itself_stores() -> None:
    run = config("td3")
    rings = []
    for compiled in (True, False):
        algorithm = TD3([run], OBS, ACT, "cpu", "sparse")
        replay = CompiledReplay(1, 20, OBS, ACT, run.gamma, policy_actions=True)
        replay.ends.zero_()  # slots that are never used, too
        to = Learner(algorithm, replay, lambda f: f)
        if not compiled:
            to.compiled = None
        for step in range(50):
            store(to, step)
        slots = replay.free, replay.live
        rings.append((*replay.rings, *slots, replay.policy_actions, *replay.position_and_size))
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(*rings, strict=True))


@torch.no_grad()
def test_strengths_of_neurons_are_those_of_the_dense_weights() -> None:
    network = networks(learner(config("td3", 0.9), True))[1]
    found = network.strengths([0])
    assert found is not None
    wanted = strengths(network.view_layers([0])[0])
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


@torch.no_grad()
def test_updates_that_only_a_sum_of_strengths_observes_are_compiled() -> None:
    trained = learner(with_rule("td3", **RULES["importance of every update"]), True)
    compiled = trained.compiled
    assert compiled is not None
    taken = []
    for _ in range(14):
        due = trained.algorithm.begin_update()
        taken.append(compiled.takes(due))
        compiled(due, 1)
    assert taken == ([True] * 6 + [False]) * 2  # every seventh changes the topology
