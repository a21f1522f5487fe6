"""A run whose disk fills up, or whose files grow beyond a limit, fails and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disk_samples import fill, small_disk
from program_samples import REPOSITORY
from resume_samples import StopAt, make_run, train

from dstrl_cli.cli import main
from dstrl_cli.errors import DstrlError
from dstrl_cli.runs.logs import COLUMNS
from dstrl_cli.runs.summary import read_status, read_summary

KEYS = (
    *("hidden_sizes=[8,8]", "batch_size=8", "learning_starts=20", "eval_every=50"),
    *("eval_episodes=1", "topology.update_interval=1", "buffer_size=1000"),
)
TRAIN = (
    *("train", "--dst", "dst", "--env", "2DNav-v1", "--sparsity", "0.5", "--steps", "400"),
    *("--engine", "masked", "--device", "cpu", *(each for key in KEYS for each in ("--set", key))),
)


def assert_rows_are_whole(folder: Path) -> None:
    for name, columns in COLUMNS.items():
        lines = (folder / name).read_text().splitlines(keepends=True)
        assert lines[0].strip() == ",".join(columns)
        assert all(line.endswith("\n") and line.count(",") == len(columns) - 1 for line in lines)
    updates = (folder / "topology.csv").read_text().splitlines()[1:]
    assert updates[-1].split(",")[1:3] in (["actor", "2"], ["critic2", "2"])  # an update is whole


@pytest.mark.soak
def test_a_run_that_meets_a_limit_on_the_size_of_files_fails_whole(tmp_path: Path) -> None:
    import resource

    done = subprocess.run(
        [sys.executable, "-m", "dstrl_cli", *TRAIN, "--out", str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "300"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "topology.csv cannot be written: the file would be larger than" in done.stderr
    (folder,) = (tmp_path / "out").glob("*/*/*/*")
    assert_rows_are_whole(folder)
    summary = read_summary(folder) or {}
    assert summary["status"] == "failed"
    assert "topology.csv cannot be written" in summary["error"]
    assert not list(folder.glob(".*"))


def test_a_run_on_a_full_disk_fails_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        fill(disk, leave=48 * 1024)
        assert main([*TRAIN, "--out", str(disk / "out")]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert "cannot be written: the disk is full" in said
        (folder,) = (disk / "out").glob("*/*/*/*")
        assert_rows_are_whole(folder)
        assert read_status(folder) in ("failed", "unfinished")  # the summary may not fit, either
        assert not list(folder.glob(".*"))


def test_a_run_whose_folder_is_deleted_fails_and_names_the_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "sst")
    with pytest.raises(DstrlError, match=r"\w+\.csv cannot be written: No such file or directory"):
        train(run, StopAt(70, lambda: shutil.rmtree(run.path)))
    assert not run.path.exists()
