"""Sampling: n-step sums by hand and against a brute-force reference, and what a batch holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_samples import GAMMA, Row, at_age, filled, histories, numbered, target
from torch import Tensor

from dstrl_cli.config.parse import from_dict
from dstrl_cli.replay.base import Replay
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.nsteps import NSteps, nstep_return
from dstrl_cli.replay.paired import PairedReplay

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


# --- the sum itself, a pure function --------------------------------------------------------------

ONES = torch.ones(2, 1, 3)
DISCOUNTS = torch.tensor([1.0, 0.5, 0.25])


def test_an_nstep_return_by_hand() -> None:
    reward = torch.tensor([[[1.0, 2.0, 4.0]], [[1.0, 2.0, 4.0]]])
    fell = torch.tensor([[[1.0, 1.0, 1.0]], [[1.0, 0.0, 1.0]]])  # the second at its second step
    found = nstep_return(reward, fell, fell, torch.tensor([[2], [3]]), 0.5, DISCOUNTS)
    assert found.reward.tolist() == [[2.0], [2.0]]  # 1 + 2 / 2, for two reasons
    assert found.discount.tolist() == [[0.25], [0.0]]
    assert found.last.tolist() == [[1], [1]]
    assert found.path_discount.tolist() == [[[0.5, 0.25, 0.0]], [[0.5, 0.0, 0.0]]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": torch.ones(2, 3)}, r"reward must be \[P, B, n\], not of shape \[2, 3\]"),
        ({"not_done": ONES.bool()}, "not_done must be floating point, not torch.bool"),
        ({"nstep": torch.ones(2, 1)}, "nstep must be torch.int64, not torch.float32"),
        ({"discounts": torch.ones(1, 3)}, r"discounts must be \[n\], not of shape \[1, 3\]"),
    ],
)
def test_arguments_of_another_rank_or_type_are_refused(changes: Any, message: str) -> None:
    steps = {"reward": ONES, "not_terminated": ONES, "not_done": ONES}
    n = torch.ones(2, 1, dtype=torch.long)
    with pytest.raises((ValueError, TypeError), match=message):
        nstep_return(**(steps | {"nstep": n, "gamma": 0.5, "discounts": DISCOUNTS} | changes))


def test_a_batch_of_another_rank_or_type_is_refused() -> None:
    parts = at_age(filled(10, numbered(6)), 1, 3).tensors()
    assert Batch.from_tensors(parts, 1).reward.shape == (1, 1)
    for number, name in enumerate(("state_action", "reward", "discount", "last")):
        wrong = [part[0] if index == number else part for index, part in enumerate(parts)]
        with pytest.raises(ValueError, match=f"{name} must be"):
            Batch.from_tensors(wrong, 1)


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


def test_a_batch_is_the_same_after_its_tensors_were_copied() -> None:
    batch = at_age(filled(10, numbered(6, {2: "limit"}), numbered(6)), 1, 3)
    tensors = batch.tensors()
    assert len(tensors) == Batch.count_tensors(3)
    again = Batch.from_tensors(tensors, observation_size=1)
    for name, value in vars(batch).items():
        other = getattr(again, name)
        if isinstance(value, Tensor):
            assert torch.equal(value, other)
        else:
            assert all(torch.equal(a, b) for a, b in zip(value, other, strict=True))


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


@pytest.mark.parametrize("kind", [PairedReplay, CompiledReplay])
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


def test_n_switches_at_each_members_own_update() -> None:
    runs = [
        from_dict({"algo": "td3", "method": "any", "env": "Any-v0"} | keys)
        for keys in (
            {},
            {"nstep": 3},
            {"nstep": 3, "nstep_delay": 5},
            {"nstep": 2, "nstep_delay": 9},
        )
    ]
    nsteps = NSteps(runs, "cpu")
    found = {}
    for update in range(1, 12):
        values, most = nsteps.at(update)
        found[update] = values.flatten().tolist()
        assert most == max(found[update])
    assert {tuple(found[update]) for update in range(1, 5)} == {(1, 3, 1, 1)}
    assert {tuple(found[update]) for update in range(5, 9)} == {(1, 3, 3, 1)}
    assert {tuple(found[update]) for update in range(9, 12)} == {(1, 3, 3, 2)}
