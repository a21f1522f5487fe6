"""What tables may show of their cells: centers, spreads, scales, improvement, bold, notes."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from report_samples import write_run
from rich.console import Console
from table_samples import cell, final, seeds

from dstrl_cli.cli import main
from dstrl_cli.errors import InputError
from dstrl_cli.report import tables
from dstrl_cli.report.comparing import Asked
from dstrl_cli.report.permutation import Plan
from dstrl_cli.report.render import render
from dstrl_cli.report.runs import load
from dstrl_cli.report.table import Row, Table
from dstrl_cli.report.tables import method_labels


def row(table: Table, method: str, section: int = 0) -> Row:
    (found,) = [row for row in table.sections[section].rows if row.method == method]
    return found


def markdown(table: Table) -> Mapping[str, str]:
    """The line of each method in Markdown."""
    lines = [line for line in render(table, "md").splitlines() if line.startswith("|")]
    return {line.split("|")[1].strip(): line for line in lines}


@pytest.fixture
def two_envs(tmp_path: Path) -> Path:
    """Returns of 100 to 130 and of 1000 to 2000."""
    for env, unit in (("Ant-v5", 1.0), ("Hopper-v5", 10.0)):
        seeds(tmp_path, f"{env}/td3-dense/s0", [unit * x for x in (90.0, 100.0, 110.0)])
        seeds(tmp_path, f"{env}/td3-dst/s0.95", [unit * x for x in (40.0, 50.0, 60.0)])
        seeds(tmp_path, f"{env}/td3-rlx2/s0.95", [unit * x for x in (85.0, 95.0, 120.0)])
    return tmp_path


# --- centers and spreads --------------------------------------------------------------------------


def test_without_options_a_table_is_mean_and_standard_deviation(two_envs: Path) -> None:
    lines = render(final(two_envs), "md").splitlines()
    assert lines[0].endswith("; mean ± standard deviation over seeds (ddof=0)")
    assert lines[-1] == "| RLx2 | 100.00 ± 14.72 n=3 | 1000.0 ± 147.2 n=3 |"


def test_the_standard_error_of_the_mean_by_hand(two_envs: Path) -> None:
    """Sum of squares 15² + 5² + 20² = 650: sqrt(650 / 2 / 3) = 10.41."""
    table = final(two_envs, spread="sem")
    assert cell(table, "rlx2", "Ant-v5").sem == pytest.approx(math.sqrt(650 / 6))
    assert "| RLx2 | 100.00 ± 10.41 n=3 |" in markdown(table)["RLx2"]
    assert "standard error of the mean over seeds (ddof=1)" in render(table, "md")


def test_an_interval_names_its_method_and_seeds(two_envs: Path) -> None:
    seeds(two_envs, "Hopper-v5/td3-sst/s0.95", [1.0, 2.0, 3.0, 4.0])
    table = final(two_envs, spread="interval")
    half = 4.3026527 * math.sqrt(650 / 6)
    assert f"100.00 [{100 - half:.2f}, {100 + half:.2f}\\] n=3" in markdown(table)["RLx2"]
    assert "95 % intervals: Student's t (n=3, 4)" in render(table, "rich", Console(width=80))
    document = json.loads(render(table, "json"))
    found = document["sections"][0]["rows"][0]["cells"]["Ant-v5"]
    assert (document["spread"], found["interval_method"]) == ("interval", "Student's t")


def test_a_median_has_an_interval_from_five_seeds_on(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [9.0, 1.0, 2.0, 4.0, 3.0])
    seeds(tmp_path, "Hopper-v5/td3-rlx2/s0.95", [9.0, 1.0, 2.0, 4.0])
    table = final(tmp_path, center="median")
    found = cell(table, "dst", "Hopper-v5")
    assert found.interval is not None
    assert (found.center, found.interval.low, found.interval.high) == (3.0, 1.0, 9.0)
    few = cell(table, "rlx2", "Hopper-v5")
    assert (few.center, few.interval, few.marks) == (3.0, None, {"few_seeds"})
    assert "order statistics (n=5)" in render(table, "md")


def test_a_single_seed_has_no_standard_error(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [9.0])
    table = final(tmp_path, spread="sem")
    assert cell(table, "dst", "Hopper-v5").marks == {"few_seeds"}
    assert "| DST | 9.000 n=1\\~ |" in render(table, "md")


def test_a_single_seed_has_no_standard_deviation(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [9.0])
    assert "| DST | 9.000 n=1 |" in render(final(tmp_path), "md")


def test_programs_get_the_sparsity_of_dense_methods_as_it_is(two_envs: Path) -> None:
    found = list(csv.DictReader(io.StringIO(render(final(two_envs), "csv"))))
    assert {(each["method"], each["section"], each["sparsity"]) for each in found} == {
        ("dense", "s0.95", "s0"),
        ("dst", "s0.95", "s0.95"),
        ("rlx2", "s0.95", "s0.95"),
    }
    rows = json.loads(render(final(two_envs), "json"))["sections"][0]["rows"]
    assert [(each["method"], each["dense"]) for each in rows] == [
        ("dense", True),
        ("dst", False),
        ("rlx2", False),
    ]


# --- percent of dense -----------------------------------------------------------------------------


def test_percent_of_dense_by_hand(two_envs: Path) -> None:
    table = final(two_envs, normalize="dense")
    assert cell(table, "dst", "Hopper-v5").values == {0: 40.0, 1: 50.0, 2: 60.0}
    assert cell(table, "dense", "Ant-v5").mean == 100.0
    assert "percent of the dense mean" in render(table, "md").splitlines()[0]


def test_all_environments_are_averaged_where_values_are_normalised(two_envs: Path) -> None:
    """DST: variances of the means 100/3 each, se = sqrt(200/3) / 2, 4 degrees of freedom."""
    table = final(two_envs, normalize="dense")
    overall = row(table, "dst").overall
    assert overall is not None
    assert overall.interval is not None
    assert (overall.center, overall.counts) == (50.0, (3, 3))
    half = 2.7764451 * math.sqrt(200 / 3) / 2
    assert overall.interval.high == pytest.approx(50 + half)
    text = render(table, "rich", Console(width=120))
    assert "all environments" in text
    assert f"50.00 [{50 - half:.2f}, {50 + half:.2f}] n=3" in text
    assert "95 % intervals: Satterthwaite's t (all environments)" in text
    assert row(final(two_envs), "dst").overall is None


def test_a_method_that_lacks_an_environment_has_no_average(two_envs: Path) -> None:
    seeds(two_envs, "Hopper-v5/td3-sst/s0.95", [1.0, 2.0, 3.0])
    table = final(two_envs, normalize="dense")
    assert row(table, "sst").overall is None
    assert markdown(table)["SST"].endswith("| – |")


def test_where_the_dense_mean_is_negative_random_actions_are_zero(tmp_path: Path) -> None:
    """Random actions return -50 and -70 in the warm-up of 250 steps; the dense mean is -20."""
    returns = {"episodes": {100: [-50.0], 250: [-70.0], 300: [0.0]}}
    config = {"learning_starts": 250}
    seeds(tmp_path, "Hopper-v5/td3-dense/s0", [-20.0], config=config, **returns)
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [-40.0, -10.0], config=config, **returns)
    with pytest.raises(InputError, match=r"Hopper-v5: .* is -20, not above 0; .*random-dense"):
        final(tmp_path, normalize="dense")
    table = final(tmp_path, normalize="random-dense")
    assert cell(table, "dst", "Hopper-v5").values == {0: 50.0, 1: 125.0}
    with pytest.raises(InputError, match=r"--normalize random-dense and metric 'lca'"):
        tables.table(tmp_path, metric="lca", normalize="random-dense")


def test_no_method_is_shown_in_percent_of_a_dense_run_that_still_trains(two_envs: Path) -> None:
    for seed in range(3):
        (two_envs / f"Hopper-v5/td3-dense/s0/seed{seed}/summary.json").unlink()
    table = final(two_envs, normalize="dense")
    assert table.envs == ("Ant-v5",)
    assert any("dense to normalise by has finished" in note for note in table.notes)


def test_runs_of_which_some_have_not_finished_are_in_no_average(two_envs: Path) -> None:
    for seed in range(3):
        (two_envs / f"Hopper-v5/td3-dst/s0.95/seed{seed}/summary.json").unlink()
    assert row(final(two_envs, normalize="dense"), "dst").overall is None


@pytest.mark.parametrize("taught", [{"prefill_from": "a/run"}, {"expert": "a/run"}])
def test_episodes_of_a_trained_policy_are_none_of_random_actions(
    tmp_path: Path, taught: dict[str, str]
) -> None:
    config = {"learning_starts": 250}
    random, good = {"episodes": {100: [-50.0]}}, {"episodes": {100: [900.0]}}
    seeds(tmp_path, "Hopper-v5/td3-dense/s0", [0.0], config=config, **random)
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [-25.0], config=config | taught, **good)
    table = final(tmp_path, normalize="random-dense")
    assert cell(table, "dst", "Hopper-v5").values == {0: 50.0}


def test_environments_without_a_reference_are_left_out_and_said(two_envs: Path) -> None:
    seeds(two_envs, "Walker2d-v5/td3-dst/s0.95", [5.0])
    table = final(two_envs, normalize="dense")
    assert table.envs == ("Ant-v5", "Hopper-v5")
    assert "Walker2d-v5: not shown, no run of td3-dense to normalise by" in table.notes
    with pytest.raises(InputError, match="no training episode ended within the warm-up"):
        final(two_envs, normalize="random-dense")


def test_values_that_no_number_holds_are_left_out_and_said(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dense/s0", [1e-300, 2e-300])
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1e10])
    table = final(tmp_path, normalize="dense")
    assert [row.method for row in table.sections[0].rows] == ["dense"]
    assert "Hopper-v5: dst not shown, too large a multiple of the dense mean" in table.notes
    json.loads(render(table, "json"))


# --- improvement and bold -------------------------------------------------------------------------


def test_the_probability_of_improvement_over_a_method(two_envs: Path) -> None:
    """RLx2's 85, 95 and 120 against 90, 100 and 110: 0 + 1 + 3 of 9 pairs."""
    table = final(two_envs, against="dense")
    found = cell(table, "rlx2", "Ant-v5").improvement
    assert found is not None
    assert found.value == pytest.approx(4 / 9)
    assert cell(table, "dense", "Ant-v5").improvement is None
    overall = row(table, "rlx2").overall
    assert overall is not None
    assert overall.improvement is not None
    assert (overall.center, overall.improvement.value) == (None, pytest.approx(4 / 9))
    text = render(table, "rich", Console(width=160))
    assert "P(> Dense)" in text
    assert "all environments: P(> Dense)" in text
    assert "0.44 [" in text


def test_unfinished_runs_are_no_improvement(two_envs: Path) -> None:
    seeds(two_envs, "Ant-v5/td3-sst/s0.95", [1.0, 2.0, 3.0], status="interrupted")
    assert cell(final(two_envs, against="dst"), "sst", "Ant-v5").improvement is None
    against = final(two_envs, against="sst")
    assert cell(against, "dst", "Ant-v5").improvement is None


def test_only_the_best_is_bold_or_all_within_its_interval(two_envs: Path) -> None:
    best = markdown(final(two_envs, bold="best"))
    assert best["Dense"].count("**") == 4  # equal means are both the best
    assert best["RLx2"].count("**") == 4
    assert best["DST"].count("**") == 0
    seeds(two_envs, "Ant-v5/td3-sst/s0.95", [99.0, 99.5, 99.25])
    within = markdown(final(two_envs, bold="within"))
    assert "**99.25 ± 0.20 n=3**" in within["SST"]
    assert within["DST"].count("**") == 0
    latex = render(final(two_envs, bold="best"), "latex")
    assert "Dense & \\textbf{100.00 $\\pm$ 8.16 n=3}" in latex


def test_unfinished_runs_are_never_the_best(two_envs: Path) -> None:
    seeds(two_envs, "Ant-v5/td3-sst/s0.95", [999.0], status="interrupted")
    lines = markdown(final(two_envs, bold="best"))
    assert "**" not in lines["SST"]
    assert "**" in lines["RLx2"]


def test_csv_holds_what_was_asked_for(two_envs: Path) -> None:
    table = final(two_envs, normalize="dense", against="dense", bold="best")
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    (overall,) = [
        each for each in rows if (each["method"], each["env"]) == ("rlx2", "all environments")
    ]
    assert float(overall["center"]) == pytest.approx(100.0)
    assert (overall["interval"], overall["n"]) == ("Satterthwaite's t", "3")
    assert float(overall["improvement"]) == pytest.approx(4 / 9)
    assert {each["bold"] for each in rows} == {"True", "False"}


@pytest.mark.parametrize("width", [60, 80, 200])
def test_wide_tables_fold_and_cut_nothing(two_envs: Path, width: int) -> None:
    table = final(two_envs, normalize="dense", against="dst", spread="interval", bold="within")
    text = render(table, "rich", Console(width=width))
    grid = text.partition("95 % intervals")[0]
    assert max(map(len, grid.splitlines())) <= width
    assert "…" not in text
    assert "[55.22," in text


def test_methods_of_one_label_are_told_apart(tmp_path: Path) -> None:
    for method, finals in (("mine", [1.0, 2.0]), ("other", [5.0, 6.0])):
        config = {"method_label": "Mine"}
        seeds(tmp_path, f"Hopper-v5/td3-{method}/s0.95", finals, config=config)
    table = final(tmp_path, bold="best", test=Asked(Plan()))
    lines = markdown(table)
    assert "**" not in lines["Mine (mine)"]
    assert "**5.5" in lines["Mine (other)"]
    assert "Mine (mine) : Mine (other)" in lines


def test_runs_of_one_method_with_several_labels_have_that_of_the_first(tmp_path: Path) -> None:
    for seed, label in enumerate(("Mine", "Old")):
        config = {"method_label": label}
        write_run(tmp_path, f"Hopper-v5/td3-mine/s0.95/seed{seed}", {1000: [1.0]}, config=config)
    assert {name: each.label for name, each in method_labels(load(tmp_path).runs).items()} == {
        "mine": "Mine"
    }
    assert "Mine" in markdown(final(tmp_path))


@pytest.mark.parametrize("terminal", [True, False])
def test_notes_below_a_table_are_wrapped_at_words_in_a_terminal_alone(
    two_envs: Path, terminal: bool
) -> None:
    table = final(two_envs, against="dst", spread="interval")
    console = Console(width=60, force_terminal=terminal, color_system=None)
    lines = render(table, "rich", console).splitlines()
    note = "P(> ...): probability that a run of the method beats one of the other, ties half;"
    assert any(note in line for line in lines) == (not terminal)
    assert (max(map(len, lines)) <= 60) == terminal
    assert note in " ".join(" ".join(lines).split())


# --- notes ----------------------------------------------------------------------------------------


def test_runs_of_different_length_versions_and_commits_are_said(tmp_path: Path) -> None:
    def origin(version: str, commit: str | None) -> dict[str, Any]:
        return {"run": {"versions": {"dstrl": version}, "git_commit": commit}}

    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0, 2.0], config=origin("0.1.0", "a" * 40))
    other = {"steps": 5_000, **origin("0.2.0", "b" * 40)}
    seeds(tmp_path, "Hopper-v5/td3-rlx2/s0.95", [1.0, 2.0], config=other, summary={"steps": 1000})
    assert final(tmp_path).notes == (
        "runs of different length: 1,000 steps (2 runs), 5,000 steps (2 runs)",
        "runs of different versions of dstrl: 0.1.0 (2 runs), 0.2.0 (2 runs)",
        f"runs of different commits of dstrl: {'a' * 12} (2 runs), {'b' * 12} (2 runs)",
    )


def test_runs_on_different_versions_of_the_physics_are_said(tmp_path: Path) -> None:
    for seed, mujoco in enumerate(("3.2.0", "3.3.7")):
        run = {"versions": {"dstrl": "0.1.0", "mujoco": mujoco, "torch": "2.13.0"}}
        path = f"Hopper-v5/td3-dst/s0.95/seed{seed}"
        write_run(tmp_path, path, {1000: [1.0]}, config={"run": run})
    assert final(tmp_path).notes == (
        "runs of different versions of MuJoCo: 3.2.0 (1 run), 3.3.7 (1 run)",
    )


@pytest.mark.parametrize(
    "run", [None, "x", {"versions": None, "git_commit": None}, {"versions": 3}]
)
def test_a_run_that_says_nothing_of_its_origin_is_shown(tmp_path: Path, run: Any) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0], config={"run": run})
    assert final(tmp_path).notes == ()


def test_missing_seeds_are_said_and_unfinished_ones_not_twice(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0, 2.0, 3.0, 4.0])
    seeds(tmp_path, "Hopper-v5/td3-rlx2/s0.95", [1.0])
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.95/seed1", {5: [1.0]}, status="failed")
    assert final(tmp_path).notes == ("Hopper-v5: RLx2 has no seed 2, 3, others have",)


def test_the_command_line_takes_what_tables_take(
    two_envs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--metric=final", "--center=iqm", "--spread=std", "--normalize=dense", "--bold=best"]
    assert main(["table", str(two_envs), *options, "--against=dst", "--format=md"]) == 0
    text = capsys.readouterr().out
    assert "| **100.00 ± 14.72 n=3** | 1.00 [" in text
