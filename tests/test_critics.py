"""The column `neurons` of tables: what critics look like at the last evaluation, worked by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from policy_samples import write_policy
from report_samples import write_run
from rich.console import Console
from table_samples import SUMMARY, cell, final, seeds

from dstrl_cli.cli import main
from dstrl_cli.report import tables
from dstrl_cli.report.archiving import archive
from dstrl_cli.report.grids import grids
from dstrl_cli.report.layerfile import read_layers
from dstrl_cli.report.render import render
from dstrl_cli.report.table import Neurons
from dstrl_cli.runs.policy import network_tensors

HEADER = "step,network,layer,units,dormant,no_input,no_output,max_fan_in,paths,rank,saturated\n"
BEFORE = (
    "500,critic1,0,8,1,8,0,99,99,,\n"
    "500,critic1,1,4,1,4,0,99,999,2,\n"
    "500,critic1,2,1,,0,,99,9999,,\n"
)
ACTOR = "1000,actor,0,8,1,8,0,77,77,,\n"
FIRST = (  # 4 of 12 hidden neurons are dormant, 1 has no input; the last layer has no neurons
    "1000,critic1,0,8,0.25,1,0,5,20,,\n"
    "1000,critic1,1,4,0.5,0,0,7,60,3,\n"
    "1000,critic1,2,1,,0,,9,80,,\n"
)
SECOND = (  # none, and 3
    "1000,critic2,0,8,0,3,0,3,10,,\n1000,critic2,1,4,0,0,0,2,15,2,\n1000,critic2,2,1,,0,,4,20,,\n"
)
ALIKE = SECOND + SECOND.replace("critic2", "critic1")

PATH = "Hopper-v5/td3-rlx2/s0.95"

MASKS = {  # [3 inputs, 2]: of the first input 1 is not read, of the second inputs 0 and 2
    "critic1": np.array([[1, 0], [0, 0], [1, 1]]),
    "critic2": np.array([[0, 0], [0, 1], [0, 0]]),
}


def put_policy(folder: Path) -> None:
    tensors = {}
    for name, mask in {"actor": np.zeros((2, 2)), **MASKS}.items():
        tensors |= network_tensors(name, [mask], [np.zeros(2)], [mask])
    write_policy(folder / "policy.safetensors", tensors)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two runs; in one of them both critics are alike."""
    root = tmp_path / "results"
    seeds(root, PATH, [1.0, 3.0], summary=SUMMARY)
    (root / PATH / "seed0/neurons.csv").write_text(HEADER + BEFORE + ACTOR + FIRST + SECOND)
    (root / PATH / "seed1/neurons.csv").write_text(HEADER + BEFORE + ACTOR + ALIKE)
    return root


def test_a_cell_has_the_mean_over_runs_of_the_mean_over_critics_at_the_end(results: Path) -> None:
    found = cell(final(results, columns=["neurons"]), "rlx2", "Hopper-v5").neurons
    assert found is not None
    assert found.critic_dormant_percent == pytest.approx((100 * (4 + 0) / 12 / 2 + 0) / 2)
    assert found.critic_no_input_percent == pytest.approx((100 * (1 + 3) / 12 / 2 + 25) / 2)
    assert found.critic_max_fan_in == ((7 + 3) / 2 + 3) / 2
    assert found.critic_paths == ((80 + 20) / 2 + 20) / 2
    assert (found.critic_unread_inputs, found.critic_inputs) == (None, None)


def test_inputs_that_no_critic_reads_are_counted_where_there_is_a_policy(results: Path) -> None:
    put_policy(results / PATH / "seed1")
    table = final(results, columns=["neurons"])
    found = cell(table, "rlx2", "Hopper-v5").neurons
    assert found is not None
    assert (found.critic_unread_inputs, found.critic_inputs) == (1.5, 3.0)
    assert "unread inputs: known of 1 of 2 runs (policy.safetensors)" in table.notes
    put_policy(results / PATH / "seed0")
    assert not [note for note in final(results, columns=["neurons"]).notes if "known" in note]


def test_every_format_shows_the_column(results: Path) -> None:
    put_policy(results / PATH / "seed1")
    table = final(results, columns=["params", "neurons"])
    shown = "dormant 8.3% no input 20.8% fan-in 4 paths 35 unread 1.5 of 3"
    assert shown in render(table, "md")
    assert shown.replace("%", "\\%") in render(table, "latex")
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert list(row)[-6:] == list(Neurons.__annotations__)
    assert (row["sok_active"], row["critic_paths"], row["critic_inputs"]) == ("20.0", "35.0", "3.0")
    (section,) = json.loads(render(table, "json"))["sections"]
    (of_json,) = [each["cells"]["Hopper-v5"] for each in section["rows"]]
    assert of_json["neurons"] == {name: float(row[name]) for name in Neurons.__annotations__}


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_terminal_shows_the_column_whole(results: Path, width: int) -> None:
    lines = render(final(results, columns=["neurons"]), "rich", Console(width=width)).splitlines()
    grid = lines[: next(k for k, line in enumerate(lines) if line.startswith("critics' neurons:"))]
    assert max(map(len, grid)) <= width
    words = " ".join(" ".join(grid).split())
    for part in ("dormant 8.3%", "no input 20.8%", "fan-in 4", "paths 35"):
        assert part in words


def test_runs_without_the_file_have_an_empty_cell(results: Path) -> None:
    seeds(results, "Hopper-v5/td3-dst/s0.95", [1.0])
    put_policy(results / "Hopper-v5/td3-dst/s0.95/seed0")
    table = final(results, columns=["neurons"])
    assert cell(table, "dst", "Hopper-v5").neurons is None
    assert "| 1.000 n=1 | – |" in render(table, "md")
    assert "critics' neurons: known of 2 of 3 runs (neurons.csv)" in table.notes
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(render(table, "csv")))}
    assert rows["dst"]["critic_paths"] == ""
    older = final(results / "Hopper-v5/td3-dst", columns=["neurons"])
    assert "critics' neurons: no run shown has critics in neurons.csv" in older.notes


def test_what_diverged_last_is_not_taken_from_an_evaluation_before(results: Path) -> None:
    """Networks that are not finite have no activity: the cells that need it are empty."""
    text = (HEADER + BEFORE + FIRST).replace(",0.25,1,", ",,1,").replace(",0.5,0,", ",,0,")
    (results / PATH / "seed0/neurons.csv").write_text(text)
    found = cell(final(results / PATH / "seed0", columns=["neurons"]), "rlx2", "Hopper-v5").neurons
    assert found == Neurons(None, pytest.approx(100 / 12), 7.0, 80.0)


def test_the_table_of_an_archive_is_that_of_its_folder(results: Path, tmp_path: Path) -> None:
    archive(results, tmp_path / "runs.zip")
    of_folder, of_archive = (
        render(final(place, columns=["neurons"]), "json")
        for place in (results, tmp_path / "runs.zip")
    )
    assert of_archive == of_folder
    assert '"critic_paths": 35.0' in of_archive


def test_nothing_is_read_for_tables_that_do_not_show_it(results: Path) -> None:
    (results / PATH / "seed0/neurons.csv").write_text("a,b\n1,2\n")
    (results / PATH / "seed1/policy.safetensors").write_bytes(b"weights")
    plain = final(results, columns=["params"])
    assert (plain.damaged, cell(plain, "rlx2", "Hopper-v5").neurons) == ((), None)
    assert "neurons" not in render(plain, "json")
    asked = final(results, columns=["neurons"])
    causes = [f"{item.path.rpartition('/')[2]}: {item.cause}" for item in asked.damaged]
    assert causes[0] == "neurons.csv: foreign header 'a,b': no column network"
    assert causes[1].startswith("policy.safetensors: ")
    assert len(causes) == 2
    found = cell(asked, "rlx2", "Hopper-v5").neurons
    assert found == Neurons(0.0, 25.0, 3.0, 20.0)


def test_beside_tables_with_methods_as_columns_it_stands_with_the_values(tmp_path: Path) -> None:
    for method, label in (("dense", "s0"), ("rlx2", "a0.98-c0.95")):
        seeds(tmp_path, f"Hopper-v3/td3-{method}/{label}", [200.0, 190.0], summary=SUMMARY)
    run = tmp_path / "Hopper-v3/td3-rlx2/a0.98-c0.95/seed0"
    (run / "neurons.csv").write_text(HEADER + ALIKE)
    table = tables.table(tmp_path, compare="rlx2:2", columns=["flops", "neurons"])
    (values,), (costs,) = grids(table)
    assert values.groups[-1] == ("RLx2", "rlx2:2", "critics' neurons")
    parts = ["dormant 0.0%", "no input 25.0%", "fan-in 3", "paths 20"]
    assert values.rows[0][1][-1].parts == parts
    assert costs.headings == ("RLx2 FLOPs", "rlx2:2 FLOPs")
    assert len(grids(tables.table(tmp_path, compare="rlx2:2", columns=["neurons"]))) == 1


def test_a_task_has_its_own_and_is_read_once(tmp_path: Path) -> None:
    for task, rows in ((0, ALIKE), (1, FIRST)):
        path = f"2DNav-v1.task{task}/td3-rlx2/s0.95/seed0"
        folder = write_run(tmp_path, path, {1000: [1.0]})
        (folder / "neurons.csv").write_text(HEADER + rows + "1000,critic")
    table = final(tmp_path, columns=["neurons"], by_task=True)
    (section,) = table.by_task
    (row,) = section.rows
    paths = {env: each.neurons and each.neurons.critic_paths for env, each in row.cells.items()}
    assert paths == {"2DNav-v1": 50.0, "2DNav-v1.task0": 20.0, "2DNav-v1.task1": 80.0}
    assert len(table.damaged) == 2


def test_the_rows_of_the_last_step_alone(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "neurons.csv"
    path.write_text(HEADER + BEFORE + "x,critic1\n" + FIRST)
    rows = read_layers(path, lambda _, cause: told.append(cause), last_step=True)
    assert (rows["step"].tolist(), rows["paths"].tolist()) == ([1000.0] * 3, [20.0, 60.0, 80.0])
    assert told == []
    path.write_text(HEADER)
    assert len(read_layers(path, lambda _, cause: told.append(cause), last_step=True)) == 0


def test_an_unknown_column_names_this_one(results: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["table", str(results), "--columns", "neuron"]) == 2
    assert "did you mean 'neurons'" in capsys.readouterr().err
