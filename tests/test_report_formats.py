"""Tables in a terminal, as Markdown, LaTeX, CSV and JSON: nothing is cut, everything is escaped."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from report_samples import write_run
from rich.console import Console
from table_samples import SUMMARY, cell, final, seeds

from dstrl_cli.errors import InputError
from dstrl_cli.report.columns import Entry, Grid
from dstrl_cli.report.render import RENDERERS, _Layout, _rich_table, render


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """Four environments, long names, large numbers, an underscore, an unfinished run."""
    for env in ("HalfCheetah-v5", "Ant-v5", "Hopper-v5", "Walker2d-v5"):
        for method in ("our-rlx2", "my_rule"):
            seeds(tmp_path, f"{env}/td3-{method}/s0.95", [10000.25, 12345.0, 9e3], summary=SUMMARY)
    write_run(tmp_path, "Ant-v5/td3-my_rule/s0.95/seed3", {1000: [1.0]}, status="diverged")
    return tmp_path


@pytest.mark.parametrize("center", ["mean", "iqm"])
@pytest.mark.parametrize("columns", [(), ("params", "flops")])
@pytest.mark.parametrize("width", [80, 120, 250])
def test_a_terminal_shows_every_number_whole(
    full: Path, width: int, columns: tuple[str, ...], center: str
) -> None:
    table = final(full, compare="xu2024:I", columns=columns, center=center)
    lines = render(table, "rich", Console(width=width)).splitlines()
    grid = lines[: next(i for i, line in enumerate(lines) if line.startswith("°"))]
    assert max(map(len, grid)) <= width
    text = "\n".join(grid)
    assert "…" not in text
    for shown in ("10448.4", "n=3°", "9066.6", "HalfCheetah-v5"):
        assert shown in text
    assert ("RLX 30" in text) == bool(columns)


def test_what_does_not_fit_is_folded_not_cut(full: Path) -> None:
    table = final(full, compare="xu2024:I", columns=("params", "flops"))
    text = render(table, "rich", Console(width=60))
    assert "…" not in text
    assert {"10448.4", "9066.6", "5.00e+09", "4.00e+01"} <= set(text.split())


def test_columns_of_one_environment_fold_beside_its_result_where_all_are_too_wide(
    full: Path,
) -> None:
    table = final(full, columns=("params", "flops"), against="our-rlx2", center="iqm")
    text = render(table, "rich", Console(width=50))
    headings = [line.split() for line in text.splitlines() if line.split()[:1] == ["method"]]
    beside = [" ".join(each[2:]) for each in headings if each[1] == "HalfCheetah-v5"]
    assert beside == ["P(> Our RLx2)", "parameters", "FLOPs"]
    assert {"(0.100x)", "(0.125x)", "n=3"} <= set(text.split())


def test_labels_that_are_short_enough_stay_whole(tmp_path: Path) -> None:
    grid = Grid("title", "environment", (("a" * 30,),), (("HalfCheetah-v3", (Entry(["1"]),)),))
    drawn = _rich_table(grid, _Layout(1, 1))
    console = Console(width=40)
    with console.capture() as capture:
        console.print(drawn)
    assert "HalfCheetah-v3" in capture.get()


def test_plain_results_of_four_environments_share_one_block_at_80_columns(full: Path) -> None:
    text = render(final(full), "rich", Console(width=80))
    assert text.count("TD3, sparsity 0.95") == 1


def test_cost_columns(full: Path) -> None:
    found = cell(final(full), "my_rule", "Ant-v5").cost
    assert found is not None
    assert (found.sok_active, found.sok_ratio) == pytest.approx((20, 0.1))
    assert (found.rlx_active, found.rlx_ratio) == pytest.approx((30, 0.075))
    text = render(final(full, columns=["params", "flops"]), "md")
    assert "SOK 20 (0.100x) RLX 30 (0.075x)" in text
    assert "train 5.00e+09 (0.250x) test 4.00e+01 (0.125x)" in text


@pytest.mark.parametrize(
    "parameters", [None, {}, {"sok_active": "x"}, {"sok_active": float("nan")}]
)
def test_a_summary_without_usable_costs_has_none(tmp_path: Path, parameters: Any) -> None:
    summary = SUMMARY | {"parameters": parameters and SUMMARY["parameters"] | parameters}
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0], summary=summary)
    table = final(tmp_path, columns=["params", "flops"])
    assert cell(table, "dst", "Hopper-v5").cost is None
    assert "| 1.000 n=1 | – | – |" in render(table, "md")


def test_markdown_and_latex_escape_what_they_must(full: Path) -> None:
    markdown = render(final(full), "md")
    assert "| my\\_rule |" in markdown
    latex = render(final(full, columns=["params"]), "latex")
    assert "my\\_rule & 10448.4 $\\pm$ 1401.9 n=3$^{\\circ}$ & SOK 20 (0.100x)" in latex
    assert latex.count("\\begin{tabular}{lrrrrrrrr}") == 1


def test_csv_has_a_row_per_cell(full: Path) -> None:
    table = final(full, compare="xu2024:I", columns=["params"])
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(rows) == 8
    mine = next(row for row in rows if (row["method"], row["env"]) == ("our-rlx2", "Hopper-v5"))
    assert float(mine["mean"]) == pytest.approx((10000.25 + 12345 + 9000) / 3)
    assert (mine["n"], mine["seeds"], mine["paper_mean"]) == ("3", "0 1 2", "3152.97")
    assert (mine["sok_active"], mine["paper_marks"]) == ("20.0", "version")


def test_json_holds_everything(full: Path) -> None:
    (full / "Ant-v5/td3-my_rule/s0.95/seed3/eval.csv").write_text("")
    document = json.loads(render(final(full, compare="xu2024:I", center="iqm"), "json"))
    assert (document["metric"], document["center"], document["compare"]) == (
        "final",
        "iqm",
        "xu2024:I",
    )
    (section,) = document["sections"]
    cells = {row["method"]: row["cells"] for row in section["rows"]}
    found = cells["my_rule"]["Ant-v5"]
    assert (found["n"], found["seeds"], found["left_out"]) == (3, [0, 1, 2], [3])
    assert found["values"] == [10000.25, 12345.0, 9000.0]
    assert found["marks"] == ["left_out"]
    assert found["cost"]["train_ratio"] == 0.25
    assert cells["our-rlx2"]["Ant-v5"]["paper"]["mean"] == 4298.68
    assert document["unfinished"] == [
        {"path": "Ant-v5/td3-my_rule/s0.95/seed3", "status": "diverged"}
    ]
    assert [item["path"] for item in document["damaged"]] == [
        "Ant-v5/td3-my_rule/s0.95/seed3/eval.csv"
    ]


@pytest.mark.parametrize("format", sorted(RENDERERS))
def test_the_number_of_seeds_is_always_visible(full: Path, format: str) -> None:
    text = render(final(full), format, Console(width=80))
    expected = {"csv": ",3,0 1 2,", "json": '"n": 3'}.get(format, "n=3")
    assert text.count(expected) == 8


def test_an_unknown_format(tmp_path: Path) -> None:
    seeds(tmp_path, "Hopper-v5/td3-dst/s0.95", [1.0])
    with pytest.raises(InputError, match=r"unknown format 'htm'.*csv, json, latex, md, rich"):
        render(final(tmp_path), "htm")
