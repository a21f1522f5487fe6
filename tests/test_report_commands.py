"""`dstrl sweep` and then `dstrl table`, as a user types them: both show the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_samples import write_run

from dstrl_cli.cli import main

SMALL = (
    "--env=2DNav-v1",
    "--steps=300",
    "--set=hidden_sizes=8,8",
    "--set=batch_size=8",
    "--set=learning_starts=100",
    "--set=eval_every=100",
    "--set=eval_episodes=1",
    "--sparsity=0.5",
    "--engine=masked",
    "--device=cpu",
    "--jobs=1",
)

pytestmark = pytest.mark.usefixtures("empty_folder")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(list(arguments)) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_a_table_remembers_the_metric_of_the_sweep_and_the_name_of_the_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("extends: sst\nlabel: My rule\n")
    sweep = printed(
        capsys, "sweep", *SMALL, "--dst=./mine.yaml", "--metric=last-steps:100", "--json"
    )["table"]
    table = printed(capsys, "table", "results", "--json")
    assert table == sweep
    assert table["metric"] == "last-steps:100"
    (row,) = table["sections"][0]["rows"]
    assert (row["method"], row["label"]) == ("mine", "My rule")
    (cell,) = row["cells"].values()
    assert cell["marks"] == []

    other = printed(capsys, "table", "results", "--json", "--metric=last-steps:125000")
    (cell,) = other["sections"][0]["rows"][0]["cells"].values()
    evaluations = (tmp_path / "results/2DNav-v1/td3-mine/s0.5/seed0/eval.csv").read_text()
    returns = {
        int(line.split(",")[0]): float(line.split(",")[2]) for line in evaluations.splitlines()[1:]
    }
    assert cell["mean"] == pytest.approx((returns[200] + returns[300]) / 2)
    assert cell["marks"] == ["window"]
    assert returns[0] == returns[100]  # nothing is learned before: that is why 100 is left out


def test_two_formats_at_once_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "Hopper-v5/td3-dst/s0.95/seed0", {5: [1.0]})
    for style in ("csv", "rich"):
        assert main(["table", str(tmp_path), f"--format={style}", "--json"]) == 2
        captured = capsys.readouterr()
        assert f"--format {style} and --json: give one of them" in captured.err
        assert captured.out == ""
    both = printed(capsys, "table", str(tmp_path), "--format=json", "--json")
    assert both == printed(capsys, "table", str(tmp_path), "--json")
