"""What a batch of environments does, whoever steps it: this process, workers, or the device.

The workers' own concerns (deaths, Ctrl-C, what is left behind) are in `test_env_workers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from env_samples import faulty

from dstrl_cli.envs import make_batch, spec
from dstrl_cli.envs.base import BatchEnv, HostStep, Step
from dstrl_cli.errors import DstrlError
from dstrl_cli.evaluation import rollout

Make = Callable[[str, int], BatchEnv]
COUNTER = "env_samples:Counter-v0"


@pytest.fixture(params=["here", "workers"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make batches of Gymnasium environments that one of the back ends steps."""
    made: list[BatchEnv] = []

    def make_one(name: str, num_envs: int) -> BatchEnv:
        workers = 2 if request.param == "workers" else 0
        made.append(make_batch(spec(name), num_envs, workers=workers))
        return made[-1]

    yield make_one
    for batch in made:
        batch.close()


def steps(batch: BatchEnv, count: int, seed: int = 0) -> list[Step]:
    """Step with the same random actions everywhere; return the steps."""
    torch.manual_seed(seed)
    size = batch.spec.action_size
    return [
        batch.step(torch.rand(1, size).expand(batch.num_envs, -1) * 2 - 1) for _ in range(count)
    ]


def same(one: Step, other: Step, rows: Any = slice(None), other_rows: Any = None) -> bool:
    """Whether two steps agree bit for bit, in some of their rows."""
    other_rows = rows if other_rows is None else other_rows
    pairs = zip(one[:5], other[:5], strict=True)
    return all(torch.equal(a[rows], b[other_rows]) for a, b in pairs)


# Episodes ---------------------------------------------------------------------------------------


def test_an_episodes_end_returns_the_true_last_observation_and_a_new_start(make: Make) -> None:
    batch = make(COUNTER, 2)
    start = batch.reset([3, 4])
    assert start.shape == (2, 3)
    assert start.dtype == torch.float32
    assert start[0, 0] != start[1, 0]
    seen = [batch.step(torch.zeros(2, 2)) for _ in range(4)]
    assert [step.next_observation[0, 0].item() for step in seen] == [1, 2, 3, 1]
    assert [step.reward[1].item() for step in seen] == [1, 2, 3, 1]
    ended = [[False] * 2] * 2 + [[True] * 2] + [[False] * 2]
    assert [step.terminated.tolist() for step in seen] == ended
    assert not any(step.truncated.any() for step in seen)
    assert torch.equal(seen[1].observation, seen[1].next_observation)
    # The third step ends the episode; its `observation` is a start of the stream going on.
    stream = np.random.default_rng(3)
    assert start[0, 0] == np.float32(stream.uniform())
    assert seen[2].observation[0, 0] == np.float32(stream.uniform())


def test_actions_are_scaled_to_the_bounds(make: Make) -> None:
    batch = make(COUNTER, 1)
    batch.reset([0])
    for action, expected in [((-1, -1), (-3, 0)), ((0, 0), (0, 0.5)), ((0.5, 1), (1.5, 1))]:
        seen = batch.step(torch.tensor([action], dtype=torch.float32)).next_observation[0, 1:]
        assert seen.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("limit", "limit_wins", "terminated", "truncated"),
    [
        (2, False, False, True),
        (3, False, True, False),
        (3, True, False, True),
        (4, True, True, False),
    ],
)
def test_a_fall_on_the_last_step_terminates_unless_the_time_limit_wins(
    make: Make, limit: int, limit_wins: bool, terminated: bool, truncated: bool
) -> None:
    # Ends after 3 steps by itself: a limit of 2 truncates, of 3 coincides, of 4 never shows.
    batch = make(f"env_samples:Counter-limit{limit}-v0", 2)
    assert batch.spec.time_limit == limit
    batch.limit_wins = torch.tensor([limit_wins] * 2)
    batch.reset([0, 1])
    last = steps(batch, min(limit, 3))[-1]
    assert (last.terminated.tolist(), last.truncated.tolist()) == (
        [terminated] * 2,
        [truncated] * 2,
    )
    assert last.next_observation[:, 0].tolist() == [min(limit, 3)] * 2
    assert (last.observation[:, 0] < 1).all()


def test_inactive_environments_stay_where_they_are(make: Make) -> None:
    batch = make(COUNTER, 3)
    batch.reset([0, 1, 2])
    before = steps(batch, 1)[-1]
    step = batch.step(torch.ones(3, 2), active=[True, False, True])
    assert step.next_observation[:, 0].tolist() == [2, 1, 2]
    assert torch.equal(step.observation[1], before.observation[1])
    assert step.reward.tolist() == [2, 0, 2]
    third = batch.step(torch.ones(3, 2), active=np.array([True, False, False]))
    assert third.terminated.tolist() == [True, False, False]
    assert steps(batch, 1)[-1].next_observation[:, 0].tolist() == [1, 2, 3]


def test_the_host_is_told_what_the_device_is_told(make: Make) -> None:
    batch = make("env_samples:Counter-limit2-v0", 3)
    batch.reset([0, 1, 2])
    for step in [*steps(batch, 3), batch.step(torch.ones(3, 2), [True, False, True])]:
        assert step.host is not None
        kinds = [array.dtype for array in step.host]
        assert kinds == [np.float64, np.bool_, np.bool_, np.float64]
        assert [array.tolist() for array in step.host[:3]] == [part.tolist() for part in step[1:4]]
        assert step.host.ended.tolist() == step.ended.tolist()


def test_an_episode_has_ended_when_it_terminated_or_was_truncated() -> None:
    no, ends = torch.zeros(3), ([True, False, False], [False, True, False])
    host = HostStep(no.numpy(), *map(np.array, ends), no.numpy())
    step = Step(no, no, *map(torch.tensor, ends), no, host)
    assert step.ended.tolist() == [True, True, False]
    assert step.host is not None
    assert step.host.ended.tolist() == [True, True, False]


def test_what_a_batch_returned_is_the_callers(make: Make) -> None:
    batch = make(COUNTER, 2)
    first = batch.reset([0, 1])
    kept = first.clone()
    step = steps(batch, 1)[0]
    step.observation.fill_(9.0)
    still = batch.step(torch.ones(2, 2), active=[False, False])
    assert still.observation[:, 0].tolist() == [1, 1]
    steps(batch, 5)
    assert torch.equal(first, kept)
    assert step.next_observation[:, 0].tolist() == [1, 1]
    assert still.reward.tolist() == [0, 0]


def test_seeds_decide_the_start_and_environments_are_independent(make: Make) -> None:
    pair, alone = make("Hopper-v5", 2), make("Hopper-v5", 1)
    starts = pair.reset([7, 8])
    assert not torch.equal(starts[0], starts[1])
    assert torch.equal(alone.reset([8])[0], starts[1])
    together, single = steps(pair, 60), steps(alone, 60)
    assert any(step.terminated[1] for step in together)  # Hopper falls; its stream goes on
    assert all(same(two, one, 1, 0) for two, one in zip(together, single, strict=True))
    assert torch.equal(pair.reset([7, 8]), starts)
    pair.close()
    pair.close()


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Hopper-v5", "Ant-v3", "AntNav", "Pendulum-v1"])
def test_workers_give_the_same_numbers(name: str) -> None:
    batches = [make_batch(spec(name), 5, workers=workers) for workers in (0, 1, 3)]
    starts = [batch.reset([4, 3, 2, 1, 0]) for batch in batches]
    runs = [steps(batch, 120) for batch in batches]
    for start, run, batch in zip(starts, runs, batches, strict=True):
        assert torch.equal(start, starts[0])
        assert all(same(one, other) for one, other in zip(run, runs[0], strict=True))
        batch.close()


# Failures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "failed: ValueError: broken"),
        ("exits", "failed: SystemExit: of its own accord"),
        ("nan reward", "returned a number that is not finite"),
        ("inf observation", "returned a number that is not finite"),
    ],
)
def test_a_failing_environment_is_frozen_and_the_others_go_on(
    make: Make, fault: str, message: str
) -> None:
    batch, sound = make(faulty(fault), 3), make(COUNTER, 3)
    assert torch.equal(batch.reset([0, 1, 2]), sound.reset([0, 1, 2]))
    before, *after = steps(batch, 6)
    others = [0, 2]
    for one, other in zip([before, *after], steps(sound, 6), strict=True):
        assert same(one, other, others)
    assert list(batch.failures) == [1]
    assert batch.failures[1].startswith(f"environment 1 ({batch.spec.name}) {message}")
    for step in after:
        assert torch.equal(step.next_observation[1], before.observation[1])
        assert torch.equal(step.observation[1], before.observation[1])
        assert step.reward[1] == 0
        assert not step.ended[1]
    with pytest.raises(DstrlError, match="environment 1"):
        batch.check()
    batch.reset([0, 0, 0])
    assert batch.failures == {}
    assert steps(batch, 2)[-1].reward.tolist() == [2, 2, 2]
    batch.check()


@pytest.mark.parametrize("fault", ["no new start", "nan new start"])
def test_without_a_new_start_the_episode_that_ended_is_sound(make: Make, fault: str) -> None:
    batch = make(faulty(fault), 2)
    batch.reset([0, 1])
    *_, last, after = steps(batch, 4)
    assert last.terminated.tolist() == [True, True]
    assert last.reward.tolist() == [3, 3]
    assert last.next_observation[:, 0].tolist() == [3, 3]
    assert last.observation[1].tolist() == last.next_observation[1].tolist()
    assert list(batch.failures) == [1]
    assert after.next_observation[:, 0].tolist() == [1, 3]
    assert after.terminated.tolist() == [False, False]


def test_an_environment_that_does_not_start_is_frozen_at_zeros(make: Make) -> None:
    batch = make(faulty("no start"), 2)
    assert batch.reset([0, 1])[1].tolist() == [0, 0, 0]
    assert list(batch.failures) == [1]
    assert steps(batch, 1)[0].reward.tolist() == [1, 0]


def test_an_evaluation_ends_where_its_environment_fails(make: Make) -> None:
    batch = make(faulty("raises"), 3)
    found = rollout.episodes(batch, lambda seen: torch.zeros(len(seen), 2), [0, 1, 2])
    assert found.returns.tolist() == [6, 1, 6]
    assert found.lengths.tolist() == [3, 2, 3]
    assert not found.cut.any()


# States -----------------------------------------------------------------------------------------

STATEFUL = ["HalfCheetah-v5", "Hopper-v5", "Ant-v5", "Ant-v3", "Humanoid-v5", "ReacherNav"]
STATEFUL += ["AntNav", "2DNav-v1", "2DNav-v2", "Pendulum-v1", "env_samples:Counter-limit4-v0"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_brings_back_the_same_steps(name: str, workers: int) -> None:
    batch = make_batch(spec(name), 3, workers=workers)
    other = make_batch(spec(name), 3)  # as in a process that resumes a run
    batch.reset([1, 2, 3])
    steps(batch, 17)
    states = batch.get_state()
    expected = steps(batch, 120, seed=1)  # over an episode's end where there are falls or limits
    for resumed in (batch, other):
        observation = resumed.set_state(states)
        assert observation.numpy().tolist() == [s.observation.tolist() for s in states]
        again = steps(resumed, 120, seed=1)
        assert all(same(one, two) for one, two in zip(again, expected, strict=True))
        resumed.close()


def test_states_may_change_places(make: Make) -> None:
    batch = make("Hopper-v5", 2)
    batch.reset([1, 2])
    steps(batch, 5)
    states = batch.get_state()
    first = steps(batch, 30, seed=1)
    batch.set_state(states[::-1])
    assert all(same(a, b, 0, 1) for a, b in zip(steps(batch, 30, seed=1), first, strict=True))


@pytest.mark.parametrize("name", ["Hopper-v5", "2DNav-v2"])
def test_an_environment_without_a_state_stays_as_it_is(name: str) -> None:
    batch = make_batch(spec(name), 2)
    batch.reset([1, 2])
    steps(batch, 5)
    states = batch.get_state()
    first = steps(batch, 3)
    batch.set_state([states[0], None])
    again = steps(batch, 3)
    assert all(same(a, b, 0) for a, b in zip(again, first, strict=True))
    assert not same(again[0], first[0], 1)
    batch.close()


def leaves(value: Any) -> Iterator[Any]:
    """Go through everything inside nested containers."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


@pytest.mark.parametrize("name", STATEFUL)
def test_states_are_plain_data(name: str) -> None:
    batch = make_batch(spec(name), 1)
    batch.reset([0])
    steps(batch, 2)
    (state,) = batch.get_state()
    assert state.elapsed == 2
    for value in leaves([vars(state)]):
        if isinstance(value, np.ndarray):
            assert value.dtype.kind in "fiub"
        else:
            assert value is None or isinstance(value, bool | int | float | str | np.number)


def test_a_state_cures_a_failure(make: Make) -> None:
    batch = make(faulty("raises"), 2)
    batch.reset([0, 1])
    steps(batch, 1)
    states = batch.get_state()
    steps(batch, 1)
    assert list(batch.failures) == [1]
    batch.set_state([states[0], states[0]])
    assert batch.failures == {}
    assert steps(batch, 1)[0].reward.tolist() == [2, 2]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("env_samples:Elsewhere-v0", r"it keeps a object \(world\)"),
        ("env_samples:Elsewhere-rng-v0", r"it keeps a Generator \(rng\)"),
        ("env_samples:Elsewhere-point-v0", r"it keeps a Point \(point\)"),
        ("env_samples:Elsewhere-weather-v0", r"it keeps a Weather \(weather\)"),
        ("env_samples:Elsewhere-numbers-v0", "tail shares memory with another attribute"),
        ("env_samples:Remembering-v0", "its wrapper Remembering may keep state"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(make: Make, name: str, reason: str) -> None:
    batch = make(name, 3)
    batch.reset([0, 1, 2])
    with pytest.raises(DstrlError, match=f"cannot be read or set: {reason}"):
        batch.get_state()
    assert steps(batch, 1)[0].reward.tolist() == [1, 1, 1]  # nobody's answer was left unheard
