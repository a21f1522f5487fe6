"""Buffers filled with rows whose numbers, rewards and ends the tests know by heart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from dstrl_cli.replay.base import Replay, Transition
from dstrl_cli.replay.batch import Batch
from dstrl_cli.replay.paired import PairedReplay

GAMMA = 0.5  # powers of two: sums are exact


@dataclass(frozen=True)
class Row:
    """One transition; its observation is its number, the next one is its number + 0.5."""

    number: int
    reward: float = 1.0
    terminated: bool = False
    truncated: bool = False


def filled(
    capacity: int, *members: list[Row], kind: Any = PairedReplay, chained: bool = False
) -> Replay:
    """A buffer with the rows of every member.

    With `chained`, as the layout `once` needs it, the next observation is that of the next row
    where no episode ended.
    """
    replay: Replay = kind(len(members), capacity, 1, 1, GAMMA)
    add(replay, *members, chained=chained)
    return replay


def add(replay: Replay, *members: list[Row], chained: bool = False) -> None:
    """Store the rows of every member; `chained` as in `filled`."""
    for rows in zip(*members, strict=True):
        number = torch.tensor([[float(row.number)] for row in rows])
        ended = torch.tensor([[row.terminated or row.truncated] for row in rows])
        replay.add(
            Transition(
                number,
                -number,
                torch.tensor([row.reward for row in rows]),
                number + torch.where(ended | (not chained), 0.5, 1.0),
                torch.tensor([row.terminated for row in rows]),
                torch.tensor([row.truncated for row in rows]),
            )
        )


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
