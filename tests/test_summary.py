"""`summary.json` says which run it is of, and in which units its numbers are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import training_samples as small

from dstrl_cli.cli import main
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs import spec
from dstrl_cli.replay.layout import max_cuts
from dstrl_cli.runs.files import as_yaml
from dstrl_cli.runs.summary import UNITS, about, mark_ended, read_summary


def test_a_finished_run_names_itself(tmp_path: Path) -> None:
    config = small.run("our-rlx2", seed=3, sets=["env.task=2"])
    (path,) = small.train([config], tmp_path)
    summary = read_summary(path) or {}
    named = {key: summary[key] for key in ("algo", "method", "env", "task", "seed")}
    expected = {"algo": "td3", "method": "our-rlx2", "env": "2DNav-v1", "task": 2, "seed": 3}
    assert named == expected
    # the realised sparsities: those of layers with whole numbers of connections
    assert abs(summary["sparsity"]["actor"] - 0.6) < 0.01
    assert abs(summary["sparsity"]["critic"] - 0.6) < 0.01
    assert set(summary["units"]) <= set(summary)
    assert summary["units"]["wall_time_s"] == "seconds"


def test_a_run_that_left_no_summary_is_named_by_whoever_marks_it(tmp_path: Path) -> None:
    config = resolve("sst", "sac", flags={"env.id": "mine:Robot-v0", "sparsity": 0.8, "seed": 4})
    (tmp_path / "config.yaml").write_text(as_yaml({"format": 2}))
    mark_ended(tmp_path, "failed", "killed by SIGKILL", config)
    summary = read_summary(tmp_path) or {}
    assert (summary["status"], summary["error"]) == ("failed", "killed by SIGKILL")
    assert {key: summary[key] for key in about(config)} == {
        "algo": "sac",
        "method": "sst",
        "env": "mine:Robot-v0",
        "task": 0,
        "sparsity": {"actor": 0.8, "critic": 0.8},
        "seed": 4,
        "units": UNITS,
    }


def test_a_plan_says_what_memory_the_replay_buffers_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--env=2DNav-v1", "--dst=sst", "--device=cpu", "--dry-run", "--steps=5000"]
    arguments.append(f"--out={tmp_path}")
    # observation (2 numbers), action (2), reward, two flags, a place for the next observation
    # (2) in a ring of its own or the number of a slot: float32
    twice, once = 4 * (2 + 2 + 3 + 2), 4 * (2 + 2 + 3 + 1)
    ends = 4 * 2 * max_cuts(5000, spec("2DNav-v1").time_limit or 0)
    for engine, size, row, more in (("masked", 180, twice, 0), ("sparse", 160, once, ends)):
        of_engine = [*arguments, f"--engine={engine}"]
        assert main(["train", *of_engine]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"replay buffer of 5,000 transitions: {size} kB of main memory" in shown
        assert main(["train", *of_engine, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["replay_bytes"] == 5000 * row + more
    assert main(["sweep", *arguments, "--seeds=0-3", "--jobs=2", "--set=buffer_size=1000"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "replay buffer of 1,000 transitions, 2 at once: 64.2 kB of main memory" in shown
