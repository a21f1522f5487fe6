"""The rows of a buffer, taken out and put into another: the same batches, in any layout."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_samples import GAMMA, Row, add, at_age, filled, histories, numbered, target
from torch import Tensor

from dstrl_cli.errors import DstrlError
from dstrl_cli.replay import state as replay_state
from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.once import OnceReplay
from dstrl_cli.replay.paired import PairedReplay

once = functools.partial(OnceReplay, time_limit=1)
LAYOUTS: dict[str, Any] = {"paired": PairedReplay, "compiled": CompiledReplay, "once": once}
ALL_LAYOUTS = pytest.mark.parametrize("name", LAYOUTS)


def moved(replay: Replay, kind: Any, capacity: int, order: Sequence[int] = (0,)) -> Replay:
    """Return a buffer of another kind with the rows of `replay`, its members in another order."""
    again: Replay = kind(len(order), capacity, 1, 1, GAMMA)
    for ring in (again.state_action, again.outcome):
        ring.fill_(torch.nan)  # what was never stored must not matter
    again.set_state([replay.state(member) for member in order])
    return again


def drawn(replay: Replay, seeds: Sequence[int], nsteps: Sequence[int]) -> Batch:
    numbers = torch.stack(
        [
            torch.rand(16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
    )
    return replay.sample(numbers, torch.tensor(nsteps).unsqueeze(1), max(nsteps))


def assert_same_batch(one: Batch, other: Batch, everything: bool) -> None:
    """Compare two batches bit for bit; after a termination only if `everything` counts."""
    pairs = zip(one.tensors(), other.tensors(), strict=True)
    looks = [None] * 4 + [each > 0 for each in one.path_discount] + [None] * len(one.path)
    for (ours, theirs), where in zip(pairs, looks, strict=True):
        if where is not None and not everything:
            ours, theirs = ours[where], theirs[where]
        assert ours.numpy().tobytes() == theirs.numpy().tobytes()


@pytest.mark.parametrize("later", LAYOUTS)
@pytest.mark.parametrize("earlier", LAYOUTS)
@given(histories(), st.data())
@settings(max_examples=12, deadline=None)
def test_batches_are_the_same_before_and_after(
    earlier: str, later: str, history: tuple[int, list[list[Row]], list[int]], data: st.DataObject
) -> None:
    capacity, members, nsteps = history
    with_once = "once" in (earlier, later)
    chained = with_once or data.draw(st.booleans())
    count, numbers = len(members[0]), range(len(members))
    stop = data.draw(st.integers(1, count))
    replay = filled(
        capacity, *(rows[:stop] for rows in members), kind=LAYOUTS[earlier], chained=chained
    )
    replay.limit(torch.tensor([data.draw(st.integers(1, 30)) for _ in numbers]))
    order = data.draw(st.permutations(numbers))
    room = data.draw(st.integers(1, 40))
    again = moved(replay, LAYOUTS[later], room, order)
    replay.limit(torch.tensor([room for _ in numbers]))
    assert again.size.flatten().tolist() == [int(replay.size[each]) for each in order]
    limit = torch.full((len(members),), min(room, capacity))
    for begin, end in ((stop, stop), (stop, count)):  # at once, and after more rows
        add(replay, *(rows[begin:end] for rows in members), chained=chained)
        add(again, *(members[each][begin:end] for each in order), chained=chained)
        for each in (replay, again):
            each.limit(limit)
        batch = drawn(replay, list(numbers), nsteps)
        expected = Batch.from_tensors([part[order] for part in batch.tensors()], 1)
        found = drawn(again, order, [nsteps[each] for each in order])
        assert_same_batch(expected, found, everything=not with_once)
    assert again.faults() == {}


# --- what is kept ---------------------------------------------------------------------------------


@ALL_LAYOUTS
def test_only_next_observations_that_are_in_no_next_row_are_kept(name: str) -> None:
    rows = numbered(9, {3: "limit", 5: "fall", 6: "limit"})
    replay = filled(7, rows, kind=LAYOUTS[name], chained=True)  # 7 and 8 replaced 0 and 1
    state = replay.state(0)
    assert np.concatenate(state["state_action"])[:, 0].tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert np.concatenate(state["outcome"])[:, 0].tolist() == [4, 8, 16, 32, 64, 128, 256]
    at = dict(
        zip(state["breaks"].tolist(), state["break_observations"][:, 0].tolist(), strict=True)
    )
    assert at.pop(3, 5.5) == 5.5  # what follows a termination is kept where it is stored
    assert at == {1: 3.5, 4: 6.5, 6: 9.0}
    assert state["breaks"].dtype == np.int64
    assert "policy_action" not in state


@ALL_LAYOUTS
def test_rows_on_the_host_are_not_copied(name: str) -> None:
    replay = filled(7, numbered(9), kind=LAYOUTS[name], chained=True)
    for key in ("state_action", "outcome"):
        parts = replay.state(0)[key]
        assert [len(part) for part in parts] == [5, 2]
        ring = getattr(replay, key).numpy()
        assert all(np.shares_memory(part, ring) for part in parts)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8])
def test_links_are_found_in_chunks_too(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_state, "CHUNK", 3)
    observation = torch.arange(8.0).unsqueeze(1)
    following = observation.roll(-1, 0).clone()
    following[[1, 6]] = 0.25
    found = replay_state.unlinked(observation, following, 5, size)  # rows 5 6 7 0 1 2 3 4
    newest = [size - 1] if size else []
    assert found.tolist() == sorted({1, 4} & set(range(size)) | set(newest))


def test_links_are_compared_bit_by_bit() -> None:
    zeros = torch.zeros(3, 1)
    assert replay_state.unlinked(zeros, torch.tensor([[-0.0], [0.0], [0.0]]), 0, 3).tolist() == [
        0,
        2,
    ]
    nan = torch.full((3, 1), torch.nan)
    assert replay_state.unlinked(nan, nan.clone(), 0, 3).tolist() == [2]


def with_policy_actions(kept: bool, count: int = 3) -> Replay:
    """Rows whose action is -1, -2, ..., and the policy's ten times that."""
    replay = PairedReplay(1, 5, 1, 1, GAMMA, policy_actions=kept)
    for number in range(count):
        row, no = torch.tensor([[float(number)]]), torch.tensor([False])
        replay.add(Transition(row, -1 - row, row[0], row + 1, no, no, -10 - 10 * row))
    return replay


@pytest.mark.parametrize(
    ("had", "keeps", "expected"),
    [
        (True, True, [-10.0, -20.0, -30.0]),
        (True, False, [-1.0, -2.0, -3.0]),
        (False, True, [-1.0, -2.0, -3.0]),  # it needs none, but another member does
    ],
)
def test_the_policys_actions_go_where_they_are_needed(
    had: bool, keeps: bool, expected: list[float]
) -> None:
    again = PairedReplay(1, 5, 1, 1, GAMMA, policy_actions=keeps)
    again.set_state([with_policy_actions(had).state(0)])
    assert again.oldest(3)[2].flatten().tolist() == expected


def test_an_empty_buffer_can_be_taken_up() -> None:
    for kind in LAYOUTS.values():
        again = moved(kind(1, 5, 1, 1, GAMMA), kind, 5)
        add(again, numbered(3), chained=True)
        assert target(at_age(again, 0, 2)) == (1 + 2 / 2, 0.25, 2.0, 1)


# --- an episode that is lost ----------------------------------------------------------------------


@ALL_LAYOUTS
def test_a_lost_episode_ends_like_one_at_its_time_limit(name: str) -> None:
    replay = filled(10, numbered(3), numbered(3), kind=LAYOUTS[name], chained=True)
    replay.cut_newest(0)
    fresh = [Row(i, 2.0**i) for i in range(20, 23)]  # another episode
    add(replay, fresh, fresh, chained=True)
    assert target(at_age(replay, 1, 3)) == (2 + 4 / 2, 0.25, 3.0, 1)
    assert target(at_age(replay, 1, 3), member=1) == (2 + 4 / 2 + 2**20 / 4, 0.125, 21.0, 2)
    assert target(at_age(replay, 3, 2)) == (2.0**20 + 2.0**21 / 2, 0.25, 22.0, 1)


@pytest.mark.parametrize(("end", "discount"), [("fall", 0.0), ("limit", 0.5)])
@ALL_LAYOUTS
def test_an_episode_that_has_ended_is_not_cut(name: str, end: str, discount: float) -> None:
    replay = filled(10, numbered(3, {2: end}), kind=LAYOUTS[name], chained=True)
    replay.cut_newest(0)
    add(replay, [Row(20), Row(21)], chained=True)
    found = target(at_age(replay, 2, 1))
    assert found[:2] == (4.0, discount)
    if discount:
        assert found[2] == 2.5


@ALL_LAYOUTS
def test_an_empty_buffer_has_no_episode_to_cut(name: str) -> None:
    replay = LAYOUTS[name](1, 4, 1, 1, GAMMA)
    replay.cut_newest(0)
    assert replay.size.tolist() == [[0]]


# --- every observation once -----------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(4, 20), st.data())
@settings(max_examples=25, deadline=None)
def test_final_observations_stay_however_often_a_run_is_stopped(
    spans: list[int], capacity: int, data: st.DataObject
) -> None:
    """After every span of steps the run is stopped, and sometimes its episode is lost."""
    kind = functools.partial(OnceReplay, time_limit=4)
    replay: Replay = kind(1, capacity, 1, 1, GAMMA)
    twice: Replay = PairedReplay(1, capacity, 1, 1, GAMMA)
    number, elapsed = 0, 0
    for span in spans:
        for _ in range(span):
            elapsed += 1
            row = [Row(number, truncated=elapsed == 4)]
            elapsed %= 4
            for each in (replay, twice):
                add(each, row, chained=True)
            number += 1
        replay = moved(replay, kind, capacity)
        if data.draw(st.booleans()):
            elapsed, number = 0, number + 1  # the next row is not the lost one's
            for each in (replay, twice):
                each.cut_newest(0)
        assert replay.faults() == {}
        assert_same_batch(drawn(twice, [1], [3]), drawn(replay, [1], [3]), everything=True)


def slots(replay: Replay) -> Tensor:
    assert isinstance(replay, OnceReplay)
    return replay.ends


def test_room_for_final_observations_does_not_grow_from_stop_to_stop() -> None:
    kind = functools.partial(OnceReplay, time_limit=3)
    replay = filled(
        12, numbered(24, dict.fromkeys(range(2, 24, 3), "limit")), kind=kind, chained=True
    )
    for _ in range(5):
        replay = moved(replay, kind, 12)
        assert slots(replay).shape[1] == 4 + (12 // 3 + 2)


def test_an_early_end_is_noticed_after_a_stop_as_before_it() -> None:
    kind = functools.partial(OnceReplay, time_limit=5)
    ends = {6: "limit", 9: "limit"}
    for stop in (7, 8, 9):
        replay = moved(filled(20, numbered(stop, ends), kind=kind, chained=True), kind, 20)
        add(replay, numbered(12, ends)[stop:], chained=True)
        assert list(replay.faults()) == [0]


def test_a_member_whose_observations_were_overwritten_cannot_be_kept() -> None:
    kind = functools.partial(OnceReplay, time_limit=5)
    early = numbered(12, {2: "limit", 5: "limit"})
    replay = filled(20, early, numbered(12), kind=kind, chained=True)
    with pytest.raises(DstrlError, match="before its time limit of 5 steps"):
        replay.state(0)
    assert replay.state(1)["outcome"].shape == (12, 3)


def test_rows_that_do_not_follow_each_other_are_refused_by_the_layout_that_needs_it() -> None:
    replay = filled(10, numbered(4))
    assert moved(replay, CompiledReplay, 10).size.item() == 4
    with pytest.raises(DstrlError, match=r"do not follow each other.*replay_device=cpu"):
        moved(replay, once, 10)
