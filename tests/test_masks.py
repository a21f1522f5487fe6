"""Selection by rank and `rewire`, with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrl_cli.topology import masks


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- selection by rank ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "percent", [1, 5, 10, 29, 33, 35, 41, 47, 50, 57, 58, 69, 70, 82, 94, 99, 100]
)
def test_the_whole_part_of_a_product_is_never_one_short(percent: int) -> None:
    counts = torch.arange(1, 5000)
    expected = counts * percent // 100
    assert torch.equal(masks.whole_part(percent / 100, counts), expected)


def test_lowest_and_highest_take_each_row_by_its_own_count() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [9.0, 8.0, 7.0]])
    counts = torch.tensor([1, 2, 0])
    assert masks.lowest(scores, counts).int().tolist() == [[0, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert masks.highest(scores, counts).int().tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_ties_go_to_the_lower_index() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0, 2.0, 1.0]])
    assert masks.lowest(scores, torch.tensor([2])).int().tolist() == [[0, 1, 1, 0, 0]]
    assert masks.highest(scores, torch.tensor([1])).int().tolist() == [[1, 0, 0, 0, 0]]
    same = torch.zeros(1, 5000)
    assert masks.highest(same, torch.tensor([7]))[0].nonzero().flatten().tolist() == list(range(7))


def test_ties_go_to_the_lower_number_and_order_nothing_else() -> None:
    scores = torch.tensor([[2.0, 1.0, 1.0, 2.0, 1.0]])
    ties = torch.tensor([[0.5, 0.9, 0.2, 0.1, 0.4]])
    assert masks.ascending(scores, ties).tolist() == [[2, 4, 1, 3, 0]]
    assert masks.lowest(scores, torch.tensor([2]), ties).int().tolist() == [[0, 0, 1, 0, 1]]
    assert masks.highest(scores, torch.tensor([1]), ties).int().tolist() == [[0, 0, 0, 1, 0]]
    everyone = torch.ones(1, 5, dtype=torch.bool)
    assert masks.rank(scores, everyone, ties).tolist() == [[4, 2, 0, 3, 1]]
    distinct = torch.randn(3, 400, generator=generator())
    numbers = torch.rand(3, 400, generator=generator(1))
    assert torch.equal(masks.ascending(distinct, numbers), masks.ascending(distinct))


def test_keep_largest_zeroes_the_rest() -> None:
    values = torch.tensor([[0.5, -2.0, 1.0, 0.0], [3.0, -1.0, 2.0, -4.0]])
    kept = masks.keep_largest(values, torch.tensor([1, 3]), 3)
    assert kept.tolist() == [[0.0, -2.0, 0.0, 0.0], [3.0, 0.0, 2.0, -4.0]]
    assert values[0, 0] == 0.5  # the argument is left alone


def test_rank_among_the_marked() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 1.0]])
    assert masks.rank(values, torch.tensor([[True, True, True, True]])).tolist() == [[3, 0, 2, 1]]
    assert masks.rank(values, torch.tensor([[True, False, True, False]]))[0, [0, 2]].tolist() == [
        1,
        0,
    ]


def test_counts_are_whole_numbers_one_for_each_row() -> None:
    scores = torch.zeros(2, 5)
    for function in (masks.lowest, masks.highest):
        with pytest.raises(ValueError, match=r"one number for each row of \[2, 5\]"):
            function(scores, torch.tensor([1, 2, 3]))
        with pytest.raises(TypeError, match=r"count must be torch\.int64"):
            function(scores, torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="one number for each row"):
        masks.keep_largest(scores, torch.tensor(1), 1)
    with pytest.raises(ValueError, match=r"among must be bool of shape \[2, 5\]"):
        masks.rank(scores, torch.ones(2, 5))


# --- rewire by hand -------------------------------------------------------------------------------

ACTIVE = torch.tensor([[1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.bool)
DROP = torch.tensor([[4.0, 1.0, 0.0], [0.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
GROW = torch.tensor([[0.0, 9.0, 1.0], [2.0, 0.0, 8.0], [4.0, 3.0, 0.0]])


def one(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix as one member with one head."""
    return matrix[None, None]


def rewired(count: int, active: torch.Tensor = ACTIVE, **keys: bool) -> masks.Rewired:
    keys = {"regrow_dropped": False} | keys
    return masks.rewire(one(active), one(DROP), one(GROW), torch.tensor([[count]]), **keys)


def test_rewire_drops_the_lowest_active_and_grows_the_highest_inactive() -> None:
    # of the active 4 1 3 2 5 go 1 and 2; of the inactive 1 2 4 3 come 4 and 3
    found = rewired(2)
    assert found.mask[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 1]]
    assert (found.dropped.tolist(), found.grown.tolist()) == ([[2]], [[2]])


def test_rewire_may_grow_what_it_just_dropped() -> None:
    # the dropped two score 9 and 8, more than any other free position: both return
    found = rewired(2, regrow_dropped=True)
    assert torch.equal(found.mask[0, 0], ACTIVE)
    # what returns at once has neither gone nor come
    assert (found.dropped.tolist(), found.grown.tolist()) == ([[0]], [[0]])
    # of the active 4 1 3 2 5 go 1 2 3; of the free 9 8 4 3 2 1 0 come 9 8 4: only 3 has gone
    found = rewired(3, regrow_dropped=True)
    assert found.mask[0, 0].int().tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 1]]
    assert (found.dropped.tolist(), found.grown.tolist()) == ([[1]], [[1]])


def test_rewire_exchanges_no_more_than_there_are_free_positions() -> None:
    nearly_full = torch.ones(3, 3, dtype=torch.bool)
    nearly_full[2, 0] = False
    found = rewired(4, nearly_full)
    assert found.dropped.tolist() == found.grown.tolist() == [[1]]
    # zeros of DROP tie: the first in reading order goes
    assert found.mask[0, 0].int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    # where the dropped may return there is room for all four: 0 0 0 1 go; of the then free
    # 9 1 2 4 3 come the four highest
    again = rewired(4, nearly_full, regrow_dropped=True)
    assert again.dropped.tolist() == again.grown.tolist() == [[1]]
    assert again.mask[0, 0].int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]


def test_rewire_cannot_drop_more_than_is_active() -> None:
    single = torch.zeros(3, 3, dtype=torch.bool)
    single[0, 0] = True
    found = rewired(5, single)
    assert found.mask[0, 0].int().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.dropped.tolist() == [[1]]


@pytest.mark.parametrize("regrow_dropped", [False, True])
@pytest.mark.parametrize("grow", [False, True])
def test_a_fully_dense_layer_is_left_alone(regrow_dropped: bool, grow: bool) -> None:
    full = torch.ones(3, 3, dtype=torch.bool)
    found = rewired(3, full, regrow_dropped=regrow_dropped, grow=grow)
    assert torch.equal(found.mask[0, 0], full)
    assert found.dropped.tolist() == found.grown.tolist() == [[0]]


def test_dropping_alone_leaves_the_last_connection_of_a_layer() -> None:
    for count in (5, 6, 100):  # of the active 4 1 3 2 5 stays 5, whose score is highest
        found = rewired(count, grow=False)
        assert found.mask[0, 0].int().tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
        assert (found.dropped.tolist(), found.spared.tolist()) == ([[4]], [[True]])
    assert rewired(4, grow=False).spared.tolist() == [[False]]
    assert rewired(5).spared.tolist() == [[False]]  # as many are grown as are dropped
    nothing = rewired(3, torch.zeros(3, 3, dtype=torch.bool), grow=False)
    assert (nothing.mask.sum(), nothing.dropped.tolist()) == (0, [[0]])
    assert nothing.spared.tolist() == [[False]]


def test_a_falling_budget_spares_no_connection() -> None:
    active = (torch.arange(16) < 12).view(4, 4)
    scores = one(torch.arange(16.0).view(4, 4))
    twelve, target = torch.tensor([[12]]), torch.tensor([[6]])
    for regrow_dropped in (False, True):
        found = masks.rewire(
            one(active), scores, scores, twelve, regrow_dropped=regrow_dropped, target=target
        )
        assert (found.mask.sum(), found.spared.tolist()) == (6, [[False]])


@pytest.mark.parametrize("regrow_dropped", [False, True])
def test_the_last_change_of_sok_code_drops_without_growing(regrow_dropped: bool) -> None:
    found = rewired(2, grow=False, regrow_dropped=regrow_dropped)
    assert found.mask[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert (found.dropped.tolist(), found.grown.tolist()) == ([[2]], [[0]])


def test_dropping_alone_needs_no_free_positions() -> None:
    nearly_full = torch.ones(3, 3, dtype=torch.bool)
    nearly_full[2, 0] = False
    found = rewired(3, nearly_full, grow=False)
    assert found.dropped.tolist() == [[3]]
    assert found.mask.sum() == 5


@pytest.mark.parametrize("regrow_dropped", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_cannot_break_the_budget(
    value: float, regrow_dropped: bool
) -> None:
    everywhere = torch.full((1, 1, 3, 3), value)
    count = torch.tensor([[3]])
    found = masks.rewire(one(ACTIVE), everywhere, everywhere, count, regrow_dropped=regrow_dropped)
    assert found.mask.sum() == ACTIVE.sum()
    assert found.dropped.tolist() == found.grown.tolist()
    assert 0 < found.dropped.item() <= 3


def test_rewire_decides_between_equal_scores_by_the_numbers_given() -> None:
    same, count = one(torch.zeros(3, 3)), torch.tensor([[2]])
    drop = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 0.3]])
    grow = torch.tensor([[0.0, 0.0, 0.7], [0.6, 0.0, 0.0], [0.8, 0.5, 0.0]])
    found = masks.rewire(
        one(ACTIVE), same, same, count, regrow_dropped=False, ties=(one(drop), one(grow))
    )
    # of the active .9 .1 .5 .2 .3 go .1 and .2; of the inactive .7 .6 .8 .5 come .5 and .6
    assert found.mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_what_has_no_score_goes_and_comes_last() -> None:
    drop, grow = DROP.clone(), GROW.clone()
    drop[0, 1], grow[2, 0] = math.nan, math.nan  # the lowest active, the highest inactive
    found = masks.rewire(
        one(ACTIVE), one(drop), one(grow), torch.tensor([[2]]), regrow_dropped=False
    )
    # of the active 4 nan 3 2 5 go 2 and 3; of the inactive 1 2 nan 3 come 3 and 2
    assert found.mask[0, 0].int().tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 1]]


def test_rewire_refuses_scores_of_another_shape_or_type() -> None:
    count = torch.tensor([[1]])
    layer = one(ACTIVE)
    with pytest.raises(ValueError, match=r"mask must be \[M, K, in, out\], not of shape \[3, 3\]"):
        masks.rewire(ACTIVE, one(DROP), one(GROW), count, regrow_dropped=True)
    with pytest.raises(ValueError, match=r"grow_score must be .* = \[1, 1, 3, 3\], not of shape"):
        masks.rewire(layer, one(DROP), one(GROW[:2]), count, regrow_dropped=True)
    with pytest.raises(TypeError, match=r"drop_score must be floating point, not torch\.int64"):
        masks.rewire(layer, one(DROP).long(), one(GROW), count, regrow_dropped=True)
    with pytest.raises(TypeError, match=r"mask must be torch\.bool"):
        masks.rewire(layer.float(), one(DROP), one(GROW), count, regrow_dropped=True)


# --- rewire over random inputs --------------------------------------------------------------------


Layer = dict[str, torch.Tensor]


def rewire_layer(layer: Layer, regrow_dropped: bool) -> masks.Rewired:
    scores = (layer["drop_score"], layer["grow_score"])
    return masks.rewire(layer["mask"], *scores, layer["count"], regrow_dropped=regrow_dropped)


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A layer whose members and heads differ in budget and in how many connections to change."""
    members, heads = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    inputs, outputs = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    size = inputs * outputs
    g = generator(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([3, 1000]))  # few levels: many ties

    def scores() -> torch.Tensor:
        return torch.randint(levels, (members, heads, inputs, outputs), generator=g).float()

    budgets = torch.randint(1, size + 1, (members, heads), generator=g)
    order = torch.rand(members, heads, size, generator=g).argsort(-1)
    return {
        "mask": (order < budgets[..., None]).view(members, heads, inputs, outputs),
        "drop_score": scores(),
        "grow_score": scores(),
        "count": torch.randint(0, size + 1, (members, heads), generator=g),
    }


@given(layers(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_rewire_keeps_every_budget(layer: Layer, regrow_dropped: bool) -> None:
    found = rewire_layer(layer, regrow_dropped)
    old, new = layer["mask"], found.mask
    assert torch.equal(new.sum((-2, -1)), old.sum((-2, -1)))
    assert torch.equal(found.dropped, found.grown)
    lost, gained = (old & ~new).sum((-2, -1)), (new & ~old).sum((-2, -1))
    assert torch.equal(lost, found.dropped)
    assert torch.equal(gained, found.grown)
    if not regrow_dropped:
        inactive = (~old).sum((-2, -1))
        expected = torch.minimum(layer["count"], torch.minimum(inactive, old.sum((-2, -1))))
        assert torch.equal(found.dropped, expected)


@given(layers())
@settings(max_examples=100, deadline=None)
def test_rewire_follows_the_scores(layer: Layer) -> None:
    old = layer["mask"]
    new = rewire_layer(layer, False).mask
    for member in range(old.shape[0]):
        for head in range(old.shape[1]):
            at = (member, head)
            drop, grow = layer["drop_score"][at], layer["grow_score"][at]
            dropped, stayed = old[at] & ~new[at], old[at] & new[at]
            grown, passed = new[at] & ~old[at], ~new[at] & ~old[at]
            if dropped.any():
                kept = drop[stayed].min() if stayed.any() else math.inf
                assert drop[dropped].max() <= kept
                best = grow[passed].max() if passed.any() else -math.inf
                assert grow[grown].min() >= best


@given(layers(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_members_are_rewired_as_if_alone(layer: Layer, regrow_dropped: bool) -> None:
    together = rewire_layer(layer, regrow_dropped)
    for member in range(len(layer["mask"])):
        part = {name: value[member : member + 1] for name, value in layer.items()}
        alone = rewire_layer(part, regrow_dropped)
        assert torch.equal(alone.mask[0], together.mask[member])
