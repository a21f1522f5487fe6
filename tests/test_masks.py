"""Budgets, initial masks, selection by rank and `rewire`, with numbers worked out by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrl_cli.errors import InputError
from dstrl_cli.topology import masks


def shapes(*sizes: int) -> list[masks.Shape]:
    return list(pairwise(sizes))


ACTORS = {"HalfCheetah": (17, 6), "Ant": (111, 8), "Hopper": (11, 3), "Walker2d": (17, 6)}


def actor(env: str) -> list[masks.Shape]:
    observation, action = ACTORS[env]
    return shapes(observation, 256, 256, action)


def critic(env: str) -> list[masks.Shape]:
    observation, action = ACTORS[env]
    return shapes(observation + action, 256, 256, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- allocation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "sparsity", "expected"),
    [
        (actor("HalfCheetah"), 0.95, [0.786, 0.973, 0.418]),
        (actor("Ant"), 0.95, [0.946, 0.967, 0.459]),
        (actor("Hopper"), 0.95, [0.673, 0.973, 0.0]),
        (actor("Walker2d"), 0.97, [0.872, 0.984, 0.651]),
        (critic("HalfCheetah"), 0.95, [0.801, 0.967, 0.0]),
        (critic("Ant"), 0.95, [0.937, 0.960, 0.0]),
        (critic("Hopper"), 0.95, [0.690, 0.968, 0.0]),
    ],
)
def test_erdos_renyi_layer_sparsities_of_the_authors_code(
    layers: list[masks.Shape], sparsity: float, expected: list[float]
) -> None:
    found = [1 - p for p in masks.erdos_renyi_densities(layers, sparsity)]
    assert found == pytest.approx(expected, abs=6e-4)


def test_erdos_renyi_densities_by_hand() -> None:
    # 4x4, 4x2: half of 24 is 12 = eps (8 + 6), eps = 6/7; 8 eps / 16 = 3/7, 6 eps / 8 = 9/14
    assert masks.erdos_renyi_densities([(4, 4), (4, 2)], 0.5) == pytest.approx([3 / 7, 9 / 14])
    # 8x8, 8x1: 36 = eps (16 + 9) would give the last 9 eps / 8 = 1.62: dense, 28 / 64 are left
    assert masks.erdos_renyi_densities([(8, 8), (8, 1)], 0.5) == pytest.approx([28 / 64, 1.0])


def test_layers_that_tie_for_the_largest_density_become_dense_together() -> None:
    # 100x100, 1x100, 100x1 (raw .02, 1.01, 1.01): 2040 = eps 402 puts both small ones beyond 1
    found = masks.erdos_renyi_densities([(100, 100), (1, 100), (100, 1)], 0.8)
    assert found == pytest.approx([1840 / 10_000, 1.0, 1.0])


def test_without_sparsity_every_layer_is_dense() -> None:
    assert masks.erdos_renyi_densities(critic("Ant"), 0.0) == [1.0, 1.0, 1.0]
    assert masks.exact_budgets(critic("Ant"), [1.0] * 3) == [119 * 256, 65_536, 256]
    assert masks.erdos_renyi_densities([(1, 5), (5, 37)], 1e-300) == [1.0, 1.0]


def test_lambda_densities() -> None:
    # 64 (256 + 256) / 256^2 = .5; 7 (17 + 256) / (17 256) = .4391; the output layer stays dense
    found = masks.densities(actor("HalfCheetah"), 0.0, "lambda", (7, 64))
    assert found == pytest.approx([1911 / 4352, 0.5, 1.0])
    assert masks.densities([(4, 2)], 0.0, "lambda", (61,)) == [1.0]


def test_densities_by_name() -> None:
    layers = actor("Hopper")
    assert masks.densities(layers, 0.9, "uniform") == pytest.approx([0.1, 0.1, 0.1])
    assert masks.densities(layers, 0.9, "lambda", (7, 64))[1] == pytest.approx(0.5)
    assert masks.densities(layers, 0.95, "erdos_renyi")[2] == 1.0


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # eps = 3571.2 / 1047; 273 eps = 931.17, 512 eps = 1746.37, 262 eps = 893.65: rounded up
        (actor("HalfCheetah"), [932, 1747, 894]),
        # the output dense: eps = (3584 - 256) / 791; 279 eps = 1173.84, 512 eps = 2154.15
        (critic("HalfCheetah"), [1174, 2155, 256]),
    ],
)
def test_exact_budgets_of_the_authors_code(layers: list[masks.Shape], expected: list[int]) -> None:
    assert masks.exact_budgets(layers, masks.erdos_renyi_densities(layers, 0.95)) == expected


def test_exact_budgets_survive_floating_point() -> None:
    # .9 of 100 is 90 whatever 1 - .9 is in binary; .95 of 4352 is 4134.4, of which 4134 go
    assert masks.exact_budgets([(10, 10), (17, 256)], [1 - 0.9, 1 - 0.95]) == [10, 218]


def test_a_layer_without_connections_is_an_error() -> None:
    with pytest.raises(InputError, match="4x4"):
        masks.exact_budgets([(4, 4)], [0.0])


@given(
    st.lists(st.integers(1, 40), min_size=3, max_size=5),
    st.floats(0.0, 0.99),
    st.sampled_from(["uniform", "erdos_renyi"]),
)
@settings(max_examples=80, deadline=None)
def test_budgets_meet_the_sparsity_within_rounding(
    sizes: list[int], sparsity: float, allocation: str
) -> None:
    layers = shapes(*sizes)
    densities = masks.densities(layers, sparsity, allocation)
    budgets = masks.exact_budgets(layers, densities)
    target = (1 - sparsity) * sum(i * o for i, o in layers)
    assert all(1 <= b <= i * o for b, (i, o) in zip(budgets, layers, strict=True))
    assert all(0 < p <= 1 + 1e-12 for p in densities)
    assert target - 1e-3 <= sum(budgets) < target + len(layers)


# --- initial masks --------------------------------------------------------------------------------


def test_random_masks_have_the_exact_count_and_no_favourite_position() -> None:
    g = generator()
    drawn = torch.stack([masks.random_mask(20, 5, g) for _ in range(2000)])
    assert (drawn.sum(-1) == 5).all()
    assert drawn.double().mean(0) == pytest.approx(0.25, abs=0.05)  # sd .0097


def test_bernoulli_masks_draw_every_position_by_itself() -> None:
    g = generator()
    drawn = torch.stack([masks.bernoulli_mask(20, 0.25, g) for _ in range(4000)]).double()
    assert drawn.mean(0) == pytest.approx(0.25, abs=0.04)
    # the count is binomial: variance 20 .25 .75 = 3.75, which an exact count would make 0
    assert drawn.sum(-1).var() == pytest.approx(3.75, rel=0.15)
    assert masks.bernoulli_mask(50, 1.0, g).all()


def test_magnitude_masks_keep_the_largest() -> None:
    weight = torch.tensor([0.1, -0.9, 0.3, -0.2, 0.5])
    assert masks.magnitude_mask(weight, 2).tolist() == [False, True, False, False, True]


# --- selection by rank ----------------------------------------------------------------------------


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


def test_keep_largest_zeroes_the_rest() -> None:
    values = torch.tensor([[0.5, -2.0, 1.0, 0.0], [3.0, -1.0, 2.0, -4.0]])
    kept = masks.keep_largest(values, torch.tensor([1, 3]), 3)
    assert kept.tolist() == [[0.0, -2.0, 0.0, 0.0], [3.0, 0.0, 2.0, -4.0]]
    assert values[0, 0] == 0.5  # the argument is left alone


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
    assert (found.dropped.tolist(), found.grown.tolist()) == ([[2]], [[2]])


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
    assert again.dropped.tolist() == again.grown.tolist() == [[4]]
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
    assert torch.equal(lost, gained)
    if regrow_dropped:
        assert (lost <= found.dropped).all()
    else:
        assert torch.equal(lost, found.dropped)
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
