"""What figures show: the numbers handed to matplotlib, labels, files, and refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from plot_samples import append_progress, line, only, request, runs, said
from report_samples import write_run

from dstrl_cli.cli import main
from dstrl_cli.plots import canvas
from dstrl_cli.plots.curves import buffers, learning_curves
from dstrl_cli.plots.groups import panels
from dstrl_cli.plots.neurons import AXES, neurons
from dstrl_cli.plots.plotting import Options, plot_results
from dstrl_cli.plots.scores import against_sparsity, interquartile_means, profile, profiles
from dstrl_cli.report import intervals
from dstrl_cli.report.layerfile import read_layers
from dstrl_cli.report.neurons import DORMANT, over_time
from dstrl_cli.report.runs import load

matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is not installed")

RLX2 = "Hopper-v5/td3-rlx2/s0.9"
DENSE = "Hopper-v5/td3-dense/s0"


# --- learning curves ------------------------------------------------------------------------------


def test_a_learning_curve_is_the_mean_over_seeds_with_students_t(tmp_path: Path):
    runs(
        tmp_path, RLX2, [{0: 0, 500: 1, 1000: 4}, {0: 0, 500: 2, 1000: 4}, {0: 3, 500: 3, 1000: 4}]
    )
    figure = only(list(learning_curves(request(tmp_path)))).figure
    (axis,) = figure.axes
    assert axis.get_title() == "Hopper-v5"
    assert line(axis, "RLx2 (n=3)") == ([0, 500, 1000], [1, 2, 4])
    singles = [each for each in axis.get_lines() if each.get_label().startswith("_")]
    assert [list(each.get_ydata()) for each in singles] == [[0, 1, 4], [0, 2, 4], [3, 3, 4]]
    # t(2) = 4.3027; at step 500 s = 1, so that the interval is 2 +- 4.3027 / sqrt(3)
    (band,) = axis.collections
    at_500 = [y for x, y in band.get_paths()[0].vertices if x == 500]
    assert min(at_500) == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert max(at_500) == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-5)


def test_the_axis_shows_where_the_runs_are_however_far_an_interval_reaches(tmp_path: Path):
    runs(tmp_path, RLX2, [{0: 0, 1000: 0}, {0: 0, 1000: 0}, {0: 0, 1000: 100}])
    figure = only(list(learning_curves(request(tmp_path)))).figure
    (axis,) = figure.axes
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].min() < -100
    assert axis.get_ylim() == pytest.approx((-5, 105))


def test_tasks_have_panels_beside_their_mean_which_averages_within_seeds_first(tmp_path: Path):
    for task, curves in ((0, [{1000: 0}, {1000: 2}]), (3, [{1000: 4}, {1000: 10}])):
        runs(tmp_path, f"2DNav-v1.task{task}/td3-sst/s0.9", curves)
    assert [each.title for each in panels(load(tmp_path).runs)] == [
        "2DNav-v1, mean of 2 tasks",
        "2DNav-v1, task 0",
        "2DNav-v1, task 3",
    ]
    axes = only(list(learning_curves(request(tmp_path)))).figure.axes
    assert [line(axis, "SST (n=2)")[1] for axis in axes] == [[4.0], [1.0], [7.0]]


def test_only_steps_that_all_seeds_logged_are_averaged_and_that_is_said(tmp_path: Path):
    runs(tmp_path, RLX2, [{500: 1, 1000: 3}, {500: 3, 700: 9, 1000: 5}])
    drawing = only(list(learning_curves(request(tmp_path))))
    assert line(drawing.figure.axes[0], "RLx2 (n=2)") == ([500, 1000], [2, 4])
    assert drawing.notes == (
        "Hopper-v5, RLx2: only the 2 steps are shown that all seeds logged (the last is 1k)",
    )


def test_finished_and_unfinished_runs_are_never_averaged(tmp_path: Path):
    runs(tmp_path, RLX2, [{1000: 1}])
    runs(tmp_path, "Hopper-v5/td3-sst/s0.9", [{500: 7}], status=None)
    other = {500: 100.0, 1000: 100.0}
    (tmp_path / "more").mkdir()
    runs(tmp_path / "more", RLX2, [{}, other], status="failed")
    (tmp_path / "more" / RLX2 / "seed1").rename(tmp_path / RLX2 / "seed1")
    (axis,) = only(list(learning_curves(request(tmp_path, metric="all-evals")))).figure.axes
    assert line(axis, "RLx2 (n=1)") == ([1000], [1])
    assert line(axis, "SST (n=1)*") == ([500], [7])


def test_a_figure_says_how_many_seeds_the_interval_of_its_center_takes(tmp_path: Path):
    runs(tmp_path, RLX2, [{500: 1, 1000: k} for k in range(4)])
    figure = only(list(learning_curves(request(tmp_path, center="median")))).figure
    assert said(figure).startswith("median over seeds; no intervals: fewer than 5 seeds")


def test_buffers_and_distances_are_read_from_progress(tmp_path: Path):
    header = "step,buffer_size,policy_distance"
    runs(tmp_path, RLX2, [{1000: 1}, {1000: 1}])
    runs(tmp_path, DENSE, [{1000: 1}])
    append_progress(tmp_path / RLX2 / "seed0", header, ["0,0,", "500,500,0.1", "1000,600,0.3"])
    append_progress(tmp_path / RLX2 / "seed1", header, ["0,0,", "500,500,0.3", "1000,800,0.5"])
    append_progress(tmp_path / DENSE / "seed0", header, ["0,0,", "500,500,", "1000,1000,"])
    size, distance = only(list(buffers(request(tmp_path)))).figure.axes
    assert line(size, "RLx2 (n=2)") == ([0, 500, 1000], [0, 500, 700])
    assert line(size, "Dense (n=1)") == ([0, 500, 1000], [0, 500, 1000])
    assert line(distance, "RLx2 (n=2)") == ([500, 1000], [0.2, 0.4])


# --- one number per run ---------------------------------------------------------------------------


def test_return_against_sparsity_has_a_point_per_sparsity_and_dense_as_a_level(tmp_path: Path):
    runs(tmp_path, "Hopper-v5/td3-rlx2/s0.5", [{1000: 10}, {1000: 20}, {1000: 30}])
    runs(tmp_path, "Hopper-v5/td3-rlx2/s0.9", [{1000: 4}, {1000: 5}, {1000: 6}])
    runs(tmp_path, DENSE, [{1000: 50}])
    (axis,) = only(list(against_sparsity(request(tmp_path)))).figure.axes
    assert line(axis, "RLx2 (n=3)") == ([0.5, 0.9], [20, 5])
    assert set(line(axis, "Dense")[1]) == {50}
    assert [each.get_text() for each in axis.get_xticklabels()] == ["0.5", "0.9"]


def test_a_dense_level_bears_the_marks_of_its_runs(tmp_path: Path):
    for sparsity in ("s0.5", "s0.9"):
        runs(tmp_path, f"Hopper-v5/td3-rlx2/{sparsity}", [{1000: 10}, {1000: 20}, {1000: 30}])
    runs(tmp_path, DENSE, [{1000: 50}], status="failed")
    figure = only(list(against_sparsity(request(tmp_path)))).figure
    (axis,) = figure.axes
    assert [each.get_text() for each in axis.texts] == ["*"]
    assert "* unfinished runs only" in said(figure)


def test_interquartile_means_are_those_of_tables_with_their_intervals(tmp_path: Path):
    values = [1.0, 2.0, 3.0, 10.0, 50.0]
    runs(tmp_path, RLX2, [{1000: value} for value in values])
    runs(tmp_path, DENSE, [{1000: 5}, {1000: 6}])
    (axis,) = only(list(interquartile_means(request(tmp_path)))).figure.axes
    points = [each for each in axis.get_lines() if len(each.get_xdata()) == 1]
    bars = [list(each.get_xdata()) for each in axis.get_lines() if each.get_linewidth() == 1.8]
    assert [each.get_xdata()[0] for each in points] == [5.5, 5.0]  # (2 + 3 + 10) / 3
    wanted = intervals.interval([values], "iqm")
    assert bars == [[wanted.low, wanted.high]]
    assert [each.get_text() for each in axis.get_yticklabels()] == ["Dense", "RLx2"]


def test_several_environments_are_brought_to_one_scale_by_dense(tmp_path: Path):
    for env, dense in (("Hopper-v5", 10.0), ("Ant-v5", 200.0)):
        runs(tmp_path, f"{env}/td3-dense/s0", [{1000: dense}] * 3)
        runs(tmp_path, f"{env}/td3-rlx2/s0.9", [{1000: dense * k} for k in (0.4, 0.5, 0.6)])
    asked = request(tmp_path)
    assert asked.normalize == "dense"
    *single, overall = only(list(interquartile_means(asked))).figure.axes
    assert [axis.get_title() for axis in single] == ["Ant-v5", "Hopper-v5"]
    points = [each.get_xdata()[0] for each in overall.get_lines() if len(each.get_xdata()) == 1]
    assert points == pytest.approx([100, 50])
    (axis,) = only(list(profiles(asked))).figure.axes
    scores, share = line(axis, "RLx2 (n=3)")
    assert share[np.searchsorted(scores, 45)] == pytest.approx(2 / 3)


def test_environments_with_a_sparsity_each_share_a_figure_as_they_share_a_table(tmp_path: Path):
    for env, sparsity in (("Hopper-v5", "s0.9"), ("Ant-v5", "s0.8")):
        runs(tmp_path, f"{env}/td3-dense/s0", [{1000: 10.0}] * 3)
        runs(tmp_path, f"{env}/td3-mine/s0", [{1000: 5.0}] * 3)
        runs(tmp_path, f"{env}/td3-rlx2/{sparsity}", [{1000: k} for k in (4.0, 5.0, 6.0)])
    drawing = only(list(interquartile_means(request(tmp_path))))
    assert drawing.name == "iqm-td3-own"
    *single, overall = drawing.figure.axes
    assert [axis.get_title() for axis in single] == ["Ant-v5", "Hopper-v5"]
    points = [each.get_xdata()[0] for each in overall.get_lines() if len(each.get_xdata()) == 1]
    assert sorted(points) == pytest.approx([50, 50, 100])


def test_a_profile_is_the_share_of_runs_above_each_score():
    found = profile([np.array([1.0, 2.0]), np.array([3.0, 4.0])], np.array([0.5, 1.0, 2.5, 4.0]))
    assert found.share.tolist() == [1, 0.75, 0.5, 0]
    assert found.low is None  # two seeds have no interval
    many = profile([np.arange(5.0)], np.array([-1.0, 1.5, 9.0]))
    assert (many.low[0], many.high[0], many.low[2], many.high[2]) == (1, 1, 0, 0)
    assert many.low[1] < 0.6 < many.high[1]


# --- neurons --------------------------------------------------------------------------------------

NEURONS = (
    "step,network,layer,units,dormant,no_input,no_output,max_fan_in,paths,rank,saturated\n"
    "0,actor,0,8,0.25,1,0,5,20,,\n"
    "0,actor,1,4,0.5,0,1,7,60,3,\n"
    "0,actor,2,2,,0,,9,80,,0.25\n"
    "0,critic1,0,10,0.1,0,0,3,9,,\n"
    "0,critic2,0,10,0.3,0,0,5,9,,\n"
)


def test_neurons_are_shown_in_percent_of_the_layers_that_have_them(tmp_path: Path):
    (tmp_path / "neurons.csv").write_text(NEURONS)
    rows = read_layers(tmp_path / "neurons.csv", lambda *_: None)
    quantities = [axis.quantity for axis in AXES]
    shown = {each.column: over_time(rows, each, "actor")[1].tolist() for each in quantities}
    assert shown["dormant"] == [pytest.approx(100 / 3)]  # 2 and 2 of the 12 hidden neurons
    assert shown["no_input"] == [pytest.approx(100 / 12)]
    assert shown["paths"] == [80]  # of the last layer, whose fan-in does not count
    assert (shown["max_fan_in"], shown["rank"], shown["saturated"]) == ([7], [3], [0.25])
    assert over_time(rows, DORMANT, "critics")[1].tolist() == [20.0]  # mean of 10 and 30 %


def test_runs_without_neurons_have_no_figure_of_them(tmp_path: Path):
    runs(tmp_path, RLX2, [{1000: 1}, {1000: 1}])
    assert list(neurons(request(tmp_path))) == []
    (tmp_path / RLX2 / "seed0" / "neurons.csv").write_text(NEURONS)
    drawings = list(neurons(request(tmp_path)))
    scales = {axis.get_ylabel(): axis.get_yscale() for axis in drawings[0].figure.axes}
    assert scales["paths to last\nlayer"] == "symlog"
    assert scales["dormant, % of\nneurons"] == "linear"
    names = [each.name for each in drawings]
    assert names == ["neurons-actor-td3-s0.9", "neurons-critics-td3-s0.9"]


def test_a_finished_run_that_logged_nothing_hides_no_run_that_still_trains(tmp_path: Path):
    runs(tmp_path, RLX2, [{1000: 5.0}])
    write_run(tmp_path, f"{RLX2}/seed1", {1000: [7.0]}, status=None)
    (tmp_path / RLX2 / "seed0" / "eval.csv").write_text("step,episode,return,length\n")
    (axis,) = only(list(interquartile_means(request(tmp_path)))).figure.axes
    assert [each.get_xdata()[0] for each in axis.get_lines()] == [7, 7]
    (axis,) = (figure := only(list(profiles(request(tmp_path)))).figure).axes
    assert line(axis, "RLx2 (n=1)*")
    assert "* unfinished runs only" in said(figure)


def test_damaged_rows_of_layers_are_left_out_and_told(tmp_path: Path):
    told: list[str] = []
    path = tmp_path / "neurons.csv"
    path.write_text(NEURONS + "x,actor,0,8,0.25,1,0,5,20,,\n0,actor\n500,actor,0,8,0.25")
    rows = read_layers(path, lambda _, cause: told.append(cause))
    assert len(rows) == 5
    assert told == ["last line cut off, left out", "unusable rows left out: 2"]
    path.write_text("a,b\n1,2\n")
    assert len(read_layers(path, lambda _, cause: told.append(cause))) == 0
    assert "foreign header" in told[-1]


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["$x_1$", "a$b", r"\$5$", r"$\frac", "$$", r"\\$x$"])
def test_text_of_runs_is_never_read_as_a_formula(text):
    label = matplotlib.text.Text(0, 0, canvas.plain(text))
    shown, math_text = label._preprocess_math(label.get_text())
    assert (shown, math_text) == (text, False)


def test_control_characters_are_written_out_and_long_labels_cut():
    assert canvas.plain("a\nb\x1b[31m") == r"a\nb\x1b[31m"
    assert len(canvas.plain("x" * 500)) == canvas.MAX_TEXT


def test_labels_of_methods_are_drawn_as_they_are(tmp_path: Path):
    label = r"<b> & $\frac{1}{$ _x_"
    runs(tmp_path, "Hopper-v5/td3-mine/s0.9", [{1000: 1}], config={"method_label": label})
    with canvas.settings():
        (legend,) = only(list(learning_curves(request(tmp_path)))).figure.legends
    (text,) = legend.get_texts()
    assert text._preprocess_math(text.get_text()) == (f"{label} (n=1)", False)
    done = plot_results(tmp_path, tmp_path / "figures", Options(metric="final", kinds=["curves"]))
    assert len(done.files) == 3


def test_methods_differ_in_colour_dashes_and_marker():
    found = canvas.styles(["dense", *map(str, range(100))])
    assert len({(each.color, each.dashes, each.marker) for each in found.values()}) == 101
    near = [found[str(number)] for number in range(5)]
    for part in ("color", "dashes", "marker"):
        assert len({getattr(each, part) for each in near}) == 5


def test_numbers_of_axes_are_short():
    shown = [canvas.short(value) for value in (0, 0.25, 950, -2500, 1e6, 1.5e12, 2e15)]
    assert shown == ["0", "0.25", "950", "-2.5k", "1M", "1.5T", "2.0e15"]


# --- files and refusals ---------------------------------------------------------------------------


def test_each_figure_is_written_in_every_format_and_is_the_same_each_time(tmp_path: Path):
    runs(tmp_path / "results", RLX2, [{500: 1, 1000: 2}])
    made = []
    for name in ("a", "b"):
        done = plot_results(tmp_path / "results", tmp_path / name, Options(kinds=["curves"]))
        assert [path.name for path in done.files] == [
            f"curves-td3-s0.9.{each}" for each in ("png", "svg", "pdf")
        ]
        made.append([path.read_bytes() for path in done.files])
    assert made[0] == made[1]
    assert [content[:4] for content in made[0]] == [b"\x89PNG", b"<?xm", b"%PDF"]


def test_many_long_names_in_the_legend_leave_the_panels_their_height(tmp_path: Path):
    heights = []
    for count in (2, 12):
        with canvas.settings():
            figure, (axis,) = canvas.grid(1)
            for number in range(count):
                axis.plot([0, 1], label=f"a method with a name of forty letters {number}")
            canvas.legend(figure, [axis])
            canvas.save(figure, tmp_path / "figure.png")
        heights.append(axis.get_position().height * figure.get_figheight())
    assert heights[1] > 0.9 * heights[0] > 1  # inches


def test_the_legend_covers_no_curve(tmp_path: Path):
    runs(tmp_path, RLX2, [{500: 1, 1000: 2}])
    with canvas.settings():
        figure = only(list(learning_curves(request(tmp_path)))).figure
        figure.draw_without_rendering()
        (legend,), (axis,) = figure.legends, figure.axes
        assert not legend.get_window_extent().overlaps(axis.get_window_extent())


def test_the_command_says_what_it_wrote_and_what_it_left_out(tmp_path: Path, capsys):
    runs(tmp_path, RLX2, [{500: 1, 1000: 2}])
    out = tmp_path / "figures"
    command = ["plot", str(tmp_path), "--out", str(out), "--format", "png", "--metric", "final"]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == sorted(map(str, out.iterdir()), key=said["files"].index)
    assert said["left_out"].keys() == {"sparsity", "buffers", "neurons", "paths"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--kind", "curve"], "curves"),
        (["--kind", "neurons"], "neurons.csv"),
        (["--format", "jpg"], "png"),
        (["--center", "mode"], "median"),
        (["--normalize", "dense"], "td3-dense"),
        (["--target", "x"], "--target x"),
        (["--metric", "last"], "last-steps"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(tmp_path: Path, capsys, options, named):
    runs(tmp_path, RLX2, [{1000: 1}])
    out = tmp_path / "figures"
    assert main(["plot", str(tmp_path), "--out", str(out), *options]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: ")
    assert named in said
    assert not out.exists()


def test_a_folder_without_runs_or_a_file_as_folder_is_refused(tmp_path: Path, capsys):
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "figures")]) == 2
    assert "holds no runs" in capsys.readouterr().err
    runs(tmp_path, RLX2, [{1000: 1}])
    (tmp_path / "file").write_text("")
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "file")]) == 2
    assert "is not a folder" in " ".join(capsys.readouterr().err.split())


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, capsys, monkeypatch):
    runs(tmp_path, RLX2, [{1000: 1}])
    monkeypatch.setattr(canvas.importlib.util, "find_spec", lambda _: None)
    assert main(["plot", str(tmp_path), "--out", str(tmp_path / "figures")]) == 2
    assert 'pip install "dstrl[plot]"' in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "figures").exists()
