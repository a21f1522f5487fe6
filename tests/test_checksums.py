"""Checksums of a run's files: what a run keeps of them, and what is said where they differ."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from policy_samples import actor, metadata
from report_samples import write_run

from dstrl_cli import api
from dstrl_cli.cli import main
from dstrl_cli.errors import InputError
from dstrl_cli.report import tables
from dstrl_cli.report.runs import load
from dstrl_cli.runs import checksums
from dstrl_cli.runs.policy import dump
from dstrl_cli.runs.summary import mark_ended, read_summary, write_summary

PATH = "Hopper-v5/td3-rlx2/s0.95"
RETURNS = {0: [0.0, 0.0], 500: [-300.0, -100.0], 1000: [-148.0, -180.0]}


def checked_run(root: Path, seed: int = 0, **changes: object) -> Path:
    """A finished run whose summary was written as runs write it."""
    folder = write_run(root, f"{PATH}/seed{seed}", RETURNS, episodes={700: [5.0]})
    (folder / "topology.csv").write_text("step,network,layer,active,dropped,grown,fraction\n")
    (folder / "policy.safetensors").write_bytes(dump(actor(), metadata()))
    write_summary(folder, {**(read_summary(folder) or {}), **changes})
    return folder


def edited(file: Path, change: Callable[[str], str]) -> None:
    file.write_text(change(file.read_text()))


def without_second_evaluation(text: str) -> str:
    return "".join(line for line in text.splitlines(True) if not line.startswith("500,"))


def test_a_summary_has_rows_and_checksums_of_the_files_that_are_there(tmp_path: Path) -> None:
    folder = checked_run(tmp_path)
    found = (read_summary(folder) or {})["files"]
    assert {name: each.get("rows") for name, each in found.items()} == {
        "progress.csv": 1,
        "eval.csv": 6,
        "episodes.csv": 1,
        "topology.csv": 0,
        "policy.safetensors": None,
        "summary.json": None,
    }
    content = (folder / "eval.csv").read_bytes()
    assert found["eval.csv"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_did_not_finish_has_them_too(tmp_path: Path, status: str) -> None:
    folder = write_run(tmp_path, f"{PATH}/seed0", RETURNS, status=None)
    mark_ended(folder, status, "killed")
    assert (read_summary(folder) or {})["files"]["eval.csv"]["rows"] == 6


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (without_second_evaluation, "it has 4 of 6 rows"),
        (lambda text: text[: text.rindex("1000,1")], "it has 5 of 6 rows"),
        (lambda text: text[:-1], "it has 5 of 6 rows"),
        (lambda text: text + "1000,2,9.0,100\n", "it has 7 of 6 rows"),
        (lambda text: text.replace("-148.0", "-128.0"), "its checksum is not the one in summary"),
    ],
)
def test_a_log_that_is_not_what_the_run_wrote_leaves_the_run_out(
    tmp_path: Path, change: Callable[[str], str], cause: str
) -> None:
    """Its evaluations after step 0 have the means -200 and -164; of a part the mean is another."""
    whole = checked_run(tmp_path, 1)
    damaged = checked_run(tmp_path, 0)
    assert mean(tmp_path) == ((0, 1), (-200.0 - 164.0) / 2)
    edited(damaged / "eval.csv", change)
    table = tables.table(tmp_path, metric="all-evals")
    assert mean(tmp_path) == ((1,), (-200.0 - 164.0) / 2)
    (found,) = table.damaged
    assert found.path == f"{PATH}/seed0/eval.csv"
    assert found.cause.startswith(f"not as the run wrote it: {cause}")
    shutil.rmtree(whole)
    with pytest.raises(InputError, match="not as the run wrote it"):
        tables.table(tmp_path, metric="all-evals")


def test_a_summary_that_was_altered_is_reported_and_its_run_left_out(tmp_path: Path) -> None:
    edited(
        checked_run(tmp_path) / "summary.json",
        lambda text: text.replace('"status": "finished"', '"status": "finished", "flops": {}'),
    )
    checked_run(tmp_path, seed=1)
    table = tables.table(tmp_path, metric="final")
    (found,) = table.damaged
    assert (found.path, found.cause[:23]) == (
        f"{PATH}/seed0/summary.json",
        "not as the run wrote it",
    )
    assert mean(tmp_path)[0] == (1,)


def mean(root: Path) -> tuple[tuple[int, ...], float]:
    """Seeds and mean of all evaluations in the only cell of a table."""
    (section,) = tables.table(root, metric="all-evals").sections
    (cell,) = section.rows[0].cells.values()
    return cell.seeds, cell.mean


def test_damage_in_a_log_that_nothing_asks_for_is_not_looked_for(tmp_path: Path) -> None:
    folder = checked_run(tmp_path)
    edited(folder / "episodes.csv", lambda text: text.replace("5.0", "6.0"))
    assert tables.table(tmp_path, metric="final").damaged == ()
    with pytest.raises(InputError, match=r"episodes\.csv: not as the run wrote it"):
        tables.table(tmp_path, metric="all-episodes")


def test_policies_and_topology_that_are_absent_are_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checked_run(tmp_path)
    (folder / "policy.safetensors").unlink()
    (folder / "topology.csv").unlink()
    table = tables.table(tmp_path, metric="final")
    assert (table.damaged, table.notes, table.unchecked) == ((), (), 0)
    summary = read_summary(folder) or {}
    assert list(checksums.differing_logs(folder, summary)) == []
    (folder / "eval.csv").unlink()
    assert list(checksums.differing_logs(folder, summary)) == [("eval.csv", "missing")]
    assert load(tmp_path).runs[0].evaluations["step"].tolist() == []


def test_runs_without_checksums_are_counted_as_unchecked_beside_others(tmp_path: Path) -> None:
    write_run(tmp_path, f"{PATH}/seed1", RETURNS)
    write_run(tmp_path, f"{PATH}/seed2", RETURNS, status="failed")
    old = tables.table(tmp_path, metric="final")
    assert (old.unchecked, old.notes) == (1, ())
    checked_run(tmp_path, 0)
    both = tables.table(tmp_path, metric="final")
    assert both.unchecked == 1
    assert both.notes == ("unchecked: 1 of 2 finished runs (no checksums)",)


@pytest.mark.parametrize("files", ["text", ["eval.csv"], {"eval.csv": 3}, {"eval.csv": None}, None])
def test_foreign_content_in_place_of_checksums_is_none(tmp_path: Path, files: object) -> None:
    folder = write_run(tmp_path, f"{PATH}/seed0", RETURNS, summary={"files": files})
    assert load(tmp_path).damaged == []
    assert len(load(tmp_path).runs[0].evaluations["step"]) == 6
    assert not checksums.are_known(read_summary(folder) or {})


def test_an_altered_policy_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = checked_run(tmp_path)
    file = folder / "policy.safetensors"
    assert api.load_policy(folder).algo == "td3"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # a bit of the last weight: a valid policy, and another one
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match="not as the run wrote it: its checksum"):
        api.load_policy(folder)
    assert main(["eval", str(file)]) == 2
    assert "not as the run wrote it" in " ".join(capsys.readouterr().err.split())
    moved = Path(shutil.move(file, tmp_path / "policy.safetensors"))
    assert api.load_policy(moved).algo == "td3"


def test_checksums_are_those_of_bytes_not_of_lines(tmp_path: Path) -> None:
    folder = checked_run(tmp_path)
    text = (folder / "eval.csv").read_text()
    (folder / "eval.csv").write_bytes(text.replace("\n", "\r\n").encode())
    assert len(load(tmp_path).runs[0].evaluations["step"]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    del summary["files"]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert len(load(tmp_path).runs[0].evaluations["step"]) == 6
