"""The buffer of compiled code: every observation once, and slots for those that no row holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compiled_samples import OBS, config, learner
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_samples import GAMMA, Row, add, at_age, filled, numbered, target

from dstrl_cli.algos.compiled import shared
from dstrl_cli.envs.base import Step
from dstrl_cli.replay.base import Transition
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.layout import FLOAT, ring_bytes
from dstrl_cli.replay.paired import PairedReplay
from dstrl_cli.runs.checkpoint import Pieces


def chained(capacity: int, count: int, ends: dict[int, str] | None = None) -> CompiledReplay:
    """Rows 0, 1, ... of episodes that follow each other but for `ends`; see `replay_samples`."""
    replay = filled(capacity, numbered(count, ends), kind=CompiledReplay, chained=True)
    assert isinstance(replay, CompiledReplay)
    return replay


def following(replay: CompiledReplay) -> dict[float, float]:
    """Return the next observation of every observation that is stored."""
    size = int(replay.size)
    batches = [at_age(replay, age, 1) for age in range(size)]
    return {float(each.observation): float(each.next_observation) for each in batches}


# --- where next observations are ------------------------------------------------------------------


def test_only_ends_and_the_newest_two_rows_have_a_slot() -> None:
    replay = chained(10, 7, {1: "fall", 3: "limit"})
    assert (replay.slots[0] > 0).tolist() == [False, True, False, True, False, True, True] + 3 * [
        False
    ]
    assert replay.live.tolist() == [[4]]
    assert following(replay) == {0: 1, 1: 1.5, 2: 3, 3: 3.5, 4: 5, 5: 6, 6: 7}


def test_what_follows_the_last_row_of_the_ring_is_in_its_first() -> None:
    replay = chained(5, 8)  # rows 5 6 7 3 4
    assert replay.slots[0].astype(bool).tolist() == [False, True, True, False, False]
    assert following(replay) == {3: 4, 4: 5, 5: 6, 6: 7, 7: 8}
    assert target(at_age(replay, 0, 3)) == (8 + 16 / 2 + 32 / 4, 0.125, 6.0, 2)


@pytest.mark.parametrize(("end", "discount"), [("fall", 0.0), ("limit", 0.5)])
@pytest.mark.parametrize("at", [4, 5])  # the last row of the ring, and the first
def test_an_end_at_the_wrap_keeps_its_observation(at: int, end: str, discount: float) -> None:
    replay = chained(5, 8, {at: end})
    assert following(replay) == {3: 4, 4: 5, 5: 6, 6: 7, 7: 8} | {at: at + 0.5}
    assert target(at_age(replay, at - 3, 3)) == (2.0**at, discount, at + 0.5, 0)


def test_slots_of_rows_that_were_overwritten_are_used_again() -> None:
    ends = dict.fromkeys(range(3, 1000, 4), "limit")
    replay = filled(20, [Row(i, 1.0, truncated=i in ends) for i in range(1000)],
                    kind=CompiledReplay, chained=True)  # fmt: skip
    assert isinstance(replay, CompiledReplay)
    assert replay.live == np.count_nonzero(replay.slots) == 20 // 4 + 1
    assert replay.slots.max() <= 20 // 4 + 2  # as many as were ever in use at once
    expected = {i: i + (0.5 if i in ends else 1) for i in range(980, 1000)}
    assert following(replay) == expected


@pytest.mark.parametrize("capacity", [1, 2, 3, 7])
def test_an_environment_whose_observations_never_follow_each_other_has_a_slot_for_all(
    capacity: int,
) -> None:
    replay = filled(capacity, numbered(20), kind=CompiledReplay)
    assert isinstance(replay, CompiledReplay)
    assert following(replay) == {i: i + 0.5 for i in range(20 - capacity, 20)}
    assert sorted(replay.slots[0]) == list(range(1, capacity + 1))


def test_observations_are_compared_bit_by_bit() -> None:
    replay = CompiledReplay(1, 8, 1, 1, GAMMA)
    no = torch.tensor([False])
    for here, after in ((0.0, -0.0), (0.0, torch.nan), (torch.nan, 1.0), (1.0, 2.0), (2.0, 3.0)):
        seen, led = torch.tensor([[here]]), torch.tensor([[after]])
        replay.add(Transition(seen, seen, seen[0], led, no, no))
    # the first is not what follows it; the second is, NaN though it is
    assert replay.slots[0].astype(bool).tolist()[:5] == [True, False, False, True, True]
    assert torch.signbit(at_age(replay, 0, 1).next_observation).all()


def test_rows_that_were_forgotten_give_their_slots_back_when_they_are_overwritten() -> None:
    replay = filled(10, numbered(10), kind=CompiledReplay)
    assert isinstance(replay, CompiledReplay)
    replay.limit(torch.tensor([6]))
    replay.drop_oldest(torch.tensor([True]), 0.5)
    add(replay, [Row(i) for i in range(10, 20)], chained=True)
    assert replay.live == np.count_nonzero(replay.slots) == 2
    assert following(replay) == {i: i + 1 for i in range(10, 20)}


# --- against the layout that stores everything twice ----------------------------------------------


@st.composite
def steps(draw: st.DrawFn) -> list[list[tuple[float, float, str]]]:
    """What every member sees, where that leads, and how it ends; often it goes on from there."""
    members, count = draw(st.integers(1, 2)), draw(st.integers(1, 40))
    few = st.sampled_from([0.0, -0.0, 1.0])  # often the same again
    kind = st.sampled_from(["on", "on", "on", "jump", "fall", "limit"])
    here, found = [0.0] * members, []
    for _ in range(count):
        row = []
        for member in range(members):
            led, how = draw(few), draw(kind)
            row.append((here[member], led, how))
            here[member] = led if how == "on" else draw(few)
        found.append(row)
    return found


@given(steps(), st.integers(1, 9), st.integers(1, 4), st.data())
@settings(max_examples=150, deadline=None)
def test_batches_and_states_are_those_of_two_rings(
    history: list[list[tuple[float, float, str]]], capacity: int, n: int, data: st.DataObject
) -> None:
    members = len(history[0])
    pair: list[Any] = [
        kind(members, capacity, 1, 1, GAMMA) for kind in (PairedReplay, CompiledReplay)
    ]
    for number, row in enumerate(history):
        here, led = (torch.tensor([[each[i]] for each in row]) for i in (0, 1))
        ends = [torch.tensor([each[2] == how for each in row]) for how in ("fall", "limit")]
        happens = data.draw(st.sampled_from([""] * 6 + ["cut", "limit"]))
        for each in pair:
            each.add(
                Transition(here, here + number, torch.full((members,), 1.0 + number), led, *ends)
            )
            if happens == "cut":
                each.cut_newest(0)
            if happens == "limit":
                each.limit(torch.tensor([3] * members))
        numbers = torch.rand(
            members, 12, generator=torch.Generator().manual_seed(number), dtype=torch.float64
        )
        batches = [each.sample(numbers, torch.full((members, 1), n), n).tensors() for each in pair]
        assert all(
            a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(*batches, strict=True)
        )
        for member in range(members):
            assert_same_state(*(each.state(member) for each in pair))
    compiled = pair[1]
    assert (np.count_nonzero(compiled.slots, 1) == compiled.live[:, 0]).all()


def assert_same_state(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        parts = [each if isinstance(each, Pieces) else [each] for each in (value, other[key])]
        assert [a.tobytes() for a in parts[0]] == [a.tobytes() for a in parts[1]], key


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_that_was_written_from_two_rings_goes_on() -> None:
    ends = {1: "limit", 4: "limit"}
    state = {  # rows 0 to 4 of `numbered`
        "state_action": np.array([[0, 0], [1, -1], [2, -2], [3, -3], [4, -4]], np.float32),
        "outcome": np.array([[1, 1, 1], [2, 1, 0], [4, 1, 1], [8, 1, 1], [16, 1, 0]], np.float32),
        "breaks": np.array([1, 4]),
        "break_observations": np.array([[1.5], [4.5]], np.float32),
    }
    replay = chained(4, 11, {2: "fall", 9: "limit"})  # what was there before does not matter
    replay.set_state([state])
    assert following(replay) == {1: 1.5, 2: 3, 3: 4, 4: 4.5}
    assert replay.live == 2
    whole = chained(4, 5, ends)
    for count in range(5, 12):
        rows = numbered(12, ends)[count : count + 1]
        for each in (replay, whole):
            add(each, rows, chained=True)
        assert following(replay) == following(whole)


# --- an update that goes on while a transition is stored ------------------------------------------


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("stored", [60, 199, 200, 213, 400])  # not full, about to be, at the wrap
def test_storing_writes_nothing_that_an_update_reads_meanwhile(stored: int, ended: bool) -> None:
    run = config("td3", batch_size=2)
    trained = learner(run, True, 0)
    compiled, replay = trained.compiled, trained.replay
    assert compiled is not None
    assert isinstance(replay, CompiledReplay)
    no, seen = torch.tensor([False]), torch.zeros(1, OBS)
    for step in range(stored):
        end = torch.tensor([step % 13 == 12 or (ended and step == stored - 1)])
        led = torch.full((1, OBS), step + 1.0)
        action, reward = torch.zeros(1, 2), torch.zeros(1)
        after = -led if end else led  # another episode begins elsewhere
        trained.store(seen, action, Step(led, reward, no, end, after), action)
        seen = after
    row = compiled.row = shared.next_row(compiled.batch.address)  # as `start_early` does
    arrays = [array.view(np.int32) for array in (*replay.rings, replay.free, replay.live)]
    before, batches = [array.copy() for array in arrays], [older(replay)]
    trained.store(seen + 0.25, action, Step(led, reward, no, no, led), action)
    batches.append(older(replay))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))
    observed, ends, slots, outcomes, free, live = (
        set(np.argwhere(was != now)[:, 1].tolist()) for was, now in zip(before, arrays, strict=True)
    )
    assert observed == {row}
    assert ends == {replay.slots[0, row]}
    assert outcomes <= {row}
    assert not slots | free | live


def older(replay: CompiledReplay) -> list[torch.Tensor]:
    """Return all transitions but the newest, whose row may still be without it."""
    size = int(replay.size)
    ages = (torch.arange(size - 1).double() + 0.5) / size
    return replay.sample(ages.unsqueeze(0), torch.tensor([[1]]), 1).tensors()


# --- memory ---------------------------------------------------------------------------------------


def test_the_bytes_that_are_counted_are_those_of_its_rings() -> None:
    ends = dict.fromkeys(range(9, 10_000, 10), "limit")
    rows = [Row(i, truncated=i in ends) for i in range(1010)]
    replay = filled(1000, rows, kind=CompiledReplay, chained=True)
    assert isinstance(replay, CompiledReplay)
    rings = sum(ring.nbytes for ring in (replay.state_action.numpy(), replay.slots))
    rings += replay.outcome.numpy().nbytes
    held = rings + FLOAT * int(replay.slots.max())
    assert held == pytest.approx(ring_bytes(1000, 1, 1, False, 10), rel=0.001)
    assert ring_bytes(10**6, 17, 6, False) - ring_bytes(10**6, 17, 6, False, 1000) > 63.9e6
