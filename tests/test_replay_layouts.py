"""The layouts of a buffer: which is made where, its bytes, and that all give the same batches."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from population_samples import member
from replay_samples import GAMMA, Row, filled, histories, numbered
from torch import Tensor

from dstrl_cli.config.parse import from_dict
from dstrl_cli.envs import spec
from dstrl_cli.errors import InputError
from dstrl_cli.replay import choice
from dstrl_cli.replay.choice import check_memory
from dstrl_cli.replay.layout import ring_bytes
from dstrl_cli.replay.once import OnceReplay
from dstrl_cli.replay.paired import PairedReplay

SPEC = spec("Pendulum-v1")  # 3 observations, 1 action, 200 steps an episode


@pytest.mark.parametrize(
    ("device", "time_limit", "engine", "expected"),
    [
        ("cpu", 1000, "sparse", "compiled"),
        ("cpu", 1000, "masked", "paired"),
        ("cuda:0", 1000, "masked", "once"),
        ("cuda:0", None, "masked", "paired"),  # nothing bounds how many episodes are truncated
    ],
)
def test_which_layout_is_chosen_where(
    device: str, time_limit: int | None, engine: str, expected: str
) -> None:
    assert choice.layout(device, time_limit, engine) == expected


@pytest.mark.parametrize(("name", "path"), choice.LAYOUTS.items())
def test_the_buffer_is_as_large_as_the_largest_member_needs(
    name: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "layout", lambda *_: name)
    run = member("td3", "sst", 0)
    sizes = [{"buffer_size": 300, "steps": 9000}, {"buffer_size": 9000, "steps": 500}]
    made = choice.make_replay([run.model_copy(update=each) for each in sizes], SPEC, "cpu")
    assert f"{type(made).__module__}:{type(made).__name__}" == path
    assert made.state_action.shape == (2, 500, 4)
    assert made.policy_action is made.action  # no buffer is dynamic
    if isinstance(made, OnceReplay):
        assert made.ends.shape == (2, 500 // 200 + 2, 3)


@pytest.mark.parametrize("distance", ["mean_squared", "l2"])
def test_noise_free_actions_are_kept_where_a_distance_compares_with_them(distance: str) -> None:
    buffer = {"dynamic": True, "distance": distance}
    run = from_dict({"algo": "td3", "method": "any", "env": "Any-v0", "buffer": buffer, "steps": 9})
    made = choice.make_replay([run], SPEC, "cpu")
    assert (made.policy_action is not made.action) == (distance == "mean_squared")


def test_where_the_buffer_lies() -> None:
    run = member("td3", "sst", 0)
    on_host = run.model_copy(update={"replay_device": "cpu"})
    assert not choice.is_on_host(run, "cuda:0")
    assert choice.is_on_host(on_host, "cuda:0")
    assert not choice.is_on_host(on_host, "cpu")


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy_actions", [False, True])
@pytest.mark.parametrize("kind", [PairedReplay, functools.partial(OnceReplay, time_limit=10)])
def test_the_bytes_of_a_buffer_are_those_of_its_rings(kind: Any, policy_actions: bool) -> None:
    time_limit = kind.keywords["time_limit"] if isinstance(kind, functools.partial) else None
    replay = kind(3, 50, 7, 2, GAMMA, policy_actions=policy_actions)
    rings = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in vars(replay).values()
        if isinstance(tensor, Tensor) and tensor.dim() == 3
    }
    assert sum(rings.values()) == 3 * ring_bytes(50, 7, 2, policy_actions, time_limit)


# --- every observation once -----------------------------------------------------------------------


@given(histories(), st.integers(0, 1000), st.lists(st.integers(1, 30), min_size=3, max_size=3))
@settings(max_examples=120, deadline=None)
def test_observations_stored_once_give_the_same_batches(
    history: tuple[int, list[list[Row]], list[int]], seed: int, limits: list[int]
) -> None:
    capacity, members, nsteps = history
    once = functools.partial(OnceReplay, time_limit=1)
    twice, replay = (
        filled(capacity, *members, kind=kind, chained=True) for kind in (PairedReplay, once)
    )
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
    once = functools.partial(OnceReplay, time_limit=3)
    replay = filled(10, rows, kind=once, chained=True)
    ends = replay.size.item() // 3 + 1
    assert replay.ends.shape[1] == 10 // 3 + 2  # type: ignore[attr-defined]
    batch = replay.sample(torch.linspace(0, 0.999, 32).double().unsqueeze(0), torch.ones(1, 1), 1)
    number = batch.observation
    at_limit = number % 3 == 2
    assert len(number[at_limit].unique()) in (ends - 1, ends)
    assert torch.equal(batch.next_observation, number + torch.where(at_limit, 0.5, 1.0))
    assert not replay.cut_early.any()  # type: ignore[attr-defined]


def test_an_episode_cut_before_the_time_limit_is_noticed() -> None:
    early = numbered(12, {2: "limit", 8: "limit", 10: "limit"})
    falls = numbered(12, {2: "fall", 8: "fall", 10: "fall"})
    once = functools.partial(OnceReplay, time_limit=5)
    replay = filled(20, early, falls, kind=once, chained=True)
    assert replay.cut_early.tolist() == [True, False]  # type: ignore[attr-defined]
    late = numbered(12, {2: "limit", 7: "limit"})  # the first episode may have begun before
    replay = filled(20, late, kind=once, chained=True)
    assert replay.cut_early.tolist() == [False]  # type: ignore[attr-defined]


def test_a_buffer_that_does_not_fit_is_refused_with_the_sizes() -> None:
    check_memory(80 * 10**9, 80 * 10**9, 30, 10**6, "cuda:0")
    with pytest.raises(InputError) as refused:
        check_memory(93_120_000_000, 80 * 10**9, 30, 10**6, "cuda:0")
    for part in ("30 members x 1,000,000", "93.1 GB", "80.0 GB", "cuda:0", "replay_device=cpu"):
        assert part in str(refused.value)
