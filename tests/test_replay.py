"""The replay buffer: n-step sums by hand and against a brute-force reference, and its capacity."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dstrl_cli.errors import InputError
from dstrl_cli.replay.base import DISTANCES, Batch, Replay, check_memory
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.layout import ring_bytes
from dstrl_cli.replay.once import ReplayOnce

GAMMA = 0.5  # powers of two: sums are exact


@dataclass(frozen=True)
class Row:
    """One transition; its observation is its number, the next one is its number + 0.5."""

    number: int
    reward: float = 1.0
    terminated: bool = False
    truncated: bool = False


def filled(capacity: int, *members: list[Row], kind: type[Replay] = Replay) -> Replay:
    replay = kind(len(members), capacity, 1, 1, GAMMA)
    for rows in zip(*members, strict=True):
        number = torch.tensor([[float(row.number)] for row in rows])
        replay.add(
            number,
            -number,
            torch.tensor([row.reward for row in rows]),
            number + 0.5,
            torch.tensor([row.terminated for row in rows]),
            torch.tensor([row.truncated for row in rows]),
        )
    return replay


def numbered(count: int, ends: dict[int, str] | None = None) -> list[Row]:
    """Rows 0, 1, ... with rewards 1, 2, 4, ...; `ends` says which are a `fall` or the `limit`."""
    ends = ends or {}
    return [Row(i, 2.0**i, ends.get(i) == "fall", ends.get(i) == "limit") for i in range(count)]


def at_age(replay: Replay, age: int, n: int) -> Batch:
    """Sample the start that is `age` transitions younger than the oldest, for every member."""
    starts = (replay.size - n + 1).clamp(min=1).double()
    return replay.sample((age + 0.5) / starts, torch.full((len(replay.size), 1), n), n)


def target(batch: Batch, member: int = 0) -> tuple[float, float, float, int]:
    """Reward sum, discount, number of the observation to bootstrap from, and last step."""
    return (
        batch.reward[member, 0].item(),
        batch.discount[member, 0].item(),
        batch.next_observation[member, 0, 0].item(),
        int(batch.last[member, 0]),
    )


# --- n-step by hand: gamma 1/2, rewards 1 2 4 8 ... -----------------------------------------------


@pytest.mark.parametrize(
    ("n", "age", "expected"),
    [
        (1, 2, (4.0, 0.5, 2.5, 0)),
        (2, 1, (2 + 4 / 2, 0.25, 2.5, 1)),
        (3, 0, (1 + 2 / 2 + 4 / 4, 0.125, 2.5, 2)),
        (3, 3, (8 + 16 / 2 + 32 / 4, 0.125, 5.5, 2)),
    ],
)
def test_inside_an_episode(n: int, age: int, expected: tuple[float, ...]) -> None:
    batch = at_age(filled(10, numbered(6)), age, n)
    assert target(batch) == expected
    assert batch.observation[0, 0, 0] == age
    assert batch.action[0, 0, 0] == -age


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (0, (1 + 2 / 2 + 4 / 4, 0.0, 2.5, 2)),  # falls at the third step
        (1, (2 + 4 / 2, 0.0, 2.5, 1)),  # at the second
        (2, (4.0, 0.0, 2.5, 0)),  # at the first
        (3, (8 + 16 / 2 + 32 / 4, 0.125, 5.5, 2)),  # the next episode
    ],
)
def test_a_termination_ends_rewards_and_bootstrap(age: int, expected: tuple[float, ...]) -> None:
    assert target(at_age(filled(10, numbered(6, {2: "fall"})), age, 3)) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (0, (1 + 2 / 2 + 4 / 4, 0.125, 2.5, 2)),
        (1, (2 + 4 / 2, 0.25, 2.5, 1)),
        (2, (4.0, 0.5, 2.5, 0)),
        (3, (8 + 16 / 2 + 32 / 4, 0.125, 5.5, 2)),
    ],
)
def test_a_time_limit_ends_rewards_and_bootstraps_there(
    age: int, expected: tuple[float, ...]
) -> None:
    assert target(at_age(filled(10, numbered(6, {2: "limit"})), age, 3)) == expected


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (None, (16 + 32 / 2 + 64 / 4, 0.125, 6.5, 2)),
        ("fall", (16 + 32 / 2, 0.0, 5.5, 1)),
        ("limit", (16 + 32 / 2, 0.25, 5.5, 1)),
    ],
)
def test_across_the_end_of_the_ring(end: str | None, expected: tuple[float, ...]) -> None:
    # 7 rows in a ring of 5: 5 6 2 3 4, so row 4 is the last of the ring and 5 follows at its start
    replay = filled(5, numbered(7, {5: end} if end else None))
    assert replay.position == 2
    assert target(at_age(replay, 2, 3)) == expected


def test_the_oldest_start_after_the_ring_is_full() -> None:
    assert target(at_age(filled(5, numbered(7)), 0, 3)) == (4 + 8 / 2 + 16 / 4, 0.125, 4.5, 2)


@pytest.mark.parametrize("count", [4, 5, 8])
def test_no_start_reaches_past_the_newest_transition(count: int) -> None:
    replay = filled(5, numbered(count))
    numbers = torch.linspace(0, 1 - 1e-9, 64, dtype=torch.float64).unsqueeze(0)
    batch = replay.sample(numbers, torch.tensor([[3]]), 3)
    first, newest = max(0, count - 5), count - 1
    starts = sorted({int(s) for s in batch.observation[0, :, 0]})
    assert starts == list(range(first, newest - 1))  # the last start is two before the newest
    assert (batch.last == 2).all()
    assert torch.equal(batch.next_observation, batch.observation + 2.5)


def test_with_fewer_transitions_than_n_the_oldest_gives_what_there_is() -> None:
    replay = filled(10, numbered(2))
    batch = replay.sample(torch.tensor([[0.0, 0.999]]).double(), torch.tensor([[5]]), 5)
    assert batch.reward.tolist() == [[2.0, 2.0]]
    assert batch.discount.tolist() == [[0.25, 0.25]]
    assert batch.next_observation.flatten().tolist() == [1.5, 1.5]


def test_members_have_their_own_n() -> None:
    replay = filled(10, numbered(6), numbered(6, {1: "fall"}), numbered(6))
    batch = replay.sample(torch.zeros(3, 1).double(), torch.tensor([[1], [3], [3]]), 3)
    assert target(batch, 0) == (1.0, 0.5, 0.5, 0)
    assert target(batch, 1) == (2.0, 0.0, 1.5, 1)
    assert target(batch, 2) == (3.0, 0.125, 2.5, 2)


def test_a_one_step_member_samples_the_newest_transition_too() -> None:
    replay = filled(10, numbered(6), numbered(6))
    batch = replay.sample(torch.full((2, 1), 0.999).double(), torch.tensor([[1], [3]]), 3)
    assert batch.observation[:, 0, 0].tolist() == [5.0, 3.0]


# --- the path, for the entropy terms of RLX eq. 11 ------------------------------------------------


def path(batch: Batch, member: int = 0) -> list[tuple[float, float]]:
    """(next observation, discount) of every step."""
    return [
        (observation[member, 0, 0].item(), discount[member, 0].item())
        for observation, discount in zip(batch.path, batch.path_discount, strict=True)
    ]


def test_the_path_discounts_every_step_taken() -> None:
    batch = at_age(filled(10, numbered(6)), 1, 3)
    assert path(batch) == [(1.5, 0.5), (2.5, 0.25), (3.5, 0.125)]


def test_the_entropy_of_a_terminal_state_does_not_count() -> None:
    batch = at_age(filled(10, numbered(6, {2: "fall"})), 1, 3)
    assert [discount for _, discount in path(batch)] == [0.5, 0.0, 0.0]
    assert path(batch)[0][0] == 1.5


def test_the_entropy_at_a_time_limit_counts_and_ends_the_path() -> None:
    batch = at_age(filled(10, numbered(6, {2: "limit"})), 1, 3)
    assert [discount for _, discount in path(batch)] == [0.5, 0.25, 0.0]
    assert path(batch)[1][0] == 2.5
    assert int(batch.last) == 1


def test_a_one_step_member_beside_longer_ones_has_one_entropy_term() -> None:
    replay = filled(10, numbered(6), numbered(6))
    batch = replay.sample(torch.zeros(2, 1).double(), torch.tensor([[1], [3]]), 3)
    assert [discount for _, discount in path(batch, 0)] == [0.5, 0.0, 0.0]
    assert [discount for _, discount in path(batch, 1)] == [0.5, 0.25, 0.125]


# --- against brute force --------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """What a start gives, by walking over the rows one by one."""

    reward: float
    discount: float
    last: int
    path_discount: list[float]


def walk(rows: list[Row], start: int, n: int) -> Reference:
    reward, path_discount = 0.0, []
    for k in range(n):
        row = rows[start + k]
        reward += GAMMA**k * row.reward
        discount = 0.0 if row.terminated else GAMMA ** (k + 1)
        path_discount.append(discount)
        if row.terminated or row.truncated or start + k + 1 == len(rows):
            break
    return Reference(reward, discount, k, path_discount)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[list[Row]], list[int]]:
    """Capacity, rows of every member, n of every member."""
    members, count = draw(st.integers(1, 3)), draw(st.integers(1, 25))
    kind = st.sampled_from(["", "", "", "fall", "limit", "both"])
    rows = []
    for _ in range(members):
        ends = draw(st.lists(kind, min_size=count, max_size=count))
        rows.append(
            [
                Row(i, float(draw(st.integers(-8, 8))), e in ("fall", "both"), e == "limit")
                for i, e in enumerate(ends)
            ]
        )
    nsteps = draw(st.lists(st.integers(1, 6), min_size=members, max_size=members))
    return draw(st.integers(1, 30)), rows, nsteps


@pytest.mark.parametrize("kind", [Replay, CompiledReplay])
@given(histories(), st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=3, max_size=3))
@settings(max_examples=120, deadline=None)
def test_sampling_equals_brute_force(
    kind: type[Replay],
    history: tuple[int, list[list[Row]], list[int]],
    seed: int,
    limits: list[int],
) -> None:
    capacity, members, nsteps = history
    replay = filled(capacity, *members, kind=kind)
    replay.limit(torch.tensor(limits[: len(members)]))
    g = torch.Generator().manual_seed(seed)
    numbers = torch.rand(len(members), 16, generator=g, dtype=torch.float64)
    batch = replay.sample(numbers, torch.tensor(nsteps).unsqueeze(1), max(nsteps))
    assert torch.equal(batch.next_observation, batch.path[-1])
    for member, (rows, n) in enumerate(zip(members, nsteps, strict=True)):
        held = min(capacity, limits[member], len(rows))
        rows = rows[len(rows) - held :]
        for column in range(16):
            start = int(batch.observation[member, column, 0]) - rows[0].number
            assert start == int(numbers[member, column] * max(1, held - n + 1))
            expected = walk(rows, start, n)
            last = int(batch.last[member, column])
            assert batch.reward[member, column] == expected.reward
            assert batch.discount[member, column] == expected.discount
            assert last == expected.last
            assert batch.next_observation[member, column, 0] == rows[start + last].number + 0.5
            discounts = [discount[member, column].item() for discount in batch.path_discount]
            missing = len(discounts) - len(expected.path_discount)
            assert discounts == expected.path_discount + [0.0] * missing
            for k in range(last + 1):
                assert batch.path[k][member, column, 0] == rows[start + k].number + 0.5


def test_starts_are_uniform() -> None:
    replay = filled(8, numbered(13))
    numbers = torch.rand(1, 12_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = replay.sample(numbers, torch.tensor([[3]]), 3)
    starts, counts = batch.observation.flatten().unique(return_counts=True)
    assert starts.tolist() == [5, 6, 7, 8, 9, 10]
    assert counts.double() == pytest.approx(2000, abs=200)  # sd 41


# --- capacity -------------------------------------------------------------------------------------


def test_size_grows_to_the_capacity() -> None:
    assert filled(5, numbered(3), numbered(3)).size.tolist() == [[3], [3]]
    assert filled(5, numbered(12)).size.tolist() == [[5]]


def test_a_smaller_limit_forgets_the_oldest() -> None:
    replay = filled(5, numbered(7), numbered(7))
    replay.limit(torch.tensor([2, 9]))
    assert replay.size.tolist() == [[2], [5]]
    assert [int(s) for s in replay.oldest(2)[0][0]] == [5, 6]
    assert [int(s) for s in replay.oldest(2)[0][1]] == [2, 3]


@pytest.mark.parametrize(
    ("size", "share", "left"),
    [(99, 0.1, 90), (100, 0.1, 90), (101, 0.1, 91), (9, 0.1, 9), (10, 0.5, 5), (100, 0.7, 30)],
)
def test_drop_oldest_forgets_the_whole_part_of_its_share(
    size: int, share: float, left: int
) -> None:
    rows = [Row(i) for i in range(size)]
    replay = filled(200, rows, rows)
    replay.drop_oldest(torch.tensor([True, False]), share)
    assert replay.size.tolist() == [[left], [size]]
    oldest = replay.oldest(1)[0]
    assert oldest.flatten().tolist() == [size - left, 0]


def test_after_a_drop_the_ring_fills_again() -> None:
    rows = [Row(i) for i in range(10)]
    replay = filled(10, rows)
    replay.drop_oldest(torch.tensor([True]), 0.5)
    assert [int(s) for s in replay.oldest(3)[0].flatten()] == [5, 6, 7]
    zero, no = torch.zeros(1, 1), torch.zeros(1, dtype=torch.bool)
    replay.add(zero + 10, zero, zero[0], zero, no, no)
    assert replay.size.tolist() == [[6]]
    assert [int(s) for s in replay.oldest(6)[0].flatten()] == [5, 6, 7, 8, 9, 10]


def test_oldest_repeats_the_newest_where_a_member_holds_fewer() -> None:
    observation, action, policy_action = filled(5, numbered(3)).oldest(5)
    assert observation.flatten().tolist() == [0, 1, 2, 2, 2]
    assert torch.equal(action, -observation)
    assert torch.equal(policy_action, action)  # not kept apart: the action itself


@pytest.mark.parametrize("kind", [Replay, CompiledReplay])
def test_noise_free_actions_are_kept_where_asked_for(kind: type[Replay]) -> None:
    replay = kind(1, 4, 1, 2, GAMMA, policy_actions=True)
    no = torch.zeros(1, dtype=torch.bool)
    action, policy_action = torch.tensor([[0.5, -0.5]]), torch.tensor([[0.4, -0.2]])
    replay.add(torch.zeros(1, 1), action, torch.zeros(1), torch.zeros(1, 1), no, no, policy_action)
    _, stored, free = replay.oldest(1)
    assert torch.equal(stored[:, 0], action)
    assert torch.equal(free[:, 0], policy_action)


def test_a_batch_is_the_same_after_its_tensors_travelled() -> None:
    batch = at_age(filled(10, numbered(6, {2: "limit"}), numbered(6)), 1, 3)
    tensors = batch.tensors()
    assert len(tensors) == Batch.parts(3)
    again = Batch.of(tensors, observation_size=1)
    for name, value in vars(batch).items():
        other = getattr(again, name)
        if isinstance(value, Tensor):
            assert torch.equal(value, other)
        else:
            assert all(torch.equal(a, b) for a, b in zip(value, other, strict=True))


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_actions", [False, True])
@pytest.mark.parametrize("kind", [Replay, functools.partial(ReplayOnce, time_limit=10)])
def test_the_bytes_of_a_buffer_are_those_of_its_rings(kind: Any, policy_actions: bool) -> None:
    replay = kind(3, 50, 7, 2, GAMMA, policy_actions=policy_actions)
    rings = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in vars(replay).values()
        if isinstance(tensor, Tensor) and tensor.dim() == 3
    }
    assert sum(rings.values()) == 3 * ring_bytes(50, 7, 2, policy_actions, replay.time_limit)


# --- every observation once -----------------------------------------------------------------------


def chained(kind: Any, members: list[list[Row]], capacity: int) -> Replay:
    """Rows whose next observation is the next row's, or number + 0.5 where an episode ended."""
    replay: Replay = kind(len(members), capacity, 1, 1, GAMMA)
    for rows in zip(*members, strict=True):
        number = torch.tensor([[float(row.number)] for row in rows])
        terminated = torch.tensor([row.terminated for row in rows])
        truncated = torch.tensor([row.truncated for row in rows])
        ended = (terminated | truncated).unsqueeze(1)
        replay.add(
            number,
            -number,
            torch.tensor([row.reward for row in rows]),
            number + torch.where(ended, 0.5, 1.0),
            terminated,
            truncated,
        )
    return replay


@given(histories(), st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=3, max_size=3))
@settings(max_examples=120, deadline=None)
def test_observations_stored_once_give_the_same_batches(
    history: tuple[int, list[list[Row]], list[int]], seed: int, limits: list[int]
) -> None:
    capacity, members, nsteps = history
    once = functools.partial(ReplayOnce, time_limit=1)
    twice, replay = chained(Replay, members, capacity), chained(once, members, capacity)
    numbers = torch.rand(
        len(members), 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    n = torch.tensor(nsteps).unsqueeze(1)
    batches = []
    for each in (twice, replay):
        each.limit(torch.tensor(limits[: len(members)]))
        batches.append(each.sample(numbers, n, max(nsteps)))
    expected, found = batches
    for name in ("state_action", "reward", "discount", "last"):
        assert torch.equal(getattr(expected, name), getattr(found, name))
    # after a termination nobody looks
    for k, discount in enumerate(expected.path_discount):
        assert torch.equal(discount, found.path_discount[k])
        looks = discount > 0
        assert torch.equal(expected.path[k][looks], found.path[k][looks])
    looks = expected.discount > 0
    assert torch.equal(expected.next_observation[looks], found.next_observation[looks])


@pytest.mark.parametrize("count", [9, 10, 11, 37])
def test_time_limits_find_room_for_the_observations_that_they_end_at(count: int) -> None:
    rows = numbered(count, dict.fromkeys(range(2, count, 3), "limit"))
    replay = chained(functools.partial(ReplayOnce, time_limit=3), [rows], 10)
    ends = replay.size.item() // 3 + 1
    assert replay.ends.shape[1] == 10 // 3 + 2  # type: ignore[attr-defined]
    batch = replay.sample(torch.linspace(0, 0.999, 32).double().unsqueeze(0), torch.ones(1, 1), 1)
    number = batch.observation
    at_limit = number % 3 == 2
    assert len(number[at_limit].unique()) in (ends - 1, ends)
    assert torch.equal(batch.next_observation, number + torch.where(at_limit, 0.5, 1.0))
    assert not replay.early.any()  # type: ignore[attr-defined]


def test_an_episode_cut_before_the_time_limit_is_noticed() -> None:
    early = numbered(12, {2: "limit", 8: "limit", 10: "limit"})
    falls = numbered(12, {2: "fall", 8: "fall", 10: "fall"})
    replay = chained(functools.partial(ReplayOnce, time_limit=5), [early, falls], 20)
    assert replay.early.tolist() == [True, False]  # type: ignore[attr-defined]
    late = numbered(12, {2: "limit", 7: "limit"})  # the first episode may have begun before
    replay = chained(functools.partial(ReplayOnce, time_limit=5), [late], 20)
    assert replay.early.tolist() == [False]  # type: ignore[attr-defined]


def test_a_buffer_that_does_not_fit_is_refused_with_the_sizes() -> None:
    check_memory(80 * 10**9, 80 * 10**9, 30, 10**6, "cuda:0")
    with pytest.raises(InputError) as refused:
        check_memory(93_120_000_000, 80 * 10**9, 30, 10**6, "cuda:0")
    for part in ("30 members x 1,000,000", "93.1 GB", "80.0 GB", "cuda:0", "replay_device=cpu"):
        assert part in str(refused.value)


def test_policy_distances() -> None:
    now = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    action = torch.tensor([[[0.3, 0.6], [0.5, -1.0]]])
    policy_action = torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])
    # half of (0 + 1 + 0 + 1) / 4 against the noise-free actions (RLX's code)
    found = DISTANCES["mean_squared"](now, action, policy_action)
    assert found.tolist() == [0.25]
    # (sqrt(.09 + .16) + 1) / 2 against the actions taken (RLX eq. 8)
    assert DISTANCES["l2"](now, action, policy_action).tolist() == [pytest.approx(0.75)]


def test_distances_are_per_member() -> None:
    now = torch.zeros(2, 3, 1)
    action = torch.stack((torch.zeros(3, 1), torch.full((3, 1), 2.0)))
    assert DISTANCES["mean_squared"](now, action, action).tolist() == [0.0, 2.0]
    assert DISTANCES["l2"](now, action, action).tolist() == [0.0, 2.0]
