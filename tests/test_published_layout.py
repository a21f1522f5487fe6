"""Tables beside published ones: their metric, percent of dense, sizes, order and layout; tasks."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from report_samples import write_run
from rich.console import Console
from table_samples import SUMMARY, cell, final, seeds

from dstrl_cli.cli import main
from dstrl_cli.report import tables
from dstrl_cli.report.grids import grids
from dstrl_cli.report.papers import published
from dstrl_cli.report.render import render

OWN = {"Hopper-v3": "a0.98-c0.95", "Ant-v3": "a0.96-c0.88"}


@pytest.fixture
def rlx(tmp_path: Path) -> Path:
    """Dense and two methods, each environment at its own sparsity, as in RLX's Table 2."""
    for env, label in OWN.items():
        seeds(tmp_path, f"{env}/td3-dense/s0", [200.0, 200.0, 200.0], summary=SUMMARY)
        seeds(tmp_path, f"{env}/td3-rlx2/{label}", [190.0, 194.0, 198.0], summary=SUMMARY)
        seeds(tmp_path, f"{env}/td3-rigl/{label}", [100.0, 100.0, 130.0], summary=SUMMARY)
    return tmp_path


def test_environments_that_have_a_sparsity_of_their_own_share_a_section(rlx: Path) -> None:
    table = final(rlx)
    (section,) = table.sections
    assert section.title == (
        "TD3, sparsity by environment: Ant-v3 a0.96-c0.88, Hopper-v3 a0.98-c0.95"
    )
    assert [row.method for row in section.rows] == ["dense", "rlx2", "rigl"]
    assert section.envs == ("Ant-v3", "Hopper-v3")
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    found = {(row["env"], row["sparsity"]) for row in rows if row["method"] == "rlx2"}
    assert found == set(OWN.items())


def test_an_environment_with_two_sparsities_keeps_sections_apart(rlx: Path) -> None:
    seeds(rlx, "Ant-v3/td3-rlx2/s0.5", [1.0])
    titles = [section.title for section in final(rlx).sections]
    assert len(titles) == 3
    assert "TD3, sparsity 0.5" in titles


def test_beside_rlx_a_table_has_its_metric_percent_sizes_and_layout(rlx: Path) -> None:
    table = tables.table(rlx, compare="rlx2:2")
    assert (table.metric.name, table.look.normalize) == ("last-evals:30", "dense")
    assert table.extra == ("params", "flops")
    assert cell(table, "rlx2", "Ant-v3").center == pytest.approx(97.0)
    values, costs = grids(table)
    (grid,) = values
    assert grid.groups == (("Dense", "rlx2:2"), ("RigL", "rlx2:2"), ("RLx2", "rlx2:2"))
    assert [label for label, _ in grid.rows] == ["Hopper-v3", "Ant-v3", "all environments"]
    published_average = grid.rows[-1][1][-1].parts
    assert published_average == ["99.70%"]  # RLX Table 2, the average of RLx2 with TD3
    (cost,) = costs
    assert cost.headings == (
        "RLx2 parameters",
        "rlx2:2 parameters",
        "FLOPs",
        "rlx2:2 FLOPs",
    )
    assert cost.rows[0][1][3].parts == ["train 0.043x", "test 0.020x"]


def test_what_a_user_says_beats_what_is_published(rlx: Path) -> None:
    table = tables.table(rlx, metric="final", compare="rlx2:2", normalize="none", columns=["none"])
    assert (table.metric.name, table.look.normalize, table.extra) == ("final", None, ())


def test_the_metric_that_runs_ask_for_beats_the_published_one(tmp_path: Path) -> None:
    write_run(tmp_path, "Ant-v2/td3-rlx2/s0.95/seed0", {1000: [1.0]}, config={"metric": "best"})
    assert tables.table(tmp_path, compare="xu2024:I").metric.name == "best"


def test_without_dense_runs_nothing_is_normalised(tmp_path: Path) -> None:
    seeds(tmp_path, "Ant-v3/td3-rlx2/a0.96-c0.88", [5.0])
    table = tables.table(tmp_path, compare="rlx2:2")
    assert table.look.normalize is None
    assert "rlx2:2 publishes percent of the dense return" in table.notes


def test_environments_come_in_the_published_order(tmp_path: Path) -> None:
    for env in ("AntNav", "ReacherNav", "2DNav-v2"):
        seeds(tmp_path, f"{env}/td3-sst/s0.95", [1.0])
    ((grid,),) = grids(final(tmp_path, compare="xu2024:III"))
    assert [group[0] for group in grid.groups] == ["2DNav-v2", "ReacherNav", "AntNav"]


def test_every_published_method_of_a_table_is_one_that_a_preset_trains() -> None:
    """`rlx2-table3` and `-table6` give the other rules and the buffers that RLX ablates."""
    for name, method, env in (
        ("rlx2:3", "tiny", "Hopper-v3"),
        ("rlx2:3", "rlx-set", "Hopper-v3"),
        ("rlx2:3", "rlx2+nstep5", "Hopper-v3"),
        ("rlx2:6", "rlx2+buffer_size50000", "Ant-v3"),
        ("rlx2:6", "rlx2+buffer_size3000000", "Ant-v3"),
        ("rlx2:6", "rlx2", "Ant-v3"),
        ("sokar2022:2", "dst", "Ant-v3"),
        ("sokar2022:5", "dst", "Ant-v3"),
    ):
        algo = "sac" if name.endswith(":5") else "td3"
        assert published(name).find(algo, method, env, "s0.5") is not None, (name, method)


# --- tasks ----------------------------------------------------------------------------------------


@pytest.fixture
def navigation(tmp_path: Path) -> Path:
    """Two seeds of two tasks: RLx2 returns -1, -3 (task 0) and -5, -7 (task 1); dense half."""
    for method, label, factor in (("dense", "s0", 0.5), ("rlx2", "s0.95", 1.0)):
        for task, first in ((0, -1.0), (1, -5.0)):
            for seed in (0, 1):
                path = f"2DNav-v1.task{task}/td3-{method}/{label}/seed{seed}"
                write_run(
                    tmp_path,
                    path,
                    {1000: [factor * (first - 2 * seed)]},
                    episodes={50: [-21.0 - 4 * task]},
                    config={"learning_starts": 100},
                )
    return tmp_path


def test_tasks_have_rows_below_their_average(navigation: Path) -> None:
    table = final(navigation, by_task=True)
    assert cell(table, "rlx2", "2DNav-v1").values == {0: -3.0, 1: -5.0}
    (section,) = table.by_task
    (rlx2,) = (row for row in section.rows if row.method == "rlx2")
    assert rlx2.cells["2DNav-v1.task1"].values == {0: -5.0, 1: -7.0}
    text = " ".join(render(table, "rich", Console(width=80)).split())
    assert "2DNav-v1: TD3, sparsity 0.95 task Dense RLx2" in text
    assert "all tasks -2.000 ± 0.500 n=2 -4.000 ± 1.000 n=2" in text
    assert "task 1 -3.000 ± 0.500 n=2 -6.000 ± 1.000 n=2" in text
    assert table.envs == ("2DNav-v1",)


def test_tasks_show_the_improvement_over_a_method(navigation: Path) -> None:
    """RLx2 is below dense in all pairs but one, a tie, of task 1: -5 and -7, -3 and -2.5."""
    table = final(navigation, by_task=True, against="dense")
    (section,) = table.by_task
    (rlx2,) = (row for row in section.rows if row.method == "rlx2")
    found = rlx2.cells["2DNav-v1.task1"].improvement
    assert found is not None
    assert (found.value, rlx2.overall) == (0.0, None)
    assert "| task 1 | -3.000 ± 0.500 n=2 | – | -6.000 ± 1.000 n=2 | 0.00 |" in render(table, "md")


def test_a_task_is_normalised_by_its_own_dense_and_random_returns(navigation: Path) -> None:
    """Task 1: random -25, dense -3, RLx2 -6: 100 x 19/22."""
    table = final(navigation, by_task=True, normalize="random-dense")
    (section,) = table.by_task
    (rlx2,) = (row for row in section.rows if row.method == "rlx2")
    assert rlx2.cells["2DNav-v1.task1"].center == pytest.approx(100 * 19 / 22)


def test_programs_get_the_tasks_too_and_tests_do_not_count_them_twice(
    navigation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["table", str(navigation), "--metric=final", "--by-task", "--test"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["tests"]["comparisons"]) == 1
    assert set(document["by_task"][0]["rows"][0]["cells"]) == {
        "2DNav-v1",
        "2DNav-v1.task0",
        "2DNav-v1.task1",
    }
    assert main([*command[:-1], "--format=csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 6  # two methods: the average and two tasks


def test_without_several_tasks_that_is_said(rlx: Path) -> None:
    table = final(rlx, by_task=True)
    assert table.by_task == ()
    assert "no environment here has several tasks" in table.notes
