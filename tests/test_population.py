"""Members of a population: independent of each other, and the same alone as among others."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from network_samples import take_events
from population_samples import (
    METHODS,
    OBS,
    batches,
    build,
    member,
    population,
    state,
    targets,
    train,
)

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
