"""Metrics of one run, worked by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import write_run

from dstrl_cli.config.metrics import DEFAULT_METRIC, METRICS
from dstrl_cli.errors import InputError
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.metrics import KINDS, common_metric, parse
from dstrl_cli.report.runs import LoggedRun, load

# the start is far off: any metric that lets it in is wrong
EVALUATIONS = {0: [-999.0, -999.0], 100: [1.0, 3.0], 200: [4.0, 6.0], 300: [9.0, 9.0], 400: [7.0]}
# per evaluation:                        2             5             9             7
EPISODES = {50: [10.0], 150: [20.0], 250: [60.0]}


@pytest.fixture
def run(tmp_path: Path) -> LoggedRun:
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
        ("first-episodes:1", 10),
        ("first-episodes:2", 15),
        ("first-episodes:3", 30),
        ("lca", 23 / 400),
        ("final", 7),
        ("best", 9),
        ("last-steps:1e2", 7),
    ],
)
def test_by_hand(run: LoggedRun, name: str, value: float) -> None:
    result = parse(name).compute(run)
    assert result is not None
    assert result.value == pytest.approx(value)
    assert result.marks == frozenset()


@pytest.mark.parametrize("name", ["last-steps:401", "last-evals:5", DEFAULT_METRIC])
def test_a_window_longer_than_the_run_is_marked(run: LoggedRun, name: str) -> None:
    result = parse(name).compute(run)
    assert result is not None
    assert result.value == pytest.approx(23 / 4)
    assert result.marks == {Mark.WINDOW}


def test_a_run_with_fewer_episodes_than_are_asked_for_is_marked(run: LoggedRun) -> None:
    result = parse("first-episodes:4").compute(run)
    assert result is not None
    assert (result.value, result.marks) == (30, {Mark.WINDOW})


def test_a_success_before_the_first_training_is_marked_as_a_return_is(tmp_path: Path) -> None:
    """With 64 steps between trainings and 100 random steps, training begins at step 128."""
    config = {"learning_starts": 100, "train_freq": 64}
    path = "Hopper-v5/td3-dst/s0.95/seed0"
    folder = write_run(tmp_path, path, {0: [5.0], 120: [7.0]}, config=config)
    (folder / "eval.csv").write_text("step,episode,return,length,success\n120,0,7.0,5,1\n")
    (run,) = load(tmp_path).runs
    for name, value in (("success", 1.0), ("final", 7.0)):
        found = parse(name).compute(run)
        assert found is not None
        assert (found.value, found.marks) == (value, {Mark.UNTRAINED})


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
    result = parse(DEFAULT_METRIC).compute(load(tmp_path).runs[0])
    assert result is not None
    assert result.value == pytest.approx(sum(range(176, 201)) / 25)
    assert result.marks == frozenset()


WARM_UP = {0: [-999.0], 100: [-999.0], 200: [-999.0], 300: [4.0], 400: [6.0]}


@pytest.mark.parametrize(
    ("name", "value", "marks"),
    [
        ("last-steps:200", 5, set()),
        ("last-steps:201", 5, {Mark.WINDOW}),
        ("last-steps:125000", 5, {Mark.WINDOW}),
        ("last-evals:2", 5, set()),
        ("last-evals:3", 5, {Mark.WINDOW}),
        ("final", 6, set()),
        ("best", 6, set()),
        ("all-evals", (-999 - 999 + 4 + 6) / 4, set()),  # over the whole run, as the papers sum
        ("lca", (-999 - 999 + 4 + 6) / 400, set()),
    ],
)
def test_no_window_contains_the_policy_of_step_0(
    tmp_path: Path, name: str, value: float, marks: set[Mark]
) -> None:
    """Until step 200 nothing is learned, so that every evaluation is the one of step 0."""
    path = "Hopper-v5/td3-dst/s0.95/seed0"
    write_run(tmp_path, path, WARM_UP, config={"learning_starts": 200})
    result = parse(name).compute(load(tmp_path).runs[0])
    assert result is not None
    assert (result.value, result.marks) == (pytest.approx(value), marks)


@pytest.mark.parametrize("name", ["last-steps:100", "last-evals:1", "final", "best", "all-evals"])
def test_a_run_that_never_trained_is_marked(tmp_path: Path, name: str) -> None:
    path = "Hopper-v5/td3-dst/s0.95/seed0"
    write_run(tmp_path, path, {0: [5.0], 100: [7.0]}, config={"learning_starts": 100})
    result = parse(name).compute(load(tmp_path).runs[0])
    assert result is not None
    assert (result.value, result.marks) == (7.0, {Mark.UNTRAINED})


def test_every_named_metric_is_computed() -> None:
    assert set(METRICS) == set(KINDS)


def named(root: Path, *metrics: str | None) -> tuple[str, str | None]:
    """Return the metric, and the note, of runs that name these metrics in their config.yaml."""
    for seed, metric in enumerate(metrics):
        path = f"Hopper-v5/td3-dst/s0.95/seed{seed}"
        write_run(root, path, {5: [1.0]}, config={"metric": metric})
    chosen, note = common_metric(load(root).runs)
    return chosen.name, note


def test_the_metric_that_all_runs_name_is_taken(tmp_path: Path) -> None:
    assert named(tmp_path, "last-steps:1e3", "last-steps:1000") == ("last-steps:1000", None)


@pytest.mark.parametrize("metrics", [(None, None), ("last-steps:125000", None), ("of tomorrow",)])
def test_runs_that_name_no_metric_have_the_default(
    tmp_path: Path, metrics: tuple[str | None, ...]
) -> None:
    assert named(tmp_path, *metrics) == (DEFAULT_METRIC, None)


def test_where_runs_disagree_the_default_is_taken_and_said(tmp_path: Path) -> None:
    assert named(tmp_path, "final", "final", None) == (
        DEFAULT_METRIC,
        "the runs ask for different metrics: final (2 runs), last-steps:125000 (1 run); "
        "shown is the default",
    )


@pytest.mark.parametrize(
    "name", ["final", "last-steps:5", "all-episodes", "first-episodes:2", "lca", "best"]
)
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
        ("first-episodes", r"takes a number, first-episodes:COUNT"),
        ("first-episodes:0", "whole number of at least 1"),
    ],
)
def test_errors_name_the_metric(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(name)


@given(st.integers(1, 10**12))
def test_any_number_is_taken_and_kept(number: int) -> None:
    assert parse(f"last-steps:{number}").name == f"last-steps:{number}"
