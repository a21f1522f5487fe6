"""Updates of mixed populations that are replayed equal those that are executed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from budget_samples import moving
from graph_stand_in import Recordings, eager
from network_samples import take_events
from population_samples import METHODS, member, state

from dstrl_cli import envs
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs.base import Step
from dstrl_cli.registry import ALGORITHMS, load
from dstrl_cli.replay.base import Replay
from dstrl_cli.replay.once import OnceReplay
from dstrl_cli.replay.paired import PairedReplay
from dstrl_cli.training.learner import Learner

SPEC = envs.spec("Pendulum-v1")
DELAYS = {"rlx2": 35, "our-rlx2": 9}  # T_0: the members pass it one after the other
UPDATES = 80


def runs(algo: str, methods: Sequence[str]) -> list[RunConfig]:
    found = []
    for seed, method in enumerate(methods):
        run = member(algo, method, seed, (6, 8))
        changes = {"nstep_delay": DELAYS.get(method, 0), "steps": 110, "learning_starts": 10}
        found.append(run.model_copy(update=changes))
    return found


def make(
    configs: Sequence[RunConfig],
    captured: Any,
    kind: Any = PairedReplay,
    replay_on_host: bool = False,
) -> tuple[Algorithm, Learner]:
    algorithm: Algorithm = load(ALGORITHMS, configs[0].algo)(
        configs, SPEC.observation_size, SPEC.action_size
    )
    sizes = (SPEC.observation_size, SPEC.action_size)
    capacity = max(config.steps for config in configs)
    replay: Replay = kind(len(configs), capacity, *sizes, configs[0].gamma, policy_actions=True)
    return algorithm, Learner(algorithm, replay, captured, replay_on_host)


def store(learner: Learner, step: int, count: int = 1) -> None:
    """Store what depends on step and seed alone."""
    seeds = learner.algorithm.seeds
    for number in range(step, step + count):
        sources = [torch.Generator().manual_seed(1000 * seed + number) for seed in seeds]
        drawn = torch.stack([torch.randn(2 * 3 + 1 + 2, generator=g) for g in sources])
        observation, following, action, rest = drawn.split((3, 3, 1, 2), dim=-1)
        ended = rest[:, 1] > 1
        fell = ended & (rest[:, 0] > 0)
        result = Step(following, rest[:, 0], fell, ended & ~fell, following)
        learner.store(observation, action.tanh(), result, action.tanh())


def take_updates(*learners: Learner) -> None:
    """Store the same transitions in each and take `UPDATES` updates."""
    with torch.no_grad():
        for each in learners:
            store(each, 0, 20)
            for number in range(UPDATES):
                store(each, 20 + number)
                each.update()


def assert_equal_members(one: Algorithm, other: Algorithm) -> None:
    for index in range(len(one.configs)):
        for a, b in zip(state(one, index), state(other, index), strict=True):
            assert torch.equal(a, b)


MIXED = [name for name in METHODS if name != "our-rlx2"]  # its critic rule watches every update


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_replayed_updates_are_the_eager_ones_through_topology_updates(algo: str) -> None:
    recordings = Recordings()
    configs = runs(algo, MIXED)
    (plain, one), (replayed, other) = make(configs, eager), make(configs, recordings)
    for each in (one, other):
        store(each, 0, 20)
    changes, kinds = 0, set()
    with torch.no_grad():
        for number in range(UPDATES):
            store(one, 20 + number)
            one.update()
            store(other, 20 + number)
            other.update()
            now = {
                (due.actor, max_nstep)
                for due, max_nstep in other.update_functions
                if not due.topology
            }
            assert len({max_nstep for _, max_nstep in now}) <= 1  # older graphs are dropped
            kinds |= now
            for ours, theirs in zip(
                (plain.actor, plain.critic), (replayed.actor, replayed.critic), strict=True
            ):
                events = take_events(ours)
                assert events == take_events(theirs)
                changes += len(events)
            for index in range(len(configs)):
                for a, b in zip(state(plain, index), state(replayed, index), strict=True):
                    assert torch.equal(a, b)
    for a, b in zip((plain.actor, plain.critic), (replayed.actor, replayed.critic), strict=True):
        assert torch.equal(a.target_params.flat, b.target_params.flat)  # type: ignore[attr-defined]
        assert torch.equal(a.adam.second, b.adam.second)  # type: ignore[attr-defined]
        assert a.updates == b.updates
    assert plain.take_metrics() == replayed.take_metrics()
    assert changes > len(configs)
    assert min(recording.replays for recording in recordings.made) > 0
    # n is 1 until rlx2 passes its T_0; SAC's actor takes part in every update
    assert kinds == {
        (actor, n) for actor in ({True, False} if algo == "td3" else {True}) for n in (1, 3)
    }


def test_a_rule_that_watches_every_update_is_never_replayed() -> None:
    recordings = Recordings()
    algorithm, learner = make(runs("td3", ["sst", "our-rlx2"]), recordings)
    store(learner, 0, 30)
    with torch.no_grad():
        for _ in range(12):
            learner.update()
    assert all(due.topology for due, _ in learner.update_functions)
    assert len(recordings.made) == 1  # storing, which no rule looks at
    assert algorithm.updates == 12


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_replaying_changes_one_member_and_no_other(algo: str) -> None:
    """A member whose rewards turn to NaN is frozen by the replayed update itself."""
    configs = runs(algo, ["sst", "dst", "rlx2"])
    states = []
    for broken in (False, True):
        algorithm, learner = make(configs, Recordings())
        store(learner, 0, 20)
        with torch.no_grad():
            for number in range(UPDATES):
                store(learner, 20 + number)
                if broken and number == 17:
                    before = state(algorithm, 1)
                    learner.replay.reward[1] = torch.nan
                learner.update()
        assert algorithm.alive.tolist() == [True, not broken, True]
        states.append([state(algorithm, index) for index in range(3)])
    for index in (0, 2):
        for a, b in zip(states[0][index], states[1][index], strict=True):
            assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(before, states[1][1], strict=True))


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_a_buffer_on_the_host_gives_the_same_updates(algo: str) -> None:
    configs = runs(algo, MIXED)
    plain, here = make(configs, eager)
    recordings = Recordings()
    fed, away = make(configs, recordings, replay_on_host=True)
    take_updates(here, away)
    assert_equal_members(plain, fed)
    assert min(recording.replays for recording in recordings.made) > 0
    assert torch.equal(here.replay.not_done[:, :50], away.replay.not_done[:, :50])


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_an_accelerators_buffer_is_captured_as_well(algo: str) -> None:
    once = functools.partial(OnceReplay, time_limit=1)
    (plain, one), (replayed, other) = (
        make(runs(algo, MIXED), eager, once),
        make(runs(algo, MIXED), Recordings(), once),
    )
    take_updates(one, other)
    assert_equal_members(plain, replayed)
    for name in ("slot", "slots", "size"):  # all but what no row holds yet
        ours, theirs = (getattr(each.replay, name)[..., : 20 + UPDATES, :] for each in (one, other))
        assert torch.equal(ours, theirs)
    assert (other.replay.slot > 1).all()  # type: ignore[attr-defined]


def test_what_is_captured_may_be_compiled_first() -> None:
    """Dynamo reads every function in one piece: nothing in there is left to Python."""
    configs = runs("td3", ["dst"])
    whole = functools.partial(torch.compile, backend="eager", fullgraph=True)
    (plain, one), (traced, other) = make(configs, eager), make(configs, whole)
    with torch.no_grad():
        for each in (one, other):
            store(each, 0, 20)
            for _ in range(3):
                each.update()
    for a, b in zip(state(plain, 0), state(traced, 0), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_replayed_updates_are_the_eager_ones_while_budgets_move(algo: str) -> None:
    kinds = ("gmp", "granet", "growth", "gmp_then_swaps")
    configs = runs(algo, ["rlx2", *["dst"] * len(kinds)])
    for number, kind in enumerate(kinds, start=1):
        network = moving(kind=kind, sparsity=0.6).critic
        masking = "magnitude_trim" if kind == "granet" else "online_mask"
        changes = {"actor": network, "critic": network, "target_masking": masking}
        configs[number] = configs[number].model_copy(update=changes)
    recordings = Recordings()
    (plain, one), (replayed, other) = make(configs, eager), make(configs, recordings)
    take_updates(one, other)
    assert_equal_members(plain, replayed)
    for ours, theirs in ((plain.actor, replayed.actor), (plain.critic, replayed.critic)):
        assert torch.equal(ours.target_params.flat, theirs.target_params.flat)  # type: ignore[attr-defined]
        assert len(take_events(ours)) == len(take_events(theirs)) > 2 * len(configs)
    assert min(recording.replays for recording in recordings.made) > 0
    for algorithm in (plain, replayed):
        assert algorithm.critic.active()[1:3, 0, 1].tolist() == [48, 48]  # .4 of 12x10
