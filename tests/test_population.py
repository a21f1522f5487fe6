"""Members of a population: independent of each other, and the same alone as among others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from network_samples import take_events
from torch import Tensor

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.base import Batch, Replay

OBS, ACT, ROWS = 5, 2, 16
UPDATES = 12

SET = {"drop": "sign", "grow": "random", "schedule": "constant", "drop_fraction": 0.3}
RIGL = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine", "drop_fraction": 0.5}
XU = {"drop": "importance", "grow": "importance", "schedule": "constant", "drop_fraction": 0.2}

METHODS: dict[str, dict[str, Any]] = {
    "dense": {"actor.dense": True, "critic.dense": True},
    "sst": {},
    "dst": {"actor": SET, "critic": SET, "target_masking": "magnitude_trim"},
    "our-dst": {"actor": SET, "critic": XU, "target_masking": "magnitude_trim"},
    "rlx2": {
        "actor": RIGL,
        "critic": RIGL,
        "target_masking": "online_mask",
        "rewire": "instead_of_step",
        "initial_mask": "magnitude",
        "nstep": 3,
    },
    "our-rlx2": {
        "actor": RIGL,
        "critic": XU | {"accumulate": "critic_update"},
        "target_masking": "online_mask",
        "rewire": "instead_of_step",
        "nstep": 2,
    },
    "dst-official": {
        "actor": SET | {"grow_init": "adam_step", "sign_split": "official", "update_offset": 1},
        "critic": SET | {"grow_init": "adam_step", "sign_split": "official", "update_offset": 2},
        "target_masking": "magnitude_trim",
        "initial_mask": "bernoulli",
        "gradients": "dense",
        "moments": "keep",
    },
}
SPARSITIES = dict(zip(METHODS, (0.0, 0.8, 0.5, 0.6, 0.7, 0.4, 0.5), strict=True))


def member(algo: str, method: str, seed: int, intervals: tuple[int, int] = (2, 4)) -> RunConfig:
    """A small run; `intervals` are those of the actor's and the critics' topology updates."""
    keys = dict(METHODS[method])
    initial_mask = keys.pop("initial_mask", "random")
    networks = {}
    for role, interval in zip(("actor", "critic"), intervals, strict=True):
        networks[role] = {
            "sparsity": SPARSITIES[method],
            "allocation": "uniform",
            "initial_mask": initial_mask,
            "dense": keys.pop(f"{role}.dense", False),
            "topology": keys.pop(role, {}) | {"update_interval": interval},
        }
    base = {
        "algo": algo,
        "method": method,
        "env": "Any-v0",
        "seed": seed,
        "batch_size": ROWS,
        "hidden_sizes": [12, 10],
        "learning_rate": 3e-3,
        "policy_delay": 2 if algo == "td3" else 1,
    }
    return from_dict(base | networks | keys)


def population(algo: str) -> list[RunConfig]:
    return [member(algo, method, seed) for seed, method in enumerate(METHODS)]


def build(runs: Sequence[RunConfig]) -> Algorithm:
    built: Algorithm = load(ALGORITHMS, runs[0].algo)(runs, OBS, ACT)
    return built


def replay_of(runs: Sequence[RunConfig], steps: int = 120) -> Replay:
    """Every member's own transitions, by its seed."""
    replay = Replay(len(runs), 100, OBS, ACT, 0.99)
    sources = [torch.Generator().manual_seed(run.seed) for run in runs]
    for _ in range(steps):
        drawn = torch.stack([torch.randn(2 * OBS + ACT + 2, generator=g) for g in sources])
        observation, following, action, rest = drawn.split((OBS, OBS, ACT, 2), dim=-1)
        ended = rest[:, 1] > 1.2
        replay.add(
            observation, action.tanh(), rest[:, 0], following, ended & (rest[:, 0] > 0), ended
        )
    return replay


def batches(runs: Sequence[RunConfig], count: int = UPDATES) -> list[Batch]:
    """n-step from the fifth update on, by each member's own numbers."""
    replay = replay_of(runs)
    sources = [torch.Generator().manual_seed(100 + run.seed) for run in runs]
    found = []
    for number in range(count):
        numbers = torch.stack([torch.rand(ROWS, generator=g, dtype=torch.float64) for g in sources])
        n = [run.nstep if number >= 4 else 1 for run in runs]
        found.append(replay.sample(numbers, torch.tensor(n).unsqueeze(1), max(n)))
    return found


def state(algorithm: Algorithm, index: int) -> list[Tensor]:
    """Weights, biases and masks of one member, as copies."""
    networks = (algorithm.actor, algorithm.critic)
    return [
        part.clone() for network in networks for layer in network.layers(index) for part in layer
    ]


def targets(algorithm: Algorithm, index: int) -> Tensor:
    """What one member's target critics say of fixed inputs."""
    x = torch.linspace(-1, 1, 4 * (OBS + ACT)).view(1, 4, -1)
    return algorithm.critic.target(x.expand(len(algorithm.configs), -1, -1))[index].clone()


def train(algorithm: Algorithm, sequence: Sequence[Batch]) -> None:
    with torch.no_grad():
        for batch in sequence:
            algorithm.update(batch)


ALGOS = pytest.mark.parametrize("algo", ["td3", "sac"])


@ALGOS
def test_members_start_differently(algo: str) -> None:
    algorithm = build([member(algo, "sst", seed) for seed in range(3)])
    for network in (algorithm.actor, algorithm.critic):
        for layer in range(3):
            parts = [network.layers(index)[layer] for index in range(3)]
            for a, b in ((0, 1), (0, 2), (1, 2)):
                assert not torch.equal(parts[a][0], parts[b][0])
                assert not torch.equal(parts[a][2], parts[b][2])
    observation = torch.ones(3, OBS)
    taken, free = algorithm.sample_action(observation, algorithm.exploration.at(0))
    assert not torch.equal(taken[0] - free[0], taken[1] - free[1])


@ALGOS
def test_changing_one_members_data_changes_nobody_else(algo: str) -> None:
    runs = population(algo)
    changed = list(METHODS).index("rlx2")
    states = []
    for scale in (1.0, 7.0):
        algorithm = build(runs)
        sequence = []
        for batch in batches(runs):
            factor = torch.ones(len(runs), 1)
            factor[changed] = scale
            observation = batch.observation * factor.unsqueeze(-1)
            reward = batch.reward * factor
            sequence.append(dataclasses.replace(batch, observation=observation, reward=reward))
        train(algorithm, sequence)
        states.append([state(algorithm, index) for index in range(len(runs))])
        assert algorithm.alive.all()
    for index, (first, second) in enumerate(zip(*states, strict=True)):
        same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
        assert all(same) == (index != changed)


@ALGOS
@pytest.mark.parametrize("method", METHODS)
def test_a_member_is_the_same_alone_as_among_others(algo: str, method: str) -> None:
    runs = population(algo)
    index = list(METHODS).index(method)
    among, alone = build(runs), build([runs[index]])
    for ours, theirs in zip(state(among, index), state(alone, 0), strict=True):
        assert torch.equal(ours, theirs)
    for batch, own in zip(batches(runs), batches([runs[index]]), strict=True):
        assert torch.equal(batch.observation[index], own.observation[0])
        assert torch.equal(batch.reward[index], own.reward[0])
        train(among, [batch])
        train(alone, [own])
        for ours, theirs in zip(state(among, index), state(alone, 0), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(targets(among, index), targets(alone, 0), rtol=1e-3, atol=1e-5)
    observation = torch.ones(len(runs), OBS)
    together = among.sample_action(observation, among.exploration.at(3))
    single = alone.sample_action(observation[:1], alone.exploration.at(3))
    for ours, theirs in zip(together, single, strict=True):
        torch.testing.assert_close(ours[index], theirs[0], rtol=1e-3, atol=1e-4)


@ALGOS
def test_active_counts_are_constant_for_every_method(algo: str) -> None:
    runs = population(algo)
    algorithm = build(runs)
    networks = (algorithm.actor, algorithm.critic)
    before = [network.active() for network in networks]
    masks = [[state(algorithm, index)[2::3] for index in range(len(runs))]]
    train(algorithm, batches(runs, 24))
    masks.append([state(algorithm, index)[2::3] for index in range(len(runs))])
    for network, active in zip(networks, before, strict=True):
        assert torch.equal(network.active(), active)
        adapting = {event.member for event in take_events(network)}
        assert adapting == {2, 3, 4, 5, 6}
    for index, (first, last) in enumerate(zip(*masks, strict=True)):
        moved = any(not torch.equal(a, b) for a, b in zip(first, last, strict=True))
        assert moved == (index >= 2)
        inactive = [w[~m] for w, m in zip(state(algorithm, index)[::3], last, strict=True)]
        assert all((weight == 0).all() for weight in inactive)


@ALGOS
def test_the_order_of_members_does_not_matter(algo: str) -> None:
    runs = population(algo)[::-1]
    algorithm, reverse = build(runs), build(runs[::-1])
    train(algorithm, batches(runs, 6))
    train(reverse, batches(runs[::-1], 6))
    for index in range(len(runs)):
        mirrored = state(reverse, len(runs) - 1 - index)
        for ours, theirs in zip(state(algorithm, index), mirrored, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_collecting_without_noise_is_per_member() -> None:
    runs = [member("sac", "sst", seed) for seed in (0, 1)]
    mean = runs[1].model_copy(update={"collect": "mean"})
    algorithm = build([runs[0], mean])
    taken, free = algorithm.sample_action(torch.ones(2, OBS), algorithm.exploration.at(0))
    assert not torch.equal(taken[0], free[0])
    torch.testing.assert_close(taken[1], free[1])
