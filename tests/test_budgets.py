"""Densities by allocation and exact budgets, with numbers worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrl_cli.config.models import NetworkConfig
from dstrl_cli.errors import InputError
from dstrl_cli.topology.budgets import (
    Shape,
    erdos_renyi_densities,
    exact_budgets,
    layer_budgets,
    layer_densities,
)


def shapes(*sizes: int) -> list[Shape]:
    return list(pairwise(sizes))


def network(
    sparsity: float, allocation: str, lambdas: tuple[float, ...] | None = None
) -> NetworkConfig:
    return NetworkConfig(sparsity=sparsity, allocation=allocation, lambdas=lambdas)


ACTORS = {"HalfCheetah": (17, 6), "Ant": (111, 8), "Hopper": (11, 3), "Walker2d": (17, 6)}


def actor(env: str) -> list[Shape]:
    observation, action = ACTORS[env]
    return shapes(observation, 256, 256, action)


def critic(env: str) -> list[Shape]:
    observation, action = ACTORS[env]
    return shapes(observation + action, 256, 256, 1)


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
    layers: list[Shape], sparsity: float, expected: list[float]
) -> None:
    found = [1 - p for p in erdos_renyi_densities(layers, sparsity)]
    assert found == pytest.approx(expected, abs=6e-4)


def test_erdos_renyi_densities_by_hand() -> None:
    # 4x4, 4x2: half of 24 is 12 = eps (8 + 6), eps = 6/7; 8 eps / 16 = 3/7, 6 eps / 8 = 9/14
    assert erdos_renyi_densities([(4, 4), (4, 2)], 0.5) == pytest.approx([3 / 7, 9 / 14])
    # 8x8, 8x1: 36 = eps (16 + 9) would give the last 9 eps / 8 = 1.62: dense, 28 / 64 are left
    assert erdos_renyi_densities([(8, 8), (8, 1)], 0.5) == pytest.approx([28 / 64, 1.0])


def test_layers_that_tie_for_the_largest_density_become_dense_together() -> None:
    # 100x100, 1x100, 100x1 (raw .02, 1.01, 1.01): 2040 = eps 402 puts both small ones beyond 1
    found = erdos_renyi_densities([(100, 100), (1, 100), (100, 1)], 0.8)
    assert found == pytest.approx([1840 / 10_000, 1.0, 1.0])


def test_without_sparsity_every_layer_is_dense() -> None:
    assert erdos_renyi_densities(critic("Ant"), 0.0) == [1.0, 1.0, 1.0]
    assert exact_budgets(critic("Ant"), [1.0] * 3) == [119 * 256, 65_536, 256]
    assert erdos_renyi_densities([(1, 5), (5, 37)], 1e-300) == [1.0, 1.0]


def test_lambda_densities() -> None:
    # 64 (256 + 256) / 256^2 = .5; 7 (17 + 256) / (17 256) = .4391; the output layer stays dense
    found = layer_densities(network(0.0, "lambda", (7, 64)), actor("HalfCheetah"))
    assert found == pytest.approx([1911 / 4352, 0.5, 1.0])
    assert layer_densities(network(0.0, "lambda", (61,)), [(4, 2)]) == [1.0]


def test_densities_by_name() -> None:
    layers = actor("Hopper")
    assert layer_densities(network(0.9, "uniform"), layers) == pytest.approx([0.1, 0.1, 0.1])
    hidden = layer_densities(network(0.9, "uniform_hidden"), layers)
    assert hidden == pytest.approx([0.1, 0.1, 1.0])
    assert layer_densities(network(0.9, "lambda", (7, 64)), layers)[1] == pytest.approx(0.5)
    assert layer_densities(network(0.95, "erdos_renyi"), layers)[2] == 1.0


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # eps = 3571.2 / 1047; 273 eps = 931.17, 512 eps = 1746.37, 262 eps = 893.65: rounded up
        (actor("HalfCheetah"), [932, 1747, 894]),
        # the output dense: eps = (3584 - 256) / 791; 279 eps = 1173.84, 512 eps = 2154.15
        (critic("HalfCheetah"), [1174, 2155, 256]),
    ],
)
def test_exact_budgets_of_the_authors_code(layers: list[Shape], expected: list[int]) -> None:
    assert exact_budgets(layers, erdos_renyi_densities(layers, 0.95)) == expected


def test_exact_budgets_survive_floating_point() -> None:
    # .9 of 100 is 90 whatever 1 - .9 is in binary; .95 of 4352 is 4134.4, of which 4134 go
    assert exact_budgets([(10, 10), (17, 256)], [1 - 0.9, 1 - 0.95]) == [10, 218]


def test_networks_with_all_connections_have_full_layers_whatever_their_sparsity() -> None:
    for every in ({"dense": True}, {"match_parameters": True}):
        full = NetworkConfig(sparsity=0.9, **every)
        assert layer_budgets(full, critic("Ant")) == [119 * 256, 65_536, 256]
    assert layer_budgets(network(0.9, "uniform"), [(10, 10), (10, 5)]) == [10, 5]


def test_a_density_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], not 1.5"):
        exact_budgets([(4, 4)], [1.5])


def test_budgets_are_planned_without_torch() -> None:
    code = "import sys, dstrl_cli.topology.budgets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_layer_without_connections_is_an_error() -> None:
    with pytest.raises(InputError, match="4x4"):
        exact_budgets([(4, 4)], [0.0])


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
    densities = layer_densities(network(sparsity, allocation), layers)
    budgets = exact_budgets(layers, densities)
    target = (1 - sparsity) * sum(i * o for i, o in layers)
    assert all(1 <= b <= i * o for b, (i, o) in zip(budgets, layers, strict=True))
    assert all(0 < p <= 1 + 1e-12 for p in densities)
    assert target - 1e-3 <= sum(budgets) < target + len(layers)
