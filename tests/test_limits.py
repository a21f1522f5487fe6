"""Limits on the inputs of neurons: selections by hand, and what holds over random layers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_samples import one
from torch import Tensor

from dstrl_cli.config.limits import at_most, by_layer
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.topology import masks
from dstrl_cli.topology.limits import (
    AtMost,
    AtMostTimes,
    Constant,
    Limit,
    NOfM,
    layer_limit,
)

Rows = list[list[float]]
"""A layer as one row of weights a neuron, [out, in], as papers print it."""


def rewired(
    weights: Rows, growth: Rows, count: int, limit: Limit | None, **keys: bool
) -> tuple[list[str], int, int]:
    """Return the new mask, a row of digits for each neuron, and what was dropped and grown."""
    weight, grow = (torch.tensor(rows).float().T[None, None] for rows in (weights, growth))
    found = masks.rewire(
        weight != 0,
        weight.abs(),
        grow.abs(),
        torch.tensor([[count]]),
        limit=limit,
        **({"regrow_dropped": True} | keys),  # type: ignore[arg-type]
    )
    rows = found.mask[0, 0].T.int().tolist()
    return ["".join(map(str, row)) for row in rows], found.dropped.item(), found.grown.item()  # type: ignore[return-value]


# --- bounds by hand -------------------------------------------------------------------------------


def bounds(limit: Limit, target: int, inputs: int, outputs: int) -> tuple[list[int], list[int]]:
    least, most = limit.bounds(torch.tensor([[target]]), inputs, outputs)
    return least[0, 0].tolist(), most[0, 0].tolist()


def test_bounds_by_hand() -> None:
    assert bounds(Constant(), 8, 4, 3) == ([2, 2, 2], [3, 3, 3])
    assert bounds(Constant(), 2, 4, 3) == ([0, 0, 0], [1, 1, 1])  # fewer than neurons
    assert bounds(Constant(), 12, 4, 3) == ([4, 4, 4], [4, 4, 4])
    assert bounds(AtMost(3), 8, 4, 3) == ([0, 0, 0], [3, 3, 3])
    assert bounds(AtMost(3), 12, 4, 3)[1] == [4, 4, 4]  # fully dense: exempt
    assert bounds(AtMostTimes(2), 5, 4, 3)[1] == [3, 3, 3]  # 2 * 5/3 = 3.33
    assert bounds(AtMostTimes(2), 1, 4, 3)[1] == [1, 1, 1]  # 2 * 1/3 would leave no place
    assert bounds(AtMostTimes(2), 9, 4, 3)[1] == [4, 4, 4]  # no more than there are inputs
    assert bounds(AtMostTimes(1.5), 8, 4, 2)[1] == [4, 4]
    assert bounds(NOfM(1, 2), 6, 4, 3) == ([1] * 6, [1] * 6)
    # 1.1 * 10 is 11.000000000000002 in floating point, 1.15 * 20 is 22.999999999999996
    assert bounds(AtMostTimes(1.15), 40, 40, 2)[1] == [23, 23]


def test_neurons_that_were_given_up_have_no_inputs() -> None:
    alive = torch.tensor([[[True, False, True, True]]])
    least, most = Constant(0.3).bounds(torch.tensor([[8]]), 4, 4, alive)
    assert (least.tolist(), most.tolist()) == ([[[2, 0, 2, 2]]], [[[3, 0, 3, 3]]])


def test_a_layer_has_the_limit_that_its_rule_says() -> None:
    def limit(layer: int = 0, outputs: int = 8, **keys: object) -> Limit | None:
        return layer_limit(TopologyConfig(**keys), 8, outputs, layer, 3)

    assert limit() is None
    assert limit(fan_in="constant") == Constant(None)
    assert limit(fan_in="constant", ablate_below=0.3) == Constant(0.3)
    assert limit(2, fan_in="constant", ablate_below=0.3) == Constant(None)  # a head is kept
    assert limit(2, outputs=1, fan_in="constant") is None
    assert limit(fan_in="at_most:5") == AtMost(5)
    assert limit(fan_in="at_most:2x") == AtMostTimes(2)
    assert limit(n_of_m="2:4") == NOfM(2, 4)
    assert limit(2, outputs=1, n_of_m="2:4") == NOfM(2, 4)
    several = ("1:1", "2:4", "1:8")
    assert [limit(layer, n_of_m=several) for layer in range(3)] == [None, NOfM(2, 4), NOfM(1, 8)]


@pytest.mark.parametrize(
    "text", ["at_most:0", "at_most:1.5", "at_most:0.5x", "at_most:", "at_most:-3", "even", "2x"]
)
def test_a_fan_in_is_written_in_one_of_four_ways(text: str) -> None:
    with pytest.raises(ValueError, match="must be free, constant, at_most:K"):
        at_most(text)
    assert at_most("at_most:1.5x") == (1.5, True)


@pytest.mark.parametrize("text", ["0:4", "5:4", "2/4", "2:", "2:4:8", ""])
def test_n_of_m_is_two_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="must be N:M"):
        by_layer(text, 1)


# --- rewiring by hand -----------------------------------------------------------------------------

LASBY: Rows = [[0.9, 0, -0.5, 0], [0, 0.8, 0, 0.1], [-0.05, 0, 0, 0.02], [0.7, -0.6, 0, 0]]
SLOPES_A: Rows = [
    [0.1, 0.2, 0.3, 0.15],
    [0.9, 0.1, 0.2, 0.3],
    [0.05, 0.4, 0.35, 0.25],
    [0.2, 0.1, 0.8, 0.6],
]
SLOPES_B: Rows = [SLOPES_A[0], [0.9, 0.1, 0.2, 0.35], [0.05, 0.04, 0.035, 0.025], SLOPES_A[3]]


def test_srigl_by_hand_as_its_authors_code_does_it() -> None:
    # of 8, .9 .8 .7 .6 stay; with the four largest gradients every neuron has a salient one, and
    # is filled up to two: the dropped -.5 returns, since .3 is its neuron's largest gradient
    found = rewired(LASBY, SLOPES_A, 4, Constant(0.3))
    assert found == (["1010", "1100", "0110", "1100"], 3, 3)


def test_a_neuron_without_a_salient_connection_is_given_up_by_hand() -> None:
    # the gradients .9 .8 .6 .35 and the weights .9 .8 .7 .6 leave the third neuron nothing. The
    # others get 8 // 3 = 2 each, and the two that are left (the authors lose them) go to the
    # largest next gradients, .8 and .35
    found = rewired(LASBY, SLOPES_B, 4, Constant(0.3))
    assert found == (["1010", "1101", "0000", "1110"], 2, 2)


def test_a_neuron_that_was_given_up_can_return() -> None:
    after: Rows = [[0.9, 0, 0.3, 0], [0.4, 0.8, 0, 0.1], [0, 0, 0, 0], [0.7, -0.6, 0.2, 0]]
    slopes: Rows = [SLOPES_B[0], [0.5, 0.1, 0.2, 0.35], [2.0, 1.0, 0.035, 0.025], SLOPES_B[3]]
    # of 8, .9 .8 .7 .6 stay, and the gradients 2 1 .8 .6 lie in the third and fourth neuron
    found = rewired(after, slopes, 4, Constant(0.3))
    assert found == (["1010", "1100", "1100", "1100"], 2, 2)


def test_so_many_neurons_live_that_all_connections_fit() -> None:
    weights: Rows = [[5, 6, 7, 8], [1, 2, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    slopes: Rows = [[9, 9, 0, 0], [8, 1, 1, 1], [0.1, 0.1, 0, 0], [0, 0, 0, 0]]
    # four salient connections are asked for, which the first neuron alone has; seven connections
    # need two neurons. The second best has one, so one is enough, and the other two stay empty
    found = rewired(weights, slopes, 3, Constant(4))
    assert found == (["1111", "1110", "0000", "0000"], 0, 0)


def test_growth_ranks_within_a_neuron_at_constant_fan_in_by_hand() -> None:
    weights: Rows = [[1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 0, 0]]
    growth: Rows = [[0, 0, 0.1, 0.2], [0, 0, 9, 8], [0, 0, 7, 6]]
    # 1 and 2 go, and although 9 and 8 are larger, .2 and .1 come in their neuron
    assert rewired(weights, growth, 2, Constant()) == (["0011", "1100", "1100"], 2, 2)
    assert rewired(weights, growth, 2, None) == (["0000", "1111", "1100"], 2, 2)


def test_growth_skips_full_neurons_by_hand() -> None:
    weights: Rows = [[1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 0, 0]]
    growth: Rows = [[0, 0, 0.1, 0.2], [0, 0, 9, 8], [0, 0, 7, 6]]
    # 1 and 2 go; 9 fills the second neuron, so that 7 comes instead of 8
    assert rewired(weights, growth, 2, AtMost(3)) == (["0000", "1110", "1110"], 2, 2)
    # at most two: both others are full
    assert rewired(weights, growth, 2, AtMost(2)) == (["0011", "1100", "1100"], 2, 2)
    assert rewired(weights, growth, 2, AtMost(4)) == rewired(weights, growth, 2, None)


def test_what_was_dropped_comes_back_only_where_its_neuron_has_no_other_place() -> None:
    weights: Rows = [[1, 2, 3, 0], [4, 5, 6, 0]]
    growth: Rows = [[9, 8, 0, 0.1], [0, 0, 0, 7]]
    # 1 and 2 go. Their neuron has one new place for two, and takes 9 back
    found = rewired(weights, growth, 2, Constant(), regrow_dropped=False)
    assert found == (["1011", "1110"], 1, 1)
    assert rewired(weights, growth, 2, Constant()) == (["1110", "1110"], 0, 0)
    # where the limit leaves a place elsewhere, nothing comes back: 7 and .1 come
    assert rewired(weights, growth, 2, AtMost(4), regrow_dropped=False) == (["0011", "1111"], 2, 2)


def test_swaps_stay_inside_groups_by_hand() -> None:
    weights: Rows = [[4, 3, 0, 0, 1, 2, 0, 0], [0, 6, 0, 5, 0, 0, 8, 7]]
    growth: Rows = [[0, 0, 0.2, 0.1, 0, 0, 0.3, 0.4], [9, 0, 8, 0, 0.5, 0.6, 0, 0]]
    # 1 and 2 are the lowest of the layer, but of every group the lowest goes first: 1 and 3; their
    # groups grow .4 and .2, although 9 and 8 are larger
    found = rewired(weights, growth, 2, NOfM(2, 4))
    assert found == (["10100101", "01010011"], 2, 2)
    # all four lowest: 1 3 5 7; now the other groups grow, too
    assert rewired(weights, growth, 4, NOfM(2, 4)) == (["10100101", "11000110"], 4, 4)
    # two of a group only after one of each: 1 3 5 7, then 2
    assert rewired(weights, growth, 5, NOfM(2, 4)) == (["10100011", "11000110"], 5, 5)


# --- first masks ----------------------------------------------------------------------------------


def test_a_first_mask_is_fitted_by_hand() -> None:
    drawn = torch.tensor(
        [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]], dtype=torch.bool
    )  # [in, out]
    numbers = torch.tensor([[0.9, 0.0, 0.5], [0.1, 0.3, 0.4], [0.2, 0.2, 0.3], [0.3, 0.1, 0.8]])
    # six over three neurons: of the first stay .1 and .2, the others get .1 and .3
    found = masks.fitted(drawn, Constant(), numbers).int().tolist()
    assert found == [[0, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 1]]
    assert torch.equal(masks.fitted(drawn, AtMost(4), numbers), drawn)
    # at most three: the first loses .9, and of all others .1 comes
    found = masks.fitted(drawn, AtMost(3), numbers).int().tolist()
    assert found == [[0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]]


# --- over random layers ---------------------------------------------------------------------------

Layer = tuple[Limit, dict[str, Tensor]]


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A limit and a layer that meets it, with scores, swaps and a target that it can meet."""
    members, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    inputs, outputs = draw(st.integers(1, 6)), draw(st.integers(2, 6))
    g = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    most = draw(st.integers(1, inputs))
    m = draw(st.sampled_from([each for each in range(1, inputs + 1) if inputs % each == 0]))
    n_of_m = NOfM(draw(st.integers(1, m)), m)
    choices: list[Limit] = [Constant(), Constant(0.3), Constant(2), AtMost(most), AtMostTimes(2)]
    limit = draw(st.sampled_from([*choices, AtMostTimes(1.0), n_of_m]))
    size = inputs * outputs
    largest = most * outputs if isinstance(limit, AtMost) else size

    def target() -> Tensor:
        if isinstance(limit, NOfM):
            return torch.full((members, heads), limit.n * size // limit.m)
        return torch.randint(1, largest + 1, (members, heads), generator=g)

    def scores() -> Tensor:
        return torch.randint(levels, (members, heads, inputs, outputs), generator=g).float()

    levels = draw(st.sampled_from([3, 1000]))  # few levels: many ties
    first = target()
    drawn = (torch.rand(members, heads, size, generator=g).argsort(-1) < first[..., None]).view(
        members, heads, inputs, outputs
    )
    numbers = torch.rand(inputs, outputs, generator=g)
    fitted = [[masks.fitted(head, limit, numbers) for head in member] for member in drawn]
    mask = torch.stack([torch.stack(member) for member in fitted])
    moves = draw(st.booleans())
    return limit, {
        "mask": mask,
        "drop_score": scores(),
        "grow_score": scores(),
        "count": torch.randint(0, size + 1, (members, heads), generator=g),
        "target": target() if moves else first,
    }


def rewire_layer(limit: Limit, layer: dict[str, Tensor], regrow_dropped: bool) -> masks.Rewired:
    return masks.rewire(**layer, regrow_dropped=regrow_dropped, limit=limit)  # type: ignore[arg-type]


def meets(limit: Limit, mask: Tensor) -> bool:
    """Whether a mask [M, K, in, out] is within a limit; its own count is the target."""
    inputs, outputs = mask.shape[-2:]
    fan_in, target = mask.sum(-2), mask.sum((-2, -1))  # [M, K, out], [M, K]
    if isinstance(limit, Constant):
        if limit.ablate_below is None:
            return bool((fan_in.amax(-1) - fan_in.amin(-1) <= 1).all())
        alive = fan_in.masked_fill(fan_in == 0, inputs + 1)
        return bool((fan_in.amax(-1) - alive.amin(-1) <= 1).all())
    if isinstance(limit, NOfM):
        return bool((mask.unflatten(-2, (-1, limit.m)).sum(-2) == limit.n).all())
    if isinstance(limit, AtMostTimes):
        allowed = (limit.times * target / outputs).floor().maximum((target / outputs).ceil())
        return bool((fan_in <= allowed.unsqueeze(-1)).all())
    assert isinstance(limit, AtMost)
    return bool(((fan_in <= limit.most).all(-1) | (target == inputs * outputs)).all())


@given(layers(), st.booleans())
@settings(max_examples=120, deadline=None)
def test_counts_are_exact_and_limits_hold(drawn: Layer, regrow_dropped: bool) -> None:
    limit, layer = drawn
    assert meets(limit, layer["mask"])
    found = rewire_layer(limit, layer, regrow_dropped)
    old, new = layer["mask"], found.mask
    assert torch.equal(new.sum((-2, -1)), layer["target"])
    assert meets(limit, new)
    assert torch.equal((old & ~new).sum((-2, -1)), found.dropped)
    assert torch.equal((new & ~old).sum((-2, -1)), found.grown)


@given(layers(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_layer_that_swaps_nothing_stays_as_it_is(drawn: Layer, regrow_dropped: bool) -> None:
    limit, layer = drawn
    old = layer["mask"]
    layer["target"], layer["count"] = old.sum((-2, -1)), torch.zeros_like(layer["count"])
    limit = Constant() if isinstance(limit, Constant) else limit
    assert torch.equal(rewire_layer(limit, layer, regrow_dropped).mask, old)


@given(layers())
@settings(max_examples=50, deadline=None)
def test_no_more_is_exchanged_than_was_asked_for(drawn: Layer) -> None:
    limit, layer = drawn
    if isinstance(limit, Constant):
        limit = Constant()
    layer["target"] = layer["mask"].sum((-2, -1))
    found = rewire_layer(limit, layer, True)
    assert torch.equal(found.dropped, found.grown)
    assert (found.dropped <= layer["count"]).all()


@given(layers(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_members_are_rewired_as_if_alone(drawn: Layer, regrow_dropped: bool) -> None:
    limit, layer = drawn
    together = rewire_layer(limit, layer, regrow_dropped)
    for member in range(len(layer["mask"])):
        part = {name: value[member : member + 1] for name, value in layer.items()}
        alone = rewire_layer(limit, part, regrow_dropped)
        assert torch.equal(alone.mask[0], together.mask[member])


@given(layers())
@settings(max_examples=50, deadline=None)
def test_a_limit_that_allows_everything_changes_nothing(drawn: Layer) -> None:
    _, layer = drawn
    inputs, outputs = layer["mask"].shape[-2:]
    limit = AtMostTimes(float(inputs * outputs))
    one_way = rewire_layer(limit, layer, True)
    other = masks.rewire(**layer, regrow_dropped=True)  # type: ignore[arg-type]
    assert torch.equal(one_way.mask, other.mask)


def test_dropping_alone_keeps_the_limit() -> None:
    mask = torch.tensor([[True] * 4] * 3)[None, None]  # four neurons of three inputs
    mask[0, 0, 0] = False
    found = masks.rewire(
        mask,
        one([[0.0] * 4, [1.0, 2, 3, 4], [5.0, 6, 7, 8]]),
        torch.zeros(1, 1, 3, 4),
        torch.tensor([[3]]),
        regrow_dropped=True,
        grow=False,
        limit=Constant(),
    )
    # of eight, three go: one of each of three neurons, the lowest
    assert found.mask[0, 0].int().tolist() == [[0] * 4, [0, 0, 0, 1], [1] * 4]
    assert (found.dropped.item(), found.grown.item()) == (3, 0)
