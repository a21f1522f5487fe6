"""How many transitions a buffer holds: rings, limits, the oldest, and the dynamic capacity."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from replay_samples import GAMMA, Row, filled, numbered

from dstrl_cli.config.parse import from_dict
from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.capacity import DISTANCES, CapacityControl
from dstrl_cli.replay.compiled import CompiledReplay
from dstrl_cli.replay.paired import PairedReplay

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
    [
        (99, 0.1, 90),
        (100, 0.1, 90),
        (101, 0.1, 91),
        (9, 0.1, 9),
        (10, 0.5, 5),
        (100, 0.7, 30),
        (100, 0.29, 71),
    ],
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
    replay.add(Transition(zero + 10, zero, zero[0], zero, no, no))
    assert replay.size.tolist() == [[6]]
    assert [int(s) for s in replay.oldest(6)[0].flatten()] == [5, 6, 7, 8, 9, 10]


def test_oldest_repeats_the_newest_where_a_member_holds_fewer() -> None:
    observation, action, policy_action = filled(5, numbered(3)).oldest(5)
    assert observation.flatten().tolist() == [0, 1, 2, 2, 2]
    assert torch.equal(action, -observation)
    assert torch.equal(policy_action, action)  # not kept apart: the action itself


@pytest.mark.parametrize("kind", [PairedReplay, CompiledReplay])
def test_noise_free_actions_are_kept_where_asked_for(kind: type[Replay]) -> None:
    replay = kind(1, 4, 1, 2, GAMMA, policy_actions=True)
    no = torch.zeros(1, dtype=torch.bool)
    action, policy_action = torch.tensor([[0.5, -0.5]]), torch.tensor([[0.4, -0.2]])
    replay.add(
        Transition(
            torch.zeros(1, 1), action, torch.zeros(1), torch.zeros(1, 1), no, no, policy_action
        )
    )
    _, stored, free = replay.oldest(1)
    assert torch.equal(stored[:, 0], action)
    assert torch.equal(free[:, 0], policy_action)


def test_buffers_shrink_at_each_members_own_checks_and_bounds() -> None:
    keys: list[dict[str, Any]] = [
        {"dynamic": False},
        {"check_interval": 10},  # moved, and large enough
        {"check_interval": 15},  # another time
        {"check_interval": 10, "min_size": 40},  # too small to shrink
        {"check_interval": 10, "distance_threshold": 0.6},  # not moved enough
        {"check_interval": 10, "distance": "l2", "distance_threshold": 0.6},  # moved in this sense
    ]
    shared = {"dynamic": True, "min_size": 39, "check_batches": 1, "shrink": 0.25}
    runs = [
        from_dict(
            {"algo": "td3", "method": "any", "env": "Any-v0", "batch_size": 8}
            | {"buffer": shared | own}
        )
        for own in keys
    ]
    replay = PairedReplay(len(runs), 100, 1, 1, 0.99, policy_actions=True)
    zero, no = torch.zeros(len(runs), 1), torch.zeros(len(runs), dtype=torch.bool)
    for _ in range(40):
        replay.add(Transition(zero, zero + 1, zero[:, 0], zero, no, no, policy_action=zero + 1))
    control = CapacityControl(runs, "cpu")
    measured = control.check(20, replay, lambda observation: torch.zeros_like(observation))
    assert replay.size.flatten().tolist() == [40, 30, 40, 40, 40, 30]
    assert measured == {1: 0.5, 3: 0.5, 4: 0.5, 5: 1.0}
    assert control.check(21, replay, lambda observation: observation) == {}


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


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_refuses_actions_without_a_batch(name: str) -> None:
    actions = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"now must be \[P, B, act\], not of shape \[2, 3\]"):
        DISTANCES[name](actions, actions, actions)
