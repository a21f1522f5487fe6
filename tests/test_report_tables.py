"""Tables: cells, sections and marks, from small run folders with hand-worked numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_samples import write_run
from rich.console import Console
from table_samples import SUMMARY, cell, final, seeds

from dstrl_cli.errors import InputError
from dstrl_cli.report import tables
from dstrl_cli.report.labels import method_label
from dstrl_cli.report.render import render

# --- cells ----------------------------------------------------------------------------------------


def test_mean_and_std_over_seeds(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0, 3.0])
    found = cell(final(tmp_path), "dst", "Hopper-v5")
    assert (found.mean, found.std, found.center, found.seeds) == (2.0, 1.0, 2.0, (0, 1))
    assert found.interval is None
    assert found.marks == frozenset()


def test_iqm_and_interval(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [9.0, 1.0, 2.0, 4.0, 3.0])
    seeds(tmp_path, "Hopper-v5/td3-rlx2/s0.95", [9.0, 1.0])
    table = final(tmp_path, center="iqm")
    found = cell(table, "dst", "Hopper-v5")
    assert (found.center, found.mean) == (3.0, 3.8)
    assert found.interval is not None
    assert 1.0 <= found.interval.low < 3.0 < found.interval.high <= 9.0
    assert found.interval.method == "expanded percentile bootstrap"
    few = cell(table, "rlx2", "Hopper-v5")
    assert few.interval is None
    assert few.marks == {"few_seeds"}
    assert "~ too few seeds for an interval" in render(table, "rich", Console(width=80))


def test_tasks_are_averaged_within_a_seed_first(tmp_path: Path) -> None:
    for task, finals in enumerate([[0.0, 10.0], [2.0, 20.0]]):
        seeds(tmp_path, f"2DNav-v1.task{task}/td3-dst/s0.95", finals)
    found = cell(final(tmp_path), "dst", "2DNav-v1")
    assert found.values == {0: 1.0, 1: 15.0}
    assert (found.mean, found.std, found.tasks) == (8.0, 7.0, (0, 1))
    assert found.marks == frozenset()


def test_methods_with_other_tasks_are_told(tmp_path: Path) -> None:
    for task in (0, 1):
        seeds(tmp_path, f"2DNav-v1.task{task}/td3-dst/s0.95", [0.0, 10.0])
    seeds(tmp_path, "2DNav-v1.task0/td3-rlx2/s0.95", [0.0, 10.0])
    (said,) = final(tmp_path).notes
    assert said.startswith("2DNav-v1: RLx2 has no task 1, others have: their values and their comp")


def test_seeds_with_other_tasks_are_marked(tmp_path: Path) -> None:
    seeds(tmp_path, "2DNav-v1.task0/td3-dst/s0.95", [0.0, 10.0])
    seeds(tmp_path, "2DNav-v1.task1/td3-dst/s0.95", [2.0])
    assert cell(final(tmp_path), "dst", "2DNav-v1").marks == {"tasks"}


def test_unfinished_seeds_are_left_out_and_marked(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    seeds(tmp_path, path, [1.0, 3.0])
    write_run(tmp_path, f"{path}/seed2", {0: [0.0], 500: [99.0]}, status="interrupted")
    table = final(tmp_path)
    found = cell(table, "dst", "Hopper-v5")
    assert (found.mean, found.seeds, found.left_out) == (2.0, (0, 1), (2,))
    assert found.marks == {"left_out"}
    text = render(table, "rich", Console(width=80))
    assert "n=2°" in text
    assert f"{path}/seed2 (interrupted)" in text


def test_unfinished_seeds_alone_are_shown_and_marked(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0, 3.0], status=None)
    table = final(tmp_path)
    found = cell(table, "dst", "Hopper-v5")
    assert (found.mean, found.n, found.marks) == (2.0, 2, {"unfinished"})
    assert "* unfinished runs only" in render(table, "rich", Console(width=80))


@pytest.mark.parametrize("status", ["failed", "diverged", "interrupted", None])
def test_an_unfinished_run_that_logged_nothing_is_listed_once(
    tmp_path: Path, status: str | None
) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    seeds(tmp_path, path, [1.0, 3.0])
    write_run(tmp_path, f"{path}/seed2", {}, status=status)
    table = final(tmp_path)
    found = cell(table, "dst", "Hopper-v5")
    assert (found.seeds, found.left_out, found.marks) == ((0, 1), (2,), {"left_out"})
    assert render(table, "rich", Console(width=80)).count(f"{path}/seed2") == 1
    assert table.damaged == ()


def test_a_seed_of_which_one_task_logged_nothing_yet_is_left_out(tmp_path: Path) -> None:
    for task in range(2):
        seeds(tmp_path, f"2DNav-v1.task{task}/td3-dst/s0.95", [float(task)])
    write_run(tmp_path, "2DNav-v1.task0/td3-dst/s0.95/seed1", {5: [9.0]})
    write_run(tmp_path, "2DNav-v1.task1/td3-dst/s0.95/seed1", {}, status="failed")
    found = cell(final(tmp_path), "dst", "2DNav-v1")
    assert (found.values, found.left_out, found.marks) == ({0: 0.5}, (1,), {"left_out"})


def test_a_finished_run_that_logged_nothing_is_damage(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    seeds(tmp_path, path, [1.0])
    write_run(tmp_path, f"{path}/seed1", {})
    damage = ("finished, but nothing is logged for final", f"{path}/seed1")
    assert [(item.cause, item.path) for item in final(tmp_path).damaged] == [damage]


def test_the_metric_that_all_runs_name_is_shown(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    seeds(tmp_path, path, [1.0, 3.0], config={"metric": "best"})
    table = tables.table(tmp_path)
    assert (table.metric.name, table.notes) == ("best", ())
    assert tables.table(tmp_path, metric="final").metric.name == "final"
    write_run(tmp_path, f"{path}/seed2", {5: [2.0]}, config={"metric": "lca"})
    table = tables.table(tmp_path)
    assert table.metric.name == "last-steps:125000"
    assert table.notes == (
        "the runs ask for different metrics: best (2 runs), lca (1 run); shown is the default",
    )


def test_a_damaged_run_changes_no_number_of_the_others(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    for seed, last in enumerate((1.0, 3.0, 80.0, 90.0)):
        write_run(
            tmp_path, f"{path}/seed{seed}", {500: [9.0], 1000: [last]}, config={"metric": "best"}
        )
    (tmp_path / path / "seed2/config.yaml").write_text("algo: td3\nmethod: dst\nenv: Hopper-v5\n")
    evaluations = tmp_path / path / "seed3/eval.csv"
    evaluations.write_text("".join(evaluations.read_text().splitlines(keepends=True)[:2]))
    table = tables.table(tmp_path)
    assert (table.metric.name, table.notes) == ("best", ())
    found = cell(table, "dst", "Hopper-v5")
    assert (found.values, found.marks) == ({0: 9.0, 1: 9.0}, frozenset())
    assert [damage.path for damage in table.damaged] == [
        f"{path}/seed2/config.yaml",
        f"{path}/seed3/eval.csv",
    ]


def test_where_no_run_has_a_value_the_message_says_what_they_have(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    write_run(tmp_path, f"{path}/seed0", {0: [1.0]}, status="failed")
    only = r"takes at least one evaluation after step 0, .*: 1 run \(failed\): Hopper-v5/.*/seed0$"
    with pytest.raises(InputError, match=only):
        final(tmp_path)
    for seed, status in ((1, "failed"), (2, None), (3, "finished")):
        write_run(tmp_path, f"{path}/seed{seed}", {0: [1.0]}, status=status, summary={"steps": 5})
    several = (
        r"takes at least one training episode, .*: 4 runs \(2 failed, 1 unfinished, 1 finished\), "
        r"the first: Hopper-v5/.*/seed0$"
    )
    with pytest.raises(InputError, match=several):
        tables.table(tmp_path, metric="all-episodes")
    damaged = r"seed0; 1 problem: .*/seed3/eval\.csv: cut off, not used: the run has 5 steps"
    with pytest.raises(InputError, match=damaged):
        final(tmp_path)


def test_a_window_longer_than_the_run_is_marked(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0])
    table = tables.table(tmp_path)
    assert table.metric.name == "last-steps:125000"
    assert cell(table, "dst", "Hopper-v5").marks == {"window"}
    assert "n=1†" in render(table, "md")


def test_runs_that_differ_in_more_than_their_seed_are_marked(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    seeds(tmp_path, path, [1.0, 3.0])
    write_run(
        tmp_path,
        f"{path}/seed2",
        {5: [2.0]},
        config={"steps": 5, "out": "elsewhere", "metric": "lca"},
    )
    table = final(tmp_path)
    found = cell(table, "dst", "Hopper-v5")
    assert (found.n, found.marks, found.differing) == (3, {"mixed"}, {"steps": (1000, 5)})
    assert table.notes == (f"{path}: runs differ in steps (1000, 5)",)
    assert "n=3#" in render(table, "rich", Console(width=80))


def test_damaged_runs_are_told_and_the_rest_shown(tmp_path: Path) -> None:
    path = "Hopper-v5/td3-dst/s0.95"
    seeds(tmp_path, path, [1.0, 3.0])
    (tmp_path / path / "seed0/eval.csv").write_text("foreign\n1\n")
    table = final(tmp_path)
    assert cell(table, "dst", "Hopper-v5").values == {1: 3.0}
    causes = [(damage.path, damage.cause.partition(":")[0]) for damage in table.damaged]
    assert causes == [
        (f"{path}/seed0/eval.csv", "foreign header 'foreign'"),
    ]
    assert "damaged (1):" in render(table, "rich", Console(width=80))


# --- rows and sections ----------------------------------------------------------------------------


def test_rows_come_in_the_papers_order_and_dense_in_every_section(tmp_path: Path) -> None:
    for method in ("zzz", "our-rlx2", "rlx2", "our-dst", "dst", "sst"):
        seeds(tmp_path, f"Hopper-v5/td3-{method}/s0.95", [1.0])
    seeds(tmp_path, "Hopper-v5/td3-dense/s0", [5.0])
    for env in ("Ant-v5", "Hopper-v5"):
        seeds(tmp_path, f"{env}/td3-rlx2/s0.15", [1.0])
    seeds(tmp_path, "Ant-v5/sac-rlx2/a0.9-c0.8", [1.0])
    seeds(tmp_path, "Ant-v5/sac-dense/s0", [1.0])
    table = final(tmp_path)
    assert [section.title for section in table.sections] == [
        "TD3, sparsity 0.15",
        "TD3, sparsity 0.95",
        "SAC, actor sparsity 0.9, critic sparsity 0.8",
    ]
    rows = [[row.method for row in section.rows] for section in table.sections]
    order = ["dense", "sst", "dst", "our-dst", "rlx2", "our-rlx2", "zzz"]
    known = [method for method in order if method_label(method).label != method]
    assert [method for method in rows[1] if method in known] == known
    assert rows[1][-1] == "zzz"
    assert sorted(rows[0]) == sorted(rows[2]) == ["dense", "rlx2"]
    assert table.sections[0].envs == table.envs == ("Ant-v5", "Hopper-v5")
    assert table.sections[1].envs == ("Hopper-v5",)


def test_dense_alone_has_a_section(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dense/s0", [5.0])
    assert [section.title for section in final(tmp_path).sections] == ["TD3, dense"]


def test_a_method_with_and_without_sparsity_has_two_names(tmp_path: Path) -> None:
    for sparsity in ("s0", "s0.5"):
        seeds(tmp_path, f"Hopper-v5/td3-zzz/{sparsity}", [5.0])
    (section,) = final(tmp_path).sections
    assert [row.label for row in section.rows] == ["zzz (dense)", "zzz"]


def test_an_unknown_method_keeps_its_name_and_its_suffix() -> None:
    assert method_label("zzz").label == "zzz"
    assert method_label("zzz+nstep5").label == "zzz +nstep5"
    assert method_label("our-zzz").label == "our-zzz"


def test_a_users_method_is_named_and_sorted_as_its_runs_stored_it(tmp_path: Path) -> None:
    mine = {"method_label": "My rule", "method_order": 15}  # after Dense, before DST
    for method in ("dst", "my_rule", "my_rule+nstep5"):
        config = mine | {"method_label": "not DST's"} if method == "dst" else mine
        seeds(tmp_path, f"Hopper-v5/td3-{method}/s0.95", [1.0], config=config)
    seeds(tmp_path, "Hopper-v5/td3-dense/s0", [5.0])
    (section,) = final(tmp_path).sections
    assert [row.label for row in section.rows] == ["Dense", "My rule", "My rule +nstep5", "DST"]


# --- beside a paper -------------------------------------------------------------------------------


def test_published_numbers_stand_beside_ours(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-our-rlx2/s0.95", [3000.0, 3100.0])
    seeds(tmp_path, "Hopper-v5/td3-zzz/s0.95", [1.0])
    table = tables.table(tmp_path, compare="xu2024:I")
    match = cell(table, "our-rlx2", "Hopper-v5").paper
    assert match is not None
    assert (match.entry.mean, match.entry.std, match.marks) == (3152.97, 686.58, {"version"})
    text = render(table, "md")
    assert "| 3050.0 ± 50.0 n=2† | 3153.0 ± 686.6‡ |" in text
    assert "n=1† | – |" in text
    assert "‡ published for another version of the environment" in text
    assert table.notes == ("Hopper-v5: zzz has no seed 1, others have",)


def test_published_sizes_and_flops_stand_beside_ours(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v3/sac-rlx2/a0.98-c0.95", [3000.0], summary=SUMMARY)
    seeds(tmp_path, "Hopper-v3/sac-rlx-set/a0.98-c0.95", [3000.0], summary=SUMMARY)
    text = render(final(tmp_path, compare="rlx2:2", columns=["params", "flops"]), "md")
    assert "| RLx2 parameters | rlx2:2 parameters | FLOPs | rlx2:2 FLOPs |" in text
    *_, line = [line for line in text.splitlines() if line.startswith("| Hopper-v3 |")]
    assert "| RLX 0.044x |" in line
    assert line.endswith("| train 0.043x test 0.020x |")
    plain = render(final(tmp_path, compare="rlx2:2", columns=["none"]), "md")
    assert "0.044x" not in plain
    assert "rlx2:2 parameters" not in plain


def test_another_metric_than_the_published_one_is_said(tmp_path: Path) -> None:
    seeds(tmp_path, "2DNav-v1/td3-dst/s0.95", [1.0])
    table = final(tmp_path, compare="xu2024:III")
    assert table.notes == ("xu2024:III publishes all-episodes, this table shows final",)
    assert final(tmp_path, compare="xu2024:I").notes == (
        "xu2024:I has no number for any of these runs",
    )


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "finals"}, "unknown metric 'finals'; did you mean 'final'"),
        ({"center": "mode"}, "unknown center 'mode'.*iqm, mean, median"),
        ({"spread": "var"}, "unknown spread 'var'.*interval, sem, std"),
        ({"normalize": "Dense"}, "unknown normalisation 'Dense'; did you mean 'dense'"),
        ({"bold": "all"}, "unknown bold 'all'.*best, within"),
        ({"against": "rlx2"}, "unknown method of --against 'rlx2'.*dst"),
        ({"spread": "sem", "center": "iqm"}, "--spread sem and --center iqm.*--spread interval"),
        ({"compare": "xu2024:X"}, "unknown published table 'xu2024:X'"),
        ({"columns": ["flop"]}, "unknown column 'flop'; did you mean 'flops'"),
        ({"columns": ["flops", "none"]}, "columns: flops,none: none stands alone"),
    ],
)
def test_unknown_names(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0])
    with pytest.raises(InputError, match=message):
        tables.table(tmp_path, **arguments)


def test_nothing_logged_anywhere(tmp_path: Path) -> None:
    write_run(tmp_path, "Hopper-v5/td3-dst/s0.95/seed0", {0: [1.0]}, status=None)
    with pytest.raises(InputError, match=r"metric 'final' takes at least one evaluation after"):
        final(tmp_path)
