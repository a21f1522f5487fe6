"""Real processes that are killed with SIGKILL, at random moments and at every write."""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from resume_samples import NUMBERS, SMALL

REPOSITORY = Path(__file__).parents[1]
DYING = Path(__file__).with_name("dying_program.py")
RUN = "InvertedPendulum-v5/{algo}-{method}/s0.6/seed0"


def flags(algo: str, method: str, engine: str, steps: int, every: int) -> list[str]:
    """Return the arguments of a small run."""
    return [
        *(
            "train",
            f"--algo={algo}",
            f"--dst={method}",
            "--env=InvertedPendulum-v5",
            f"--engine={engine}",
        ),
        *(f"--steps={steps}", "--sparsity=0.6", f"--checkpoint-every={every}", "--device=cpu"),
        *(f"--set={each}" for each in SMALL),
    ]


def start(arguments: list[str], program: list[str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *(program or ["-m", "dstrl_cli"]), *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(arguments: list[str], program: list[str] | None = None) -> str:
    """Run dstrl to its end, which must be exit code 0; return what it printed."""
    process = start(arguments, program)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def numbers(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NUMBERS if (folder / name).exists()}


class Program:
    """A process that runs dstrl again and again, to its end or to a write at which it dies."""

    def __enter__(self) -> "Program":
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(DYING)],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def run(self, *arguments: str, **job: object) -> dict:
        """Return the exit code, the writes and the output of one run of dstrl."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({"arguments": arguments, **job}), file=self.process.stdin, flush=True)
        answer: dict = json.loads(self.process.stdout.readline())
        return answer


def test_a_process_killed_at_three_random_writes_is_resumed_to_the_same_bytes(tmp_path):
    arguments = flags("td3", "rlx2", "masked", steps=110, every=45)
    run, moments = RUN.format(algo="td3", method="rlx2"), random.Random(7)
    with Program() as program:
        writes = program.run(*arguments, f"--out={tmp_path / 'whole'}")["writes"]
        for part in range(3):  # one in every third of the run; in the last one it has a checkpoint
            number = int(writes * (part + moments.random()) / 3) + 1
            out = tmp_path / f"killed-{number}"
            died = program.run(*arguments, f"--out={out}", number=number, stage="amid")
            assert died["code"] == -signal.SIGKILL, died["output"]
            ended = program.run(*arguments, f"--out={out}", "--resume")
            assert ended["code"] == 0, ended["output"]
            assert numbers(out / run) == numbers(tmp_path / "whole" / run), number
    assert "resumes at step " in ended["output"]


CASES = [
    (algo, method, engine)
    for algo in ("td3", "sac")
    for method in ("rlx2", "our-rlx2", "our-dst")
    for engine in ("masked", "sparse")
]


@pytest.mark.soak
def test_fifty_random_kills_change_no_byte(tmp_path):
    """Each run is killed again and again until it happens to reach its end."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed of the moments: {seed}")
    moments, kills = random.Random(seed), 0
    while kills < 50:
        for algo, method, engine in CASES:
            arguments = flags(algo, method, engine, steps=3000, every=200)
            run = RUN.format(algo=algo, method=method)
            whole, out = tmp_path / f"{engine}-whole", tmp_path / f"{engine}-{kills}"
            if not (whole / run / "summary.json").exists():
                finish([*arguments, f"--out={whole}"])
            for _ in range(6):
                process = start([*arguments, f"--out={out}", "--resume"])
                try:
                    process.communicate(timeout=moments.uniform(1.5, 9))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    kills += 1
                else:
                    assert process.returncode == 0
                    break
            finish([*arguments, f"--out={out}", "--resume"])
            assert numbers(out / run) == numbers(whole / run), (seed, algo, method, engine)


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["before", "amid"])
def test_a_kill_at_any_write_changes_no_byte(tmp_path, stage):
    arguments = flags("td3", "our-rlx2", "masked", steps=110, every=45)
    run, out = RUN.format(algo="td3", method="our-rlx2"), tmp_path / "killed"
    with Program() as program:
        writes = program.run(*arguments, f"--out={tmp_path / 'whole'}")["writes"]
        whole = numbers(tmp_path / "whole" / run)
        assert writes > 100
        for number in range(1, writes + 1):
            died = program.run(*arguments, f"--out={out}", number=number, stage=stage)
            assert died["code"] == -signal.SIGKILL, died["output"]
            ended = program.run(*arguments, f"--out={out}", "--resume")
            assert ended["code"] == 0, ended["output"]
            assert numbers(out / run) == whole, number
            shutil.rmtree(out)


@pytest.mark.soak
@pytest.mark.parametrize("stage", ["before", "amid"])
def test_a_kill_at_any_write_of_a_resumed_run_changes_no_byte(tmp_path, stage):
    arguments = flags("sac", "rlx2", "masked", steps=110, every=45)
    run, out = RUN.format(algo="sac", method="rlx2"), tmp_path / "killed"
    stopped, resuming = tmp_path / "stopped", [f"--out={out}", "--resume"]
    with Program() as program:
        writes = program.run(*arguments, f"--out={tmp_path / 'whole'}")["writes"]
        whole = numbers(tmp_path / "whole" / run)
        program.run(*arguments, f"--out={stopped}", number=writes - 40, stage="before")
        assert (stopped / run / "checkpoint" / "state.safetensors").exists()
        for number in itertools.count(1):
            shutil.copytree(stopped, out)
            died = program.run(*arguments, *resuming, number=number, stage=stage)
            if died["code"] == 0:
                break
            assert died["code"] == -signal.SIGKILL, died["output"]
            ended = program.run(*arguments, *resuming)
            assert ended["code"] == 0, ended["output"]
            assert numbers(out / run) == whole, number
            shutil.rmtree(out)
    assert number > 50
