"""`dstrl sweep --status`: the state of every run of a plan, and nothing trained or written."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from sweep_samples import leave, runs

from dstrl_cli.cli import main
from dstrl_cli.config.parse import to_dict
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.sweep.status import Status, look
from dstrl_cli.terminal.status import status_table


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_every_state_of_a_run_is_told(tmp_path):
    found = runs(Axes(seeds=tuple(range(6))), tmp_path)
    leave(found[0], "finished")
    leave(found[1], "diverged")
    leave(found[2], None)
    leave(found[3], "finished", tau=0.1)
    with RunFolder(found[4].path).create(to_dict(found[4].config)) as folder:
        folder.progress({"step": 100, "eval_return_mean": -12.5})
        folder.episodes([{"step": 140, "episode": 0, "return": 1.0, "length": 40, "terminated": 0}])
        with (folder.path / "episodes.csv").open("a") as file:
            file.write("18")  # half a row
        statuses = look(found)
    states = ["finished", "diverged", "unfinished", "another configuration", "running", "new"]
    assert [each.state for each in statuses] == states
    running = statuses[4]
    assert (running.step, running.value) == (140, -12.5)
    assert running.holder == f"process {os.getpid()} on {os.uname().nodename}"
    assert running.age_s is not None
    assert [each.holder for each in statuses if each is not running] == [None] * 5
    assert status_table(statuses, 120).row_count == 6


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, "HalfCheetah-v5/td3-rlx2/s0.95/seed0 running 20,000/1,000,000 -12.5 3 min me"),
        (80, "HalfCheetah-v5/td3-rlx2/s0.95/seed0 running 20,000/1,000,000 -12.5 3 min | me"),
        (70, "HalfCheetah-v5/td3-rlx2/s0.95/seed0 running 2% -12.5 3 min | me"),
        (50, "HalfCheetah-v5/ 2% -12.5 3 min | td3-rlx2/s0.95/seed0 | running | me"),
    ],
)
def test_no_word_of_the_table_is_broken_in_a_narrow_terminal(tmp_path, width, expected):
    (run,) = expand(Axes(), flags={"out": str(tmp_path)})
    found = [Status(run, "running", step=20_000, value=-12.5, age_s=200.0, holder="me")]
    out = io.StringIO()
    Console(file=out, width=width).print(status_table(found, width))
    _, _, _, *lines = out.getvalue().splitlines()
    assert " | ".join(" ".join(line.split()) for line in lines if line.split()) == expected


def test_the_command_trains_and_writes_nothing(tmp_path, capsys):
    arguments = ["--env=2DNav-v1", "--steps=200", "--set=hidden_sizes=8,8", "--seeds=0,1"]
    arguments = ["sweep", *arguments, f"--out={tmp_path}", "--status"]
    sets = ("batch_size=256", "learning_starts=25000", "eval_episodes=10")  # the defaults
    leave(runs(Axes(), tmp_path, sets=sets)[0], "interrupted")
    before = files(tmp_path)
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "2 runs: 1 interrupted, 1 new" in shown
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["states"] == {"interrupted": 1, "new": 1}
    first, second = document["runs"]
    assert (first["seed"], first["state"], first["held_by"]) == (0, "interrupted", None)
    assert (second["state"], second["step"], second["age_s"]) == ("new", None, None)
    assert files(tmp_path) == before
