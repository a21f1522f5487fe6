"""What scores keep between updates: taken apart by member, and put together again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from outside_samples import Hoarder
from state_samples import STOPS, Trainee, assert_equal_states, config
from torch import Tensor

from dstrl_cli.errors import DstrlError
from dstrl_cli.runs.checkpoint import read_state, write_state
from dstrl_cli.topology.rule import Rule, Score

HOARDS = ("actor.topology.drop=outside_samples:Hoarder",)


def hoarders(trainee: Trainee) -> list[Hoarder]:
    """The score of every rule of the actor."""
    found = [group.rule.drop for group in trainee.algorithm.actor.groups]
    assert all(isinstance(each, Hoarder) for each in found)
    return found  # type: ignore[return-value]


def test_a_score_of_somebody_else_goes_on_with_all_that_it_kept(tmp_path: Path) -> None:
    run = config("rigl", sets=HOARDS)
    left_alone = Trainee([run], "masked").train(STOPS[0])
    stopped = Trainee([run], "masked").resume([left_alone.state(0, tmp_path)])
    (mine,), (theirs,) = hoarders(stopped), hoarders(left_alone)
    assert mine.seen == theirs.seen > 0
    assert mine.magnitude is Tensor.abs
    assert isinstance(mine.smooth, list)
    assert all(map(torch.equal, mine.smooth, theirs.smooth))
    assert list(mine.kept) == ["pairs", 3, "empty", "total", "layers"]
    assert (mine.kept["pairs"], mine.kept[3], mine.kept["empty"]) == (
        (1, 0.5, None),
        ["a", True],
        {},
    )
    assert torch.equal(mine.kept["layers"][0], torch.arange(7))
    assert torch.equal(mine.kept["layers"][1]["deep"][0], theirs.kept["total"] / 2)
    for each in (stopped, left_alone):
        each.train()
    assert_equal_states(stopped.algorithm.state(0), left_alone.algorithm.state(0))


def test_what_belongs_to_members_goes_with_them(tmp_path: Path) -> None:
    runs = [config("rigl", seed=seed, sets=HOARDS) for seed in range(3)]
    trainee = Trainee(runs, "masked").train(STOPS[0])
    states = [trainee.state(member, tmp_path) for member in (2, 0)]
    pair = Trainee([runs[2], runs[0]], "masked").resume(states)
    (before,), (after,) = hoarders(trainee), hoarders(pair)
    for ours, theirs in zip(after.smooth, before.smooth, strict=True):
        assert torch.equal(ours, theirs[[2, 0]])
    assert torch.equal(after.kept["total"], before.kept["total"][[2, 0]])
    assert torch.equal(after.kept["layers"][0], torch.arange(7))  # common to all members
    assert pair.train().algorithm.alive.all()


# --- what cannot be kept, and what cannot be joined -----------------------------------------------


class Holding(Score):
    """Keeps one thing."""

    def __init__(self, held: Any) -> None:
        self.held = held


def rule_with(held: Any) -> Rule:
    rule = Rule(config("rigl").actor.topology, 100)
    rule.scores = (Holding(held),)
    return rule


class Name(str):
    """Text, but of a type of somebody's own."""


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (torch.Generator(), "Generator"),
        ([1, {"deep": {1, 2}}], "set"),
        ({(1, 2): 3}, "dict"),
        (Name("a"), "Name"),
        (torch.ones(3, dtype=torch.float16), r"Tensor of torch\.float16"),
        ([lambda: 0], "function"),
    ],
)
def test_what_cannot_be_kept_is_named(held: Any, kind: str) -> None:
    with pytest.raises(DstrlError, match=f"drop = 'magnitude': its attribute 'held' .* a {kind};"):
        rule_with(held).state(0, 1)


def test_an_open_file_is_named_and_closed_by_nobody(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        with pytest.raises(
            DstrlError, match=r"'held' cannot be put into a checkpoint.* a TextIOWrapper;"
        ):
            rule_with([file]).state(0, 1)
        assert not file.closed


class Reopening(Holding):
    """Says itself what is kept of a file: how far it was written."""

    def state(self) -> dict[str, Any]:
        return {"position": self.held.tell()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.held.seek(state["position"])


def test_a_score_may_say_itself_what_is_kept(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("abcdef")
    rule = rule_with(None)
    with (tmp_path / "log").open() as file:
        rule.scores = (Reopening(file),)
        file.read(4)
        state = rule.state(0, 1)
        file.seek(0)
        rule.set_state([state], "cpu")
        assert file.read() == "ef"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ([1, 2], [1]),
        ([torch.ones(4)], [torch.ones(4), torch.ones(4)]),
        ({"a": 1}, {"b": 1}),
        (torch.ones(4), torch.zeros(4)),
        (torch.ones(4), None),
        (None, torch.ones(4)),
        ((1, 2), [1, 2]),
    ],
)
def test_runs_that_differ_in_what_is_common_are_not_joined(one: Any, other: Any) -> None:
    states = [rule_with(held).state(0, 1) for held in (one, other)]
    with pytest.raises(DstrlError, match=r"drop = 'magnitude': its attribute 'held' .*one by one"):
        rule_with(None).set_state(states, "cpu")


@pytest.mark.parametrize(
    "held", [float("nan"), torch.tensor([float("nan"), 1.0, 2.0]), torch.tensor(3), [], (), {}]
)
def test_what_is_common_and_the_same_is_joined(held: Any, tmp_path: Path) -> None:
    states = []
    for _ in range(2):
        write_state(tmp_path, rule_with(held).state(0, 1))
        states.append(read_state(tmp_path))
    rule = rule_with(None)
    rule.set_state(states, "cpu")
    (score,) = rule.scores
    assert isinstance(score, Holding)
    assert type(score.held) is type(held)
    assert repr(score.held) == repr(held)
