"""Parameters and FLOPs: every number of the papers that their formulas reproduce."""

from __future__ import annotations

import paper_formulas as paper
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.algos import flops as acc
from dstrl_cli.algos.flops import ActiveCount, Connections
from dstrl_cli.config.sizes import lambda_active, layer_weights
from dstrl_cli.registry import ALGORITHMS, AlgorithmRow, algorithm

# observation and action sizes of the v3 tasks
TASKS = {
    "HalfCheetah": (17, 6),
    "Hopper": (11, 3),
    "Walker2d": (17, 6),
    "Ant": (111, 8),
    "Humanoid": (376, 17),
}


def actor_sizes(task: str, heads: int = 1) -> tuple[int, ...]:
    obs, act = TASKS[task]
    return (obs, 256, 256, heads * act)


def critic_sizes(task: str) -> tuple[int, ...]:
    obs, act = TASKS[task]
    return (obs + act, 256, 256, 1)


# --- small, by hand ---------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    assert acc.weights((3, 4, 2)) == 3 * 4 + 4 * 2


def test_forward_flops_by_hand() -> None:
    assert acc.forward_flops([5, 7]) == 24
    # half of (2*3-1)*4 = 20, all of (2*4-1)*2 = 14
    assert paper.forward_flops_eq12((3, 4, 2), (0.5, 0.0)) == 24


# --- SOK ----------------------------------------------------------------------------------------


def sok_expected(task: str, lam1: float, lam2: float, heads: int = 1) -> tuple[int, float]:
    actor, critic = actor_sizes(task, heads), critic_sizes(task)
    dense = paper.sok_size(acc.weights(actor), acc.weights(critic))
    sparse = paper.sok_size(
        sum(lambda_active(actor, (lam1, lam2))),
        sum(lambda_active(critic, (lam1, lam2))),
    )
    return int(dense), sparse


@pytest.mark.parametrize(
    ("task", "lam1", "dense", "sparse", "sparsity"),
    [
        ("HalfCheetah", 7, 214784, 106169, 50.57),
        ("Hopper", 7, 207872, 105233, 49.4),
        ("Ant", 40, 288512, 145544, 49.6),
        ("Humanoid", 61, 498944, 220898, 55.7),
    ],
)
def test_sizes_of_ds_td3(task: str, lam1: int, dense: int, sparse: int, sparsity: float) -> None:
    got_dense, got_sparse = sok_expected(task, lam1, 64)
    assert got_dense == dense
    assert got_sparse == sparse
    assert 100 * (1 - got_sparse / got_dense) == pytest.approx(sparsity, abs=0.05)


def test_published_sparsity_of_ds_td3_is_51_percent() -> None:
    dense, sparse = sok_expected("HalfCheetah", 7, 64)
    assert round(100 * (1 - sparse / dense), 2) == 50.57
    assert round(100 * (1 - sparse / dense)) == 51


@pytest.mark.parametrize(
    ("task", "lambdas", "sparsity"),
    [
        ("HalfCheetah", (12, 80), 36.9),
        ("Walker2d", (12, 80), 36.9),
        ("Hopper", (7, 20), 81.6),
        ("Ant", (30, 64), 53.0),
        ("Humanoid", (61, 64), 55.2),
    ],
)
def test_sparsity_of_ds_sac(task: str, lambdas: tuple[int, int], sparsity: float) -> None:
    dense, sparse = sok_expected(task, *lambdas, heads=2)
    assert 100 * (1 - sparse / dense) == pytest.approx(sparsity, abs=0.05)


def test_training_flops_of_ds_td3() -> None:
    actor, critic = actor_sizes("HalfCheetah"), critic_sizes("HalfCheetah")
    dense = paper.sok_train_flops(
        acc.forward_flops([acc.weights(actor)]),
        acc.forward_flops([acc.weights(critic)]),
        batch_size=100,
        iterations=1_000_000,
    )
    assert dense == 1.074432e14  # 2 * 1e8 * (3 * 2 * 71680 + 1.5 * 71424); published 1.07e14
    eq12 = paper.sok_train_flops(
        paper.forward_flops_eq12(actor, (0, 0, 0)),
        paper.forward_flops_eq12(critic, (0, 0, 0)),
        batch_size=100,
        iterations=1_000_000,
    )
    assert eq12 == pytest.approx(1.071e14, rel=1e-3)
    sparse = paper.sok_train_flops(
        acc.forward_flops(lambda_active(actor, (7, 64))),
        acc.forward_flops(lambda_active(critic, (7, 64))),
        batch_size=100,
        iterations=1_000_000,
    )
    assert sparse / dense == pytest.approx(0.492, abs=5e-4)  # published 0.49


# --- RLX ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algo", "delay", "nstep", "a", "c"),
    [
        ("td3", 2, 1, 2.5, 8.5),
        ("td3", 2, 3, 2.5, 8.5),
        ("td3", 1, 1, 4, 9),
        ("sac", 1, 1, 4, 10),
        ("sac", 1, 2, 5, 10),
        ("sac", 1, 3, 6, 10),
        ("sac", 2, 2, 3.5, 9),
    ],
)
def test_flops_per_iteration(algo: str, delay: int, nstep: int, a: float, c: float) -> None:
    def flops(actor: float, critic: float) -> float:
        return paper.rlx_train_flops(
            algo, actor, critic, batch_size=256, updates=3, policy_delay=delay, nstep=nstep
        )

    assert flops(1, 0) == 256 * 3 * a
    assert flops(0, 1) == 256 * 3 * c


def constant(active: int, dense: int) -> Connections:
    """Connections of which the same number is active in every update."""
    return Connections(active, active, dense)


def rlx_row(algo: str, task: str, actor_density: float, critic_density: float) -> list[float]:
    """Total size, training and inference FLOPs of a row of RLX Table 2."""
    heads, delay, nstep = {"td3": (1, 2, 3), "sac": (2, 1, 2)}[algo]
    actor, critic = acc.weights(actor_sizes(task, heads)), acc.weights(critic_sizes(task))
    numbers = acc.summary_numbers(
        algorithm(algo),
        constant(round(actor * actor_density), actor),
        constant(2 * round(critic * critic_density), 2 * critic),
        batch_size=256,
        updates=2_975_000,
        policy_delay=delay,
        nstep=nstep,
    )
    parameters, flops = numbers["parameters"], numbers["flops"]
    size = parameters["rlx_active"] / parameters["rlx_dense"]
    return [size, flops["train_ratio"], flops["test_ratio"]]


RLX_TABLE_2 = {
    "td3": [
        ("HalfCheetah", 0.10, 0.15, (0.1334, 0.1387, 0.100)),
        ("Hopper", 0.02, 0.05, (0.0400, 0.043, 0.020)),
        ("Walker2d", 0.03, 0.05, (0.0434, 0.045, 0.030)),
        ("Ant", 0.04, 0.12, (0.0934, 0.102, 0.040)),
    ],
    "sac": [
        ("HalfCheetah", 0.10, 0.20, (0.1797, 0.1783, 0.100)),
        ("Hopper", 0.02, 0.05, (0.0440, 0.0428, 0.020)),
        ("Walker2d", 0.10, 0.10, (0.1000, 0.1072, 0.100)),
        ("Ant", 0.10, 0.25, (0.2196, 0.2138, 0.100)),
    ],
}
PRINTED_AVERAGES = {"td3": (0.077, 0.082, 0.048), "sac": (0.136, 0.136, 0.080)}
CASES = [(algo, *row) for algo, rows in RLX_TABLE_2.items() for row in rows]


@pytest.mark.parametrize(("algo", "task", "a", "c", "expected"), CASES)
def test_rows_of_rlx_table_2(
    algo: str, task: str, a: float, c: float, expected: tuple[float, ...]
) -> None:
    size, train, test = rlx_row(algo, task, a, c)
    assert size == pytest.approx(expected[0], abs=6e-5)
    assert train == pytest.approx(expected[1], abs=5.5e-4)
    assert test == pytest.approx(expected[2], abs=5e-5)


def column_means(algo: str) -> list[float]:
    rows = [rlx_row(algo, task, a, c) for task, a, c, _ in RLX_TABLE_2[algo]]
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_averages_of_rlx_table_2(algo: str) -> None:
    # half a unit of the last printed place; 0.0475 is printed as 0.048
    assert column_means(algo) == pytest.approx(PRINTED_AVERAGES[algo], abs=5.5e-4)


def test_overall_averages_of_rlx_table_2() -> None:
    overall = [(t + s) / 2 for t, s in zip(column_means("td3"), column_means("sac"), strict=True)]
    assert overall == pytest.approx([0.107, 0.109, 0.064], abs=5.5e-4)


def test_a_one_step_ratio_would_not_give_the_printed_sac_number() -> None:
    """0.107 for Walker2d is a two-step sparse agent over a one-step dense one."""
    actor, critic = actor_sizes("Walker2d", 2), critic_sizes("Walker2d")
    a, c = acc.weights(actor), acc.weights(critic)
    keys = {"batch_size": 256, "updates": 1, "policy_delay": 1, "nstep": 2}
    sparse = paper.rlx_train_flops("sac", 0.1 * a, 0.1 * c, **keys)
    assert sparse / paper.rlx_train_flops("sac", a, c, **keys) == pytest.approx(0.1)


# --- a run's summary ------------------------------------------------------------------------------

ONE_ITERATION = {"batch_size": 1, "updates": 1, "policy_delay": 2, "nstep": 1}


def test_summary_numbers_by_hand() -> None:
    numbers = acc.summary_numbers(
        algorithm("td3"),
        constant(8, 12),
        constant(2 * 9, 2 * 16),
        batch_size=10,
        updates=100,
        policy_delay=2,
        nstep=3,
    )
    # of a single critic 9 of 16; A = 16, C = 18 FLOPs; dense A = 24, C = 32
    assert numbers["parameters"] == {
        "sok_active": 8 + 2 * 9,
        "sok_dense": 12 + 2 * 16,
        "rlx_active": 2 * 8 + 4 * 9,
        "rlx_dense": 2 * 12 + 4 * 16,
    }
    per_sample = 2.5 * 16 + 8.5 * 18
    assert numbers["flops"] == {
        "train_total": 10 * 100 * per_sample,
        "train_ratio": per_sample / (2.5 * 24 + 8.5 * 32),
        "train_total_full": 10 * 100 * per_sample,
        "train_ratio_full": per_sample / (2.5 * 24 + 8.5 * 32),
        "test": 16,
        "test_ratio": 16 / 24,
    }


def test_training_counts_the_mean_connections_and_everything_else_the_last_ones() -> None:
    changing, still = Connections(2, 8.0, 12), constant(18, 32)
    row = algorithm("td3")
    numbers = acc.summary_numbers(row, changing, still, **ONE_ITERATION)
    assert numbers["flops"]["train_total"] == 2.5 * 16 + 8.5 * 18
    assert (numbers["flops"]["test"], numbers["flops"]["test_ratio"]) == (4, 4 / 24)
    assert numbers["parameters"]["sok_active"] == 2 + 18
    assert numbers["parameters"]["rlx_active"] == 2 * 2 + 4 * 9


def test_an_untrained_run_has_no_training_ratio() -> None:
    run = constant(3, 12), constant(4, 32)
    numbers = acc.summary_numbers(algorithm("td3"), *run, **(ONE_ITERATION | {"updates": 0}))
    assert numbers["flops"]["train_total"] == 0
    assert numbers["flops"]["train_ratio"] is None
    assert numbers["flops"]["test_ratio"] == 0.25


def test_one_critic_counts_once() -> None:
    row = AlgorithmRow(critics=1)
    numbers = acc.summary_numbers(row, constant(8, 12), constant(9, 16), **ONE_ITERATION)
    assert numbers["parameters"] == {
        "sok_active": 8 + 9,
        "sok_dense": 12 + 16,
        "rlx_active": 2 * 8 + 2 * 9,
        "rlx_dense": 2 * 12 + 2 * 16,
    }
    # critic: target A + C, loss C, backward 2 C; actor, every other time: 3 A + C
    assert numbers["flops"]["train_total"] == (16 + 4 * 18) + (3 * 16 + 18) / 2


@pytest.mark.parametrize("numbers", [(-1, 2.0, 3), (1, -2.0, 3), (1, 0.0, 0)])
def test_impossible_numbers_of_connections_are_refused(numbers: tuple[int, float, int]) -> None:
    with pytest.raises(ValueError, match="numbers of connections"):
        Connections(*numbers)


@pytest.mark.parametrize(("delay", "nstep"), [(0, 1), (1, 0)])
def test_impossible_delays_and_steps_are_refused(delay: int, nstep: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        acc.flops_per_sample(algorithm("td3"), 1, 1, policy_delay=delay, nstep=nstep)


# --- connections that change ----------------------------------------------------------------------


def test_active_connections_are_averaged_over_the_updates_that_had_them() -> None:
    count = ActiveCount(100)
    assert count.mean(0) == 100
    count.change(4, 60)  # update 4 itself still had 100
    assert count.mean(4) == 100
    assert count.mean(10) == (4 * 100 + 6 * 60) / 10
    count.change(10, 70)
    assert count.mean(12) == (4 * 100 + 6 * 60 + 2 * 70) / 12


@given(st.integers(0, 10**7), st.integers(1, 10**9), st.lists(st.integers(1, 10**9), max_size=9))
def test_a_constant_count_is_its_own_mean(active: int, updates: int, changes: list[int]) -> None:
    count = ActiveCount(active)
    for update in sorted(changes):
        count.change(update, active)
    assert count.mean(updates) == active


sizes = st.lists(st.integers(1, 40), min_size=2, max_size=5)


@given(sizes, st.lists(st.floats(0, 100), max_size=4))
def test_expected_active_connections_stay_within_their_layer(
    sizes: list[int], lambdas: list[float]
) -> None:
    active = lambda_active(sizes, lambdas)
    assert all(0 <= n <= most for n, most in zip(active, layer_weights(sizes), strict=True))


@given(
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.sampled_from(sorted(ALGORITHMS)),
    st.integers(1, 5),
)
def test_a_dense_one_step_run_has_ratio_one(actor: int, critic: int, algo: str, delay: int) -> None:
    numbers = acc.summary_numbers(
        algorithm(algo),
        constant(actor, actor),
        constant(2 * critic, 2 * critic),
        batch_size=256,
        updates=10,
        policy_delay=delay,
        nstep=1,
    )
    assert numbers["flops"]["train_ratio"] == 1
    assert numbers["flops"]["test_ratio"] == 1
    assert numbers["parameters"]["rlx_active"] == numbers["parameters"]["rlx_dense"]
