"""Copied and renamed run folders: the path says where a run lies, `config.yaml` what it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_samples import write_run

from dstrl_cli.report import tables
from dstrl_cli.report.runs import load

HOPPER = "Hopper-v5/td3-rlx2/s0.95"
LAMBDAS = {"allocation": "lambda", "lambdas": [7, 64]}


def copied(root: Path, source: str, target: str) -> None:
    (root / target).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(root / source, root / target)


def test_a_copied_seed_is_no_further_seed(tmp_path: Path) -> None:
    write_run(tmp_path, f"{HOPPER}/seed0", {100: [-1582.5]})
    write_run(tmp_path, f"{HOPPER}/seed1", {100: [-1542.3]})
    copied(tmp_path, f"{HOPPER}/seed0", f"{HOPPER}/seed7")
    shown = tables.table(tmp_path)
    (row,) = shown.sections[0].rows
    cell = row.cells["Hopper-v5"]
    assert list(cell.values) == [0, 1]
    assert cell.mean == pytest.approx((-1582.5 - 1542.3) / 2)
    (damage,) = shown.damaged
    assert damage.path == f"{HOPPER}/seed7"
    assert damage.cause.startswith("its path says seed 7, not 0 as its config.yaml: a copied or")


@pytest.mark.parametrize(
    ("target", "cause"),
    [
        ("Ant-v5/td3-rlx2/s0.95/seed0", "environment Ant-v5, not Hopper-v5 as"),
        ("Hopper-v5.task3/td3-rlx2/s0.95/seed0", "task 3, not 0 as"),
        ("Hopper-v5/sac-rlx2/s0.95/seed0", "algorithm sac, not td3 as"),
        ("Hopper-v5/td3-rlx/s0.95/seed0", "method rlx, not rlx2 as"),
        ("Hopper-v5/td3-dst+nstep3/s0.95/seed0", "method dst+nstep3, not rlx2 as"),
        ("Hopper-v5/td3-rlx2/s0.9/seed0", "sparsity s0.9, not s0.95 as"),
        ("Hopper-v5/td3-rlx2/a0.95-c0.9/seed0", "sparsity a0.95-c0.9, not s0.95 as"),
        ("Ant-v5/td3-rlx2/s0.95/seed4", "environment Ant-v5, not Hopper-v5; seed 4, not 0 as"),
    ],
)
def test_every_part_of_a_path_is_held_against_the_configuration(
    tmp_path: Path, target: str, cause: str
) -> None:
    write_run(tmp_path, f"{HOPPER}/seed0", {100: [1.0]})
    copied(tmp_path, f"{HOPPER}/seed0", target)
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [f"{HOPPER}/seed0"]
    (damage,) = results.damaged
    assert f"its path says {cause} its config.yaml" in damage.cause


def test_a_copy_that_no_path_rule_finds_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path, f"{HOPPER}/seed0", {100: [1.0]})
    copied(tmp_path, f"{HOPPER}/seed0", f"{HOPPER}/seed0.bak")
    copied(tmp_path, f"{HOPPER}/seed0", "Hopper-v5/td3-rlx2/s0.950/seed0")
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [f"{HOPPER}/seed0"]
    assert [damage.cause for damage in results.damaged] == [
        f"the same run as {HOPPER}/seed0; left out"
    ] * 2


@pytest.mark.parametrize(
    "path",
    [
        "Hopper-v5/td3-rlx2+nstep5/s0.95/seed3",
        "2DNav-v1.task3/sac-dense/s0/seed1",
        "Hopper-v5/td3-our-rlx2/a0.96-c0.88/seed0",
    ],
)
def test_a_run_where_it_was_written_is_used(tmp_path: Path, path: str) -> None:
    write_run(tmp_path, path, {100: [1.0]})
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [path]
    assert results.damaged == []


def test_an_old_label_of_lambdas_says_nothing_and_todays_does(tmp_path: Path) -> None:
    """Format 1 filed runs with `allocation: lambda` under the default sparsity."""
    networks = {"actor": {"sparsity": 0.49, **LAMBDAS}, "critic": {"sparsity": 0.49, **LAMBDAS}}
    write_run(tmp_path, f"{HOPPER}/seed0", {100: [1.0]}, config=networks)
    write_run(tmp_path, f"{HOPPER}/seed1", {100: [1.0]}, config=networks | {"format": 2})
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [f"{HOPPER}/seed0"]
    assert results.runs[0].identity.sparsity == "s0.49"
    (damage,) = results.damaged
    assert damage.path == f"{HOPPER}/seed1"
    assert "sparsity s0.95, not s0.49 as" in damage.cause


def test_an_algorithm_of_somebody_elses_is_named_by_its_path(tmp_path: Path) -> None:
    config = {"algo": "mine:DDPG"}
    write_run(tmp_path, "Hopper-v5/ddpg-sst/s0.9/seed0", {100: [1.0]}, config=config)
    (run,) = load(tmp_path).runs
    assert run.identity.algo == "ddpg"


def test_environments_of_two_modules_are_told_apart(tmp_path: Path) -> None:
    for module, folder in (("a2", "a2.Same-v0"), ("b2", "b2.Same-v0"), ("c2", "Other-v0")):
        path = f"{folder}/td3-sst/s0.9/seed0"
        env = {"id": f"{module}:{folder.rpartition('.')[2]}", "task": 0}
        write_run(tmp_path, path, {100: [1.0]}, config={"env": env})
    results = load(tmp_path)
    found = {run.identity.env for run in results.runs}
    assert found == {"Other-v0", "a2:Same-v0", "b2:Same-v0"}
    assert results.damaged == []
