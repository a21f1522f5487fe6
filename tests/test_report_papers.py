"""The papers' numbers, and which of ours they stand beside."""

from __future__ import annotations

import pytest

from dstrl_cli.errors import InputError
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.papers import Match, published, task_name


def find(table: str, algo: str, method: str, env: str, sparsity: str) -> Match:
    match = published(table).find(algo, method, env, sparsity)
    assert match is not None
    return match


def test_a_number_of_xu_table_i() -> None:
    match = find("xu2024:I", "td3", "our-rlx2", "HalfCheetah-v2", "s0.95")
    assert (match.entry.mean, match.entry.std) == (9066.60, 1468.21)
    assert match.marks == frozenset()


def test_another_version_of_the_environment_is_marked() -> None:
    match = find("xu2024:I", "td3", "dense", "HalfCheetah-v5", "s0")
    assert (match.entry.mean, match.entry.std) == (10246.20, 1142.33)
    assert match.marks == {Mark.VERSION}


def test_another_sparsity_is_marked() -> None:
    assert find("xu2024:II", "sac", "sst", "Ant-v2", "s0.95").marks == {Mark.SPARSITY}
    assert find("xu2024:II", "sac", "sst", "Ant-v2", "s0.9").marks == frozenset()
    assert find("rlx2:2", "td3", "rlx2", "Ant-v3", "a0.96-c0.88").marks == frozenset()
    assert find("rlx2:2", "td3", "rlx2", "Ant-v3", "s0.96").marks == {Mark.SPARSITY}


@pytest.mark.parametrize(
    ("table", "algo", "method", "env", "mean"),
    [
        ("sokar2022:2", "td3", "dst-official", "HalfCheetah-v3", 11459.88),
        ("sokar2022:1", "td3", "dense", "HalfCheetah-v3", 1.7686),
        ("sokar2022:1", "sac", "dense", "HalfCheetah-v3", 1.7297),
        ("rlx2:2", "td3", "rlx-ss", "Hopper-v3", 67.7),
        ("xu2024:V", "sac", "our-rlx2+critic.topology.drop_fraction0.3", "2DNav-v1", -11.789),
        ("xu2024:III", "td3", "dst", "2DNav-v2", -184.753),
    ],
)
def test_published_names_find_our_methods(
    table: str, algo: str, method: str, env: str, mean: float
) -> None:
    assert find(table, algo, method, env, "s0.5").entry.mean == mean


@pytest.mark.parametrize(
    ("algo", "method", "env"),
    [
        ("sac", "dense", "Hopper-v2"),  # Table I is TD3's
        ("td3", "rigl", "Hopper-v2"),
        ("td3", "rlx2+nstep5", "Hopper-v2"),  # another setting than the published one
        ("td3", "dense", "Humanoid-v2"),
    ],
)
def test_what_is_not_published_is_not_found(algo: str, method: str, env: str) -> None:
    assert published("xu2024:I").find(algo, method, env, "s0.95") is None


def test_a_published_std_may_be_missing() -> None:
    assert find("sokar2022:1", "td3", "sst", "Ant-v3", "s0.5").entry.std is None


def test_navigation_tasks_are_not_versions_of_one_another() -> None:
    assert task_name("Ant-v2") == task_name("Ant-v5") == "Ant"
    assert task_name("2DNav-v1") != task_name("2DNav-v2")


@pytest.mark.parametrize("name", ["xu2024:VI", "xu2025:I", "xu2024", "sokar2022:text4.2", ""])
def test_an_unknown_table_lists_the_valid_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"unknown published table .*rlx2:2, .*xu2024:I, "):
        published(name)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("xu2024:I", "last-steps:125000"),
        ("xu2024:IV", "all-episodes"),
        ("sokar2022:2", "last-evals:10"),
        ("sokar2022:4", "lca"),
        ("rlx2:2", "last-evals:30"),
    ],
)
def test_a_table_says_which_metric_it_publishes(name: str, metric: str) -> None:
    assert published(name).metric == metric


@pytest.mark.parametrize(
    ("table", "algo", "method", "env", "sparsity", "mean"),
    [
        ("graesser2022:fig2", "sac", "gmp", "Walker2d-v2", "s0.9", 5120),
        ("graesser2022:fig2", "sac", "sst", "HalfCheetah-v2", "s0.9", 2200),
        ("graesser2022:fig9", "sac", "gmp", "Ant-v2", "s0.98", 3480),
        ("grooten2023:fig-tutorial", "td3", "dense", "HalfCheetah-v3.noise0.98", "s0", 5100),
    ],
)
def test_numbers_that_were_read_off_a_figure_are_marked(
    table: str, algo: str, method: str, env: str, sparsity: str, mean: float
) -> None:
    match = find(table, algo, method, env, sparsity)
    assert (match.entry.mean, match.entry.std) == (mean, None)
    assert match.marks == {Mark.READ_OFF}


def test_noise_is_part_of_what_an_environment_is() -> None:
    table = published("grooten2023:fig-tutorial")
    assert table.find("sac", "anf", "HalfCheetah-v5", "s0.6") is None
    match = table.find("sac", "anf", "HalfCheetah-v5.noise0.98", "a0.609-c0.614")
    assert match is not None
    assert Mark.VERSION in match.marks
