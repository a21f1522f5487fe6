"""What `dstrl bench topology` counts by the papers' formulas, and that it measures something."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dstrl_cli.bench.topology import flops_shares, importance_operations
from dstrl_cli.cli import main
from dstrl_cli.config.resolving import resolve
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training.run import Run

SMALL = "hidden_sizes=[8]", "batch_size=10"


def planned(method: str) -> Run:
    flags = {"env.id": "2DNav-v1", "sparsity": 0.5}
    return prepare(resolve(method, "td3", sets=SMALL, flags=flags), Path("run"))


def test_shares_of_flops_follow_rlx():
    run = planned("rlx2")
    # actor 2-8-2: 32 weights, half of them active; critic 4-8-1: 40
    a, c = 2 * 16, 2 * 20
    train = 2.5 * a + 8.5 * c
    found = flops_shares(run.config, run)
    assert found["actor"] == pytest.approx(2 * (2 * 32) / 10_000 / train)
    assert found["critic"] == pytest.approx(4 * (2 * 40) / 10_000 / train)
    assert found["buffer"] == pytest.approx(8 * a / 10_000 / train)


def test_operations_of_importance_follow_xu():
    run = planned("our-rlx2")
    from dstrl_cli.sweep.plan import layer_budgets

    first, last = layer_budgets(run.config, run.spec)["critic"]
    assert first + last == 20
    # 10 samples; additions: inputs and hidden units over the first layer, the output over the last
    assert importance_operations(run.config, run) == 2 * (10 + (2 * first + last) + 20)


def test_each_event_is_measured_and_written(tmp_path, capsys):
    file = tmp_path / "topology.csv"
    sets = [f"--set={each}" for each in (*SMALL, "steps=100000", "learning_starts=100")]
    asked = ["--dst=rlx2", "--env=2DNav-v1", "--engine=masked", "--updates=120", f"--csv={file}"]
    assert main(["bench", "topology", *asked, *sets]) == 0
    assert "buffer check" in capsys.readouterr().out
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["what"] for row in rows] == ["critics", "actor", "buffer check"]
    assert [row["every"] for row in rows] == ["10000", "20000", "10000"]
    assert all(float(row["milliseconds"]) >= 0 for row in rows)


def test_a_delay_that_leaves_no_update_to_compare_with_is_refused(capsys):
    sets = [f"--set={each}" for each in (*SMALL, "steps=100000", "policy_delay=6")]
    asked = ["--dst=rlx2", "--env=2DNav-v1", "--engine=masked", "--updates=60"]
    assert main(["bench", "topology", *asked, *sets]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "policy_delay = 6: every update of the actor" in said


def test_a_method_that_never_changes_is_refused(capsys):
    assert main(["bench", "topology", "--dst=sst"]) == 2
    assert "--dst sst: no topology of its changes" in capsys.readouterr().err
