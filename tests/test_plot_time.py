"""The figure of the time to a return: when runs reach it, what it is, and what is refused."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from plot_samples import append_progress, only, request, runs, said

from dstrl_cli.errors import InputError
from dstrl_cli.plots import canvas
from dstrl_cli.plots.reach import flops_until, median_time, reached, share_words, time_to_return
from dstrl_cli.plots.targets import parse_targets
from dstrl_cli.report.runs import load

matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is not installed")

RLX2 = "Hopper-v5/td3-rlx2/s0.9"
DENSE = "Hopper-v5/td3-dense/s0"


def test_the_time_to_a_return_is_that_of_the_first_evaluation_with_it(tmp_path: Path):
    flops = {"flops": {"train_total": 1000.0}}
    runs(tmp_path, RLX2, [{0: 9, 500: 1, 1000: 5, 1500: 2}], summary=flops)
    rows = ["0,1", "500,3", "1000,7", "1500,11"]
    append_progress(tmp_path / RLX2 / "seed0", "step,time_s", rows)
    (run,) = load(tmp_path).runs
    there = reached(run, 4.0)
    # learning starts at 0, so that two of three equal intervals of updates are done
    assert (there.reached, there.at) == (True, (1000, pytest.approx(2000 / 3), 7))
    never = reached(run, 6.0)  # that of step 0 does not count: it is the untrained policy
    assert (never.reached, never.logged) == (False, (1500, pytest.approx(1000), 11))


def test_an_untrained_policy_reaches_nothing(tmp_path: Path):
    runs(tmp_path, RLX2, [{0: 9, 500: 9, 1000: 5}], config={"learning_starts": 500})
    (run,) = load(tmp_path).runs
    assert not reached(run, 6.0).reached
    assert reached(run, 5.0).at[0] == 1000


def test_training_flops_follow_connections_that_become_fewer(tmp_path: Path):
    flops = {"flops": {"train_total": 700.0}}
    runs(tmp_path, RLX2, [{0: 0, 500: 1, 1000: 2}], summary=flops)
    header = "step,actor_active,critic_active"
    append_progress(tmp_path / RLX2 / "seed0", header, ["0,40,80", "500,20,40", "1000,0,0"])
    (run,) = load(tmp_path).runs
    # connections in the mean: 3/4 of the first in the first half, 1/4 in the second
    assert flops_until(run, 500) == pytest.approx(700 * 3 / 4)


def test_training_flops_of_an_algorithm_without_critics_are_those_of_its_actor(tmp_path: Path):
    path, flops = "Hopper-v5/bc-sst/s0.9", {"flops": {"train_total": 700.0}}
    runs(tmp_path, path, [{0: 0, 500: 1, 1000: 2}], summary=flops)
    header = "step,actor_active,critic_active"
    append_progress(tmp_path / path / "seed0", header, ["0,40,0", "500,20,0", "1000,0,0"])
    (run,) = load(tmp_path).runs
    assert flops_until(run, 500) == pytest.approx(700 * 3 / 4)


def test_runs_that_never_get_there_count_last_in_the_median():
    assert median_time([3.0, None, 1.0]) == 3.0
    assert median_time([3.0, None, None]) is None
    assert median_time([1.0, 3.0]) == 2.0


def test_the_default_target_is_a_share_of_the_way_to_dense(tmp_path: Path):
    runs(tmp_path, DENSE, [{0: 10, 500: 50, 1000: 110}])
    runs(tmp_path, RLX2, [{0: 10, 500: 101, 1000: 90}])
    steps, *_ = only(list(time_to_return(request(tmp_path)))).figure.axes
    assert steps.get_title(loc="left") == "Hopper-v5: return 100"
    assert [each.get_text() for each in steps.get_yticklabels()] == ["Dense 1/1", "RLx2 1/1"]
    asked = request(tmp_path, targets=parse_targets(["Hopper-v5=105"]))
    steps, *_ = only(list(time_to_return(asked))).figure.axes
    assert [each.get_text() for each in steps.get_yticklabels()] == ["Dense 1/1", "RLx2 0/1"]


def test_marks_at_the_very_beginning_are_whole_and_leave_the_axes_their_room(tmp_path: Path):
    for env in ("Hopper-v5", "InvertedPendulum-v5"):
        for method in ("dense/s0", "sst/s0.9", "set/s0.9", "rigl/s0.9", "rlx2/s0.9"):
            runs(tmp_path, f"{env}/td3-{method}", [{0: 0, 1: 100, 1000: 100}] * 2)
    figure = only(list(time_to_return(request(tmp_path)))).figure
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where a layout has no room for its axes
        canvas.save(figure, tmp_path / "time.png")
    marks = [each for axis in figure.axes for each in axis.get_lines() if each.get_marker() == "s"]
    assert marks
    assert not any(each.get_clip_on() for each in marks)


def test_a_figure_says_where_its_target_returns_come_from(tmp_path: Path):
    runs(tmp_path, DENSE, [{0: 0, 500: 100, 1000: 100}])
    asked = request(tmp_path, targets=parse_targets(["80%"]))
    (section,) = asked.sections
    words = "80 % of the way from that of untrained agents to that of dense agents"
    assert words in share_words(asked, section)
    assert share_words(replace(asked, targets=parse_targets(["105"])), section) == ""


@pytest.mark.parametrize("metric", ["lca", "first-episodes:1"])
def test_a_metric_of_another_scale_sets_no_return_to_reach(tmp_path: Path, metric: str):
    runs(tmp_path, DENSE, [{0: 10, 500: 50, 1000: 110}], episodes={500: [7]})
    figure = only(list(time_to_return(request(tmp_path, metric=metric)))).figure
    assert figure.axes[0].get_title(loc="left") == "Hopper-v5: return 100"
    assert "to that of dense agents (final)" in said(figure)


@pytest.mark.parametrize("text", ["much", "Hopper-v5=", "nan", "0%", "120%"])
def test_targets_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--target"):
        parse_targets([text])


def test_a_target_for_an_environment_without_runs_is_refused(tmp_path: Path):
    runs(tmp_path, RLX2, [{1000: 1}])
    with pytest.raises(InputError, match="Hoper-v5"):
        list(time_to_return(request(tmp_path, targets=parse_targets(["Hoper-v5=3"]))))
