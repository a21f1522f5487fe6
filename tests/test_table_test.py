"""`dstrl table --test`: which comparisons are made, what they share, how they are shown."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from report_samples import write_run
from rich.console import Console

from dstrl_cli.cli import main
from dstrl_cli.errors import InputError
from dstrl_cli.report import tables
from dstrl_cli.report.comparing import Asked, asked_test, lines
from dstrl_cli.report.render import render
from dstrl_cli.report.table import Comparisons, Table


def write(
    root: Path, env: str, method: str, mean: float, n: int = 5, sparsity: str = "s0.95"
) -> None:
    """Write runs whose last evaluations lie evenly within 1 of their mean."""
    for seed, value in enumerate(mean + np.linspace(-1, 1, n)):
        write_run(root, f"{env}/td3-{method}/{sparsity}/seed{seed}", {1000: [float(value)]})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write(tmp_path, "Hopper-v5", "dense", 50.0, sparsity="s0")
    write(tmp_path, "Hopper-v5", "dst", 10.0)
    write(tmp_path, "Hopper-v5", "rlx2", 10.2)
    return tmp_path


def compared(root: Path, **options: object) -> tuple[Table, Comparisons]:
    asked = asked_test(True, **(dict.fromkeys(OPTIONS) | options))  # type: ignore[arg-type]
    table = tables.table(root, metric="final", test=asked)
    assert table.tests is not None
    return table, table.tests


OPTIONS = ("pairs", "alpha", "max_seeds", "seeds_per_round")


def decided(tests: Comparisons) -> dict[str, int]:
    return {
        f"{each.env} {each.first.method}:{each.second.method}": each.decision.sign
        for each in tests.found
    }


def test_all_methods_of_an_environment_are_compared(results: Path) -> None:
    _, tests = compared(results)
    assert decided(tests) == {
        "Hopper-v5 dense:dst": 1,
        "Hopper-v5 dense:rlx2": 1,
        "Hopper-v5 dst:rlx2": 0,
    }


def test_a_table_without_a_test_has_none(results: Path) -> None:
    assert tables.table(results, metric="final").tests is None


def test_only_the_pairs_asked_for_are_compared_the_way_they_were_named(results: Path) -> None:
    _, tests = compared(results, pairs="rlx2:dense")
    assert decided(tests) == {"Hopper-v5 rlx2:dense": -1}
    with pytest.raises(InputError, match=r"unknown method of --pairs 'rlx3'; did you mean 'rlx2'"):
        compared(results, pairs="rlx3:dense")
    with pytest.raises(InputError, match=r"--pairs 'rlx2': give two methods as our-rlx2:rlx2"):
        compared(results, pairs="rlx2")


def test_dense_methods_are_compared_once_though_every_section_shows_them(results: Path) -> None:
    write(results, "Hopper-v5", "tiny", 49.0, sparsity="s0")
    write(results, "Hopper-v5", "dst", 30.0, sparsity="s0.5")
    _, tests = compared(results, pairs="dense:tiny,dense:dst")
    assert [(each.section.sparsity, each.second.method) for each in tests.found] == [
        ("s0.5", "dst"),
        ("s0.5", "tiny"),
        ("s0.95", "dst"),
    ]


def test_comparisons_of_all_environments_share_one_error(tmp_path: Path) -> None:
    """One complete separation has a p of 2 / 252; many comparisons together need a smaller one."""
    for env in ("Ant-v5", "Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"):
        for method, mean in (("dst", 10.0), ("rlx2", 11.3), ("sst", 10.1)):
            write(tmp_path, env, method, mean)
    _, alone = compared(tmp_path / "Ant-v5", pairs="dst:rlx2")
    _, together = compared(tmp_path)
    (p,) = [each.decision.p for each in alone.found]
    (adjusted, *_) = [each.decision.p for each in together.found]
    assert p is not None
    assert adjusted is not None
    assert p < 0.05 < adjusted


def test_unfinished_runs_take_no_part(results: Path) -> None:
    write_run(results, "Hopper-v5/td3-sst/s0.95/seed0", {5: [1.0]}, status="failed")
    _, tests = compared(results)
    assert len(tests.found) == 3


def test_seeds_that_a_method_lost_are_said(results: Path) -> None:
    lost = results / "Hopper-v5/td3-rlx2/s0.95/seed4/summary.json"
    lost.write_text(json.dumps(json.loads(lost.read_text()) | {"status": "diverged"}))
    _, tests = compared(results, pairs="rlx2:dst,dense:dst")
    assert len(tests.found) == 2
    (said,) = [line for line in lines(tests) if "loses some" in line]
    assert said.endswith("loses some: Hopper-v5: RLx2 : DST")


def test_one_comparison_given_both_ways_is_refused(results: Path) -> None:
    with pytest.raises(InputError, match="rlx2:dst and dst:rlx2 are one comparison"):
        compared(results, pairs="rlx2:dst,dst:rlx2")


def test_a_single_method_cannot_be_compared(tmp_path: Path) -> None:
    write(tmp_path, "Hopper-v5", "dst", 10.0)
    with pytest.raises(InputError, match="--test: no two methods have finished runs"):
        compared(tmp_path)


def test_too_few_seeds_to_decide_anything_are_said(tmp_path: Path) -> None:
    write(tmp_path, "Hopper-v5", "dst", 10.0, n=3)
    write(tmp_path, "Hopper-v5", "rlx2", 99.0, n=3)
    table, tests = compared(tmp_path)
    assert decided(tests) == {"Hopper-v5 dst:rlx2": 0}
    text = render(table, "md")
    assert "too few seeds to decide anything: the smallest p is 0.1" in text


def test_rounds_after_which_nothing_can_be_decided_are_said(results: Path) -> None:
    """Two looks of two seeds have 36 deals, of which two are as extreme as can be: 0.056."""
    table, _ = compared(results, max_seeds=4, seeds_per_round=2)
    assert "too few seeds to decide anything, even after 2 looks" in render(table, "md")
    table, _ = compared(results, max_seeds=6, seeds_per_round=2)
    assert "too few seeds" not in render(table, "md")


def test_rounds_look_at_their_seeds_and_say_what_they_wait_for(results: Path) -> None:
    table, tests = compared(results, max_seeds=20, seeds_per_round=5)
    assert (tests.looks, tests.plan.rounds) == (1, 4)
    assert [each.second.method for each in tests.waiting] == ["rlx2"]
    text = render(table, "rich", Console(width=80))
    assert "1 look of 4, 5 seeds of each method a round" in text
    assert "look 2 waits for seeds: Hopper-v5: DST : RLx2 (5 and 5 seeds)" in text
    assert "p=" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "--alpha 0: a probability of error lies between 0 and 1"),
        ({"alpha": float("nan")}, "--alpha nan: a probability of error lies between 0 and 1"),
        ({"max_seeds": 20}, "--max-seeds and --seeds-per-round: give both"),
        ({"seeds_per_round": 5}, "--max-seeds and --seeds-per-round: give both"),
        (
            {"max_seeds": 12, "seeds_per_round": 5},
            "--max-seeds 12: rounds have 5 seeds; give 15, or another --seeds-per-round",
        ),
    ],
)
def test_a_plan_that_is_none(results: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compared(results, **options)


def test_options_of_a_test_without_a_test_are_refused(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(results), "--alpha=0.1"]) == 2
    assert "--alpha says how to test: give --test too" in capsys.readouterr().err


def test_decisions_are_shown_in_every_format(results: Path) -> None:
    table, _ = compared(results)
    text = render(table, "rich", Console(width=80))
    assert "TD3, sparsity 0.95: comparisons" in text
    assert "> the first is better, < the second is better, ? not decided" in text
    assert "a wrong decision has a probability of 0.05, all 3 comparisons together" in text
    assert "| Dense : DST | \\> +40.00 p=" in render(table, "md")
    assert "DST : RLx2 & ? -0.2000 p=" in render(table, "latex")
    first, *_ = csv.DictReader(io.StringIO(render(table, "csv")))
    assert (first["first"], first["second"], first["better"]) == ("dense", "dst", "first")
    document = json.loads(render(table, "json"))
    assert document["tests"]["alpha"] == 0.05
    assert [each["better"] for each in document["tests"]["comparisons"]] == [
        "first",
        "first",
        "undecided",
    ]


def test_the_command_line_tests(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["table", str(results), "--metric=final", "--test", "--pairs=dense:dst", "--json"]
    assert main(command) == 0
    (found,) = json.loads(capsys.readouterr().out)["tests"]["comparisons"]
    assert (found["better"], found["difference"]) == ("first", 40.0)


def test_a_pair_that_has_no_runs_in_common_is_named(results: Path) -> None:
    write(results, "Ant-v5", "sst", 1.0)
    table, tests = compared(results, pairs="dst:sst,dense:dst")
    assert decided(tests) == {"Hopper-v5 dense:dst": 1}
    said = "not compared: dst:sst (no finished runs of both in one section and environment)"
    assert said in render(table, "rich", Console(width=80))
    assert json.loads(render(table, "json"))["tests"]["absent"] == ["dst:sst"]


def test_a_test_is_no_more_than_its_plan_and_pairs() -> None:
    assert asked_test(False, None, None, None, None) is None
    found = asked_test(True, "a:b,c:d", 0.1, 20, 5)
    assert isinstance(found, Asked)
    assert (found.pairs, found.plan.rounds, found.plan.seeds) == (("a:b", "c:d"), 4, 5)
