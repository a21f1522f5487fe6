"""Runs and evaluations as DataFrames, from small run folders with hand-worked numbers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from report_samples import write_run

from dstrl_cli.errors import InputError
from dstrl_cli.report.frames import read_evaluations, read_results

SUMMARY = {
    "steps": 1000,
    "episodes": 2,
    "parameters": {"sok_active": 20, "sok_dense": 200},
    "flops": {"train_total": 5e9, "train_ratio": 0.25},
    "wall_time_s": 1.5,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_run(
        tmp_path,
        "Hopper-v5/td3-dst/a0.9-c0.8/seed0",
        {0: [-99.0, -99.0], 500: [1.0, 3.0], 1000: [4.0, 8.0]},
        episodes={100: [10.0], 200: [20.0]},
        summary=SUMMARY,
        config={"metric": "last-steps:100", "hidden_sizes": [8, 4]},
    )
    write_run(
        tmp_path,
        "2DNav-v1.task3/sac-mine+nstep5/s0.5/seed2",
        {},
        status="failed",
        config={"method_label": "My rule"},
    )
    return tmp_path


def test_a_row_per_run(results: Path) -> None:
    frame = read_results(results)
    assert frame.attrs["damaged"] == []
    failed, row = (frame.iloc[number].to_dict() for number in (0, 1))
    assert {key: row[key] for key in list(row)[:15]} == {
        "path": "Hopper-v5/td3-dst/a0.9-c0.8/seed0",
        "env": "Hopper-v5",
        "task": 0,
        "algo": "td3",
        "method": "dst",
        "label": "DST",
        "sparsity": "a0.9-c0.8",
        "actor_sparsity": 0.9,
        "critic_sparsity": 0.8,
        "seed": 0,
        "status": "finished",
        "steps_trained": 1000,
        "episodes_trained": 2,
        "metric": "last-steps:100",
        "value": 6.0,
    }
    assert (row["final"], row["best"], row["all-evals"], row["all-episodes"]) == (6, 6, 4, 15)
    assert row["lca"] == pytest.approx((2 + 6) / 1000)
    assert (row["parameters.sok_active"], row["flops.train_ratio"]) == (20, 0.25)
    assert (row["wall_time_s"], row["actor.sparsity"], row["hidden_sizes"]) == (1.5, 0.9, (8, 4))
    assert (failed["label"], failed["method"], failed["task"]) == (
        "My rule +nstep5",
        "mine+nstep5",
        3,
    )
    assert (failed["metric"], failed["status"]) == ("last-steps:125000", "failed")
    assert math.isnan(failed["value"])
    assert math.isnan(failed["all-episodes"])


def test_a_row_per_evaluation(results: Path) -> None:
    frame = read_evaluations(results)
    assert frame["step"].tolist() == [0, 500, 1000]
    assert frame["return_mean"].tolist() == [-99.0, 2.0, 6.0]
    assert frame["return_std"].tolist() == [0.0, 1.0, 2.0]
    assert frame["length_mean"].tolist() == [100.0] * 3
    assert frame["episodes"].tolist() == [2, 2, 2]
    assert set(frame["path"]) == {"Hopper-v5/td3-dst/a0.9-c0.8/seed0"}
    assert set(frame["critic_sparsity"]) == {0.8}


def test_runs_without_evaluations_give_an_empty_frame(tmp_path: Path) -> None:
    write_run(tmp_path, "Hopper-v5/td3-dst/s0.9/seed0", {}, status=None)
    frame = read_evaluations(tmp_path)
    assert len(frame) == 0
    assert {"path", "step", "return_mean"} <= set(frame.columns)


def test_damage_is_a_warning_and_listed(results: Path) -> None:
    damaged = results / "Hopper-v5/td3-dst/a0.9-c0.8/seed0/eval.csv"
    with damaged.open("a") as file:
        file.write("1500,0,1.0")
    expected = "Hopper-v5/td3-dst/a0.9-c0.8/seed0/eval.csv: last line cut off, left out"
    with pytest.warns(UserWarning, match="1 problem in .*, the first: Hopper"):
        frame = read_evaluations(results)
    assert frame.attrs["damaged"] == [expected]
    assert frame["step"].tolist() == [0, 500, 1000]


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no runs"):
        read_results(tmp_path)
