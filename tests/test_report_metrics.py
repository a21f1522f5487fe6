"""Metrics of one run, worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import write_run

from dstrl_cli.errors import InputError
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.metrics import DEFAULT, parse
from dstrl_cli.report.runs import Run, load

# the start is far off: any metric that lets it in is wrong
EVALUATIONS = {0: [-999.0, -999.0], 100: [1.0, 3.0], 200: [4.0, 6.0], 300: [9.0, 9.0], 400: [7.0]}
# per evaluation:                        2             5             9             7
EPISODES = {50: [10.0], 150: [20.0], 250: [60.0]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    write_run(tmp_path, "Hopper-v5/td3-dst/s0.95/seed0", EVALUATIONS, episodes=EPISODES)
    return load(tmp_path).runs[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last-steps:100", 7),  # steps beyond 300: the window is open at its start
        ("last-steps:101", 8),
        ("last-steps:400", 23 / 4),
        ("last-evals:1", 7),
        ("last-evals:3", 7),
        ("last-evals:4", 23 / 4),
        ("all-evals", 23 / 4),
        ("all-episodes", 30),
        ("lca", 23 / 400),
        ("final", 7),
        ("best", 9),
        ("last-steps:1e2", 7),
    ],
)
def test_by_hand(run: Run, name: str, value: float) -> None:
    result = parse(name).compute(run)
    assert result is not None
    assert result.value == pytest.approx(value)
    assert result.marks == frozenset()


@pytest.mark.parametrize("name", ["last-steps:401", "last-evals:5", DEFAULT])
def test_a_window_longer_than_the_run_is_marked(run: Run, name: str) -> None:
    result = parse(name).compute(run)
    assert result is not None
    assert result.value == pytest.approx(23 / 4)
    assert result.marks == {Mark.WINDOW}


def test_lca_times_the_evaluation_interval_is_the_mean_evaluation(tmp_path: Path) -> None:
    """SOK print 1.7686 as `x5000`: 200 evaluations of 8843 on average over 1e6 steps."""
    evaluations = {0: [0.0]} | {5000 * k: [8843.0] for k in range(1, 201)}
    write_run(tmp_path, "HalfCheetah-v3/td3-dense/s0/seed0", evaluations)
    result = parse("lca").compute(load(tmp_path).runs[0])
    assert result is not None
    assert result.value == pytest.approx(1.7686)
    assert 5000 * result.value == pytest.approx(8843)


def test_the_default_window_of_a_full_run_is_its_last_25_evaluations(tmp_path: Path) -> None:
    evaluations = {5000 * k: [float(k)] for k in range(201)}
    write_run(tmp_path, "HalfCheetah-v3/td3-dense/s0/seed0", evaluations)
    result = parse(DEFAULT).compute(load(tmp_path).runs[0])
    assert result is not None
    assert result.value == pytest.approx(sum(range(176, 201)) / 25)
    assert result.marks == frozenset()


@pytest.mark.parametrize("name", ["final", "last-steps:5", "all-episodes", "lca", "best"])
def test_nothing_logged_after_the_start_has_no_value(tmp_path: Path, name: str) -> None:
    write_run(tmp_path, "Hopper-v5/td3-dst/s0.95/seed0", {0: [5.0]}, status=None)
    assert parse(name).compute(load(tmp_path).runs[0]) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("last-step:5", r"unknown metric 'last-step:5'; did you mean 'last-steps:STEPS'\? Valid: "),
        ("mean", r"unknown metric 'mean'.*all-evals.*last-evals:COUNT"),
        ("last-steps", r"'last-steps' takes a number, last-steps:STEPS\. Valid: "),
        ("lca:5", r"'lca:5' takes no number\. Valid: "),
        ("last-evals:0", r"'last-evals:0': '0' must be a whole number of at least 1"),
        ("last-evals:2.5", "whole number"),
        ("last-evals:nan", "whole number"),
        ("last-steps:1e999", "whole number"),
        ("last-steps:", "whole number"),
        ("last-steps:ten", "whole number"),
    ],
)
def test_errors_name_the_metric(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(name)


@given(st.integers(1, 10**12))
def test_any_number_is_taken_and_kept(number: int) -> None:
    assert parse(f"last-steps:{number}").name == f"last-steps:{number}"
