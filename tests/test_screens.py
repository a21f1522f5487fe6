"""Terminals as they are: poor encodings, readers that go away, libraries that print themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_samples import write_policy
from program_samples import REPOSITORY
from report_samples import write_run

from dstrl_cli.report.marks import Mark
from dstrl_cli.runs.policy import network_tensors
from dstrl_cli.terminal.streams import PatientStream

TINY = (
    *("--env=2DNav-v1", "--steps=30", "--sparsity=0.5", "--engine=masked"),
    *("--set=hidden_sizes=[4,4]", "--set=learning_starts=25", "--set=batch_size=4"),
    *("--set=eval_every=1", "--set=eval_episodes=1"),
)
PROGRAM = [sys.executable, "-P", "-m", "dstrl_cli"]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"} | more


def run(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    command = [*PROGRAM, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(**more), capture_output=True, check=False
    )


# --- encodings ----------------------------------------------------------------------------------


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """Results whose table has a dagger and other signs beyond ASCII."""
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.9/seed0", {1000: [1.0]})
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.9/seed1", {1000: [2.0]}, status=None)
    for seed in (0, 1):
        write_run(tmp_path, f"Ant-v5/td3-dst/s0.9/seed{seed}", {1000: [2.0]})
    return tmp_path


@pytest.mark.parametrize("encoding", ["gbk", "cp437", "big5", "ascii"])
def test_a_table_is_printed_in_a_poor_encoding(marked: Path, encoding: str) -> None:
    done = run(marked, "table", ".", "--compare=xu2024:I", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode(encoding)
    assert "+- 0.00" in text or "± 0.00" in text
    if encoding == "ascii":
        assert "n=1ot" in text  # ° and †, which stay two different signs
        assert "t the metric's window is longer" in text


def test_what_stands_for_a_mark_in_ascii_is_one_sign_of_its_own() -> None:
    with Path(os.devnull).open("w", encoding="ascii") as nowhere:
        assert PatientStream(nowhere).errors == "dstrl-replace"
    shown = [mark.symbol.encode("ascii", "dstrl-replace") for mark in Mark]
    assert len(set(shown)) == len(Mark)
    assert all(len(each) == 1 and each != b"?" for each in shown)
    assert "日".encode("ascii", "dstrl-replace") == b"?"


@pytest.mark.soak
@pytest.mark.parametrize("encoding", ["gbk", "cp437", "big5", "ascii", "utf-16"])
def test_every_command_runs_in_a_poor_encoding(marked: Path, encoding: str) -> None:
    run_folder = "results/2DNav-v1/td3-rlx2/s0.5/seed0"
    commands = [
        ("train", *TINY),
        ("train", *TINY),  # refused
        ("train", *TINY, "--dry-run"),
        ("sweep", *TINY, "--seeds=0-1"),
        ("sweep", *TINY, "--seeds=0-1", "--json"),
        ("eval", run_folder),
        *(("table", "results", f"--format={style}") for style in ("rich", "md", "latex", "csv")),
        *(("list", what) for what in ("methods", "envs", "scores", "keys", "presets")),
        ("bench", "infer", run_folder, "--seconds=0.01", "--repeats=1"),
        ("--help",),
        ("train", "--help"),
        ("train", "--nonsense"),
    ]
    for command in commands:
        done = run(marked, *command, PYTHONIOENCODING=encoding)
        assert b"Traceback" not in done.stderr, (command, done.stderr)
        assert b"should not happen" not in done.stderr, (command, done.stderr)


# --- readers that go away -----------------------------------------------------------------------


def read_and_leave(folder: Path, lines: int, *arguments: str) -> tuple[int, list[bytes], bytes]:
    """Run a command whose reader closes the pipe after some lines; return code, lines, errors."""
    process = subprocess.Popen(
        [sys.executable, "-u", *PROGRAM[1:], *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    read = [process.stdout.readline() for _ in range(lines)]
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    return process.wait(), read, errors


@pytest.mark.parametrize("command", ["train", pytest.param("sweep", marks=pytest.mark.soak)])
def test_a_training_goes_on_when_its_reader_goes_away(tmp_path: Path, command: str) -> None:
    code, read, errors = read_and_leave(tmp_path, 2, command, *TINY)
    assert all(read)
    assert (code, errors) == (0, b"")
    (summary,) = tmp_path.rglob("summary.json")
    found = json.loads(summary.read_text())
    assert (found["status"], found["steps"], found["error"]) == ("finished", 30, None)


def test_a_list_that_is_read_in_part_is_no_error(tmp_path: Path) -> None:
    code, read, errors = read_and_leave(tmp_path, 1, "list", "keys")
    assert (code, errors) == (0, b"")
    assert read


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_results_that_cannot_be_written_to_the_screen_are_an_error(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*PROGRAM, "list", "keys", "--json"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert b"standard output cannot be written: No space left on device" in done.stderr


# --- JSON ---------------------------------------------------------------------------------------

CHATTY = """
import ctypes, os
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv
C = ctypes.CDLL(None)
class Chatty(PendulumEnv):
    def reset(self, **options):
        print("from Python")
        os.write(1, b"from the descriptor\\n")
        C.printf(b"from C, which holds it back\\n")
        return super().reset(**options)
gymnasium.register("Chatty-v0", Chatty, max_episode_steps=5)
"""


SAID = (b"from Python", b"from the descriptor", b"from C, which holds it back")


def test_json_is_alone_on_standard_output(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    write_policy(
        tmp_path / "policy.safetensors",
        network_tensors("actor", [np.ones((3, 1))], [np.ones(1)], [np.ones((3, 1))]),
        env="chatty:Chatty-v0",
        task=None,
        observation_size=3,
        hidden_sizes=[],
        action_low=[-2.0],
        action_high=[2.0],
    )
    done = run(tmp_path, "eval", "policy.safetensors", "--trust", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["returns"]) == 10
    assert all(words in done.stderr for words in SAID)


@pytest.mark.soak
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_json_of_a_training_is_alone_on_standard_output(tmp_path: Path, command: str) -> None:
    (tmp_path / "chatty.py").write_text(CHATTY)
    env = "--env=chatty:Chatty-v0"
    done = run(tmp_path, command, *TINY, env, "--seeds=0-1", "--json")
    assert [each["status"] for each in json.loads(done.stdout)["runs"]] == ["finished"] * 2
    assert all(words in done.stderr for words in SAID)
