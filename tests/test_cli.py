"""The command line from end to end: commands, exit codes, messages, and what is never written."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from dstrl_cli import cli, commands
from dstrl_cli.cli import main
from dstrl_cli.evaluation import video as evaluation

SMALL = [
    "--env=2DNav-v1",
    "--steps=300",
    "--set=hidden_sizes=16,16",
    "--set=batch_size=16",
    "--set=learning_starts=100",
    "--set=eval_every=100",
    "--set=eval_episodes=2",
    "--set=topology.update_interval=50",
]
RUN = Path("results/2DNav-v1/td3-rlx2/s0.5/seed0")


@pytest.fixture(autouse=True)
def _screen_in_an_empty_folder(empty_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


def dstrl(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dstrl_cli.cli", *arguments]
    surroundings = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)


# --- help and version ---------------------------------------------------------------------------


def test_the_commands_that_the_command_line_calls_are_public():
    called = set(re.findall(r"\bcommands\.(\w+)", Path(cli.__file__).read_text()))
    assert called <= set(commands.__all__)


@pytest.mark.parametrize("command", [[], ["train"], ["sweep"], ["eval"], ["table"], ["list"]])
def test_help_is_fast(command):
    code = (
        "import sys; from dstrl_cli.cli import main; "
        f"code = main([*{command!r}, '--help']); "
        "heavy = {'torch', 'gymnasium', 'pandas', 'mujoco', 'numpy'} & {*sys.modules}; "
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dstrl 0.")


def test_an_untrained_run_shows_no_ratio_of_its_training_and_digits_enough(capsys):
    arguments = ["train", *SMALL, "--sparsity=0.999", "--set=hidden_sizes=256,256"]
    assert main([*arguments, "--steps=50"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "FLOPs training 0, acting" in shown
    assert "sparse: 0.1% of the connections are active" in shown
    assert "sparsity 99.8981% of actor and critics" in shown


# --- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--dst=rlx3"], "did you mean 'rlx2'"),
        (["train", "--algo=td4"], "did you mean 'td3'"),
        (["train", "--env=HalfCheeta-v5"], "HalfCheetah-v5"),
        (["train", "--env=CartPole-v1"], "CartPole-v1"),
        (["train", "--env=Hopper-v5", "--task=2"], "no tasks"),
        (["train", "--sparsity=1.0"], "sparsity"),
        (["train", "--sparsity=many"], "--sparsity"),
        (["train", "--sparsity=0.1,0.2"], "more than one"),
        (["train", "--sparsity=0.9999999999", SMALL[2]], "actor.sparsity: the budget of"),
        (["train", "--steps=2e9"], "--steps"),
        (["train", "--seed=-1"], "seed"),
        (["train", "--seed=0", "--seeds=0-1"], "give one of them"),
        (["train", "--seeds=b"], "--seeds"),
        (["train", "--seeds="], "--seeds"),
        (["train", "--dst="], "unknown method ''"),
        (["sweep", "--algo="], "--algo"),
        (["train", "--env=2DNav-v1", "--task=11"], "(set by --task)"),
        (["train", "--env=2DNav-v1", "--out=broken.yaml"], "choose another --out"),
        (["sweep", "--env=2DNav-v1", "--out=broken.yaml"], "choose another --out"),
        (["train", "--set=taau=1"], "did you mean 'tau'"),
        (["train", "--set=tau"], "key=value"),
        (["train", "--set=nstep=lots"], "nstep"),
        (["train", "--preset=absent.yaml"], "absent.yaml"),
        (["train", "--preset=broken.yaml"], "broken.yaml"),
        (["train", "--preset=quik"], "quick"),
        (["train", "--preset=quick"], "--dst"),
        (["train", "--dst=sst", "--ours"], "ours"),
        (["train", "--device=gpu"], "device"),
        (["train", "--env=2DNav-v1", "--device=cuda:63"], "cuda:63"),
        (["sweep", "--env=2DNav-v1", "--device=cuda:63"], "cuda:63"),
        (["train", "--engine=fast"], "engine"),
        (["train", "--replay-device=gpu"], "(set by --replay-device)"),
        (["train", "--device-memory=80"], "--device-memory is for accelerators"),
        (["sweep", "--device=cpu", "--members-per-device=2"], "--members-per-device is for"),
        (["sweep", "--device-memory=80XB"], "--device-memory: '80XB' is no size"),
        (["sweep", "--members-per-device=0"], "--members-per-device"),
        (["sweep", "--device=cuda", "--device-memory=1MB", "--dry-run"], "has 1 MB of memory"),
        (["train", "--jobs=0"], "--jobs"),
        (["sweep", "--metric=median"], "median"),
        (["sweep", "--compare=xu2024:IX"], "xu2024:IX"),
        (["sweep", "--sparsity=0.9:0.1"], "--sparsity"),
        (["eval", "nowhere"], "nowhere"),
        (["eval", "."], "policy.safetensors"),
        (["eval", "broken.yaml"], "broken.yaml"),
        (["table", "nowhere"], "nowhere"),
        (["trian"], "trian"),
    ],
)
def test_wrong_input_is_one_message_and_nothing_is_written(arguments, said, capsys):
    Path("broken.yaml").write_text("config: [unclosed")
    trains = arguments[0] in ("train", "sweep") and "--steps=2e9" not in arguments
    assert main([*arguments, *(["--steps=1"] if trains else [])]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert files() == ["broken.yaml"]


# --- dry runs -----------------------------------------------------------------------------------


def test_a_dry_sweep_lists_nine_runs(capsys):
    arguments = ["sweep", "--sparsity=0.15:0.95", "--env=2DNav-v1", "--steps=5000", "--dry-run"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "9 runs, 9 to do" in captured.out
    assert "nothing will be trained in 9 runs" in captured.err
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["total"], found["to_do"], len(found["runs"])) == (9, 9, 9)
    assert found["runs"][8]["path"] == "results/2DNav-v1/td3-rlx2/s0.95/seed0"
    assert files() == []


def test_a_dry_train_shows_the_resolved_configuration(capsys):
    assert main(["train", *SMALL, "--dry-run", "--device=cuda"]) == 0
    shown = capsys.readouterr().out
    for text in ("rlx2 on TD3", "2DNav-v1", "critics 0.95", "300, of which 100 random", "cuda"):
        assert text in shown
    assert files() == []


def packed(capsys, *arguments: str) -> dict:
    assert main(["sweep", "--device=cuda", *arguments, "--dry-run", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_dry_sweep_packs_for_an_accelerator_that_is_not_here(capsys):
    table = ("--preset=xu2024-table1",)
    found = packed(capsys, *table, "--device-memory=80GB")
    assert (found["mode"], found["to_do"]) == ("populations", 120)
    assert found["devices"] == [{"name": "cuda:0", "memory": 80_000_000_000}]
    assert [each["members"] for each in found["populations"]] == [30] * 4
    (ant, *_) = found["populations"]
    assert (ant["env"], ant["algo"], ant["device"]) == ("Ant-v2", "td3", "cuda:0")
    # both actions, reward and ends, a slot; 1,000 observations at time limits and two more
    row, ends = 111 + 2 * 8 + 3 + 1, 1_002 * 111
    assert ant["memory"]["replay"] == 30 * (1_000_000 * row + ends) * 4
    parts = ("replay", "networks", "updates", "streams", "reserve")
    assert ant["memory"]["device"] == sum(ant["memory"][part] for part in parts)
    assert sum(len(each["runs"]) for each in found["populations"]) == 120

    found = packed(capsys, *table, "--device-memory=9GB", "--members-per-device=20")
    assert [each["members"] for each in found["populations"]] == [10, 10, 10] + [15, 15] * 3
    found = packed(capsys, *table, "--device-memory=16GB", "--replay-device=cpu")
    assert [each["members"] for each in found["populations"]] == [30] * 4
    assert found["populations"][0]["memory"]["replay"] == 0
    assert files() == []


def table_lines(lines: list[str]) -> list[str]:
    """Return the lines of tables: the others are whole sentences, which a terminal wraps."""
    return [line for line in lines if line.startswith(" ") or not line]


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_packing_fits_the_terminal_and_says_what_takes_memory(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    arguments = ["sweep", "--preset=xu2024-table1", "--device=cuda", "--dry-run"]
    assert main([*arguments, "--device-memory=80GB"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert max(map(len, table_lines(lines))) <= int(width)
    (row,) = [line.split() for line in lines if "HalfCheetah-v2" in line and "cuda:0" in line]
    assert row[:5] == ["2", "HalfCheetah-v2", "td3", "30", "6"]
    assert "replay 15.7 GB" in shown
    assert "memory to use: 80 GB of cuda:0" in lines
    assert "120 to do; in 4 populations on cuda:0" in lines[-1]
    assert main(arguments) == 0
    assert "--device-memory 80GB" in capsys.readouterr().out


def test_a_dry_train_says_what_it_takes_of_an_accelerator(capsys):
    assert main(["train", *SMALL, "--seeds=0-1", "--dry-run", "--device=cuda:3"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "cuda:3, 1 thread; 1.5" in shown
    assert "networks" in shown
    assert main(["train", *SMALL, "--dry-run", "--device=cuda", "--replay-device=cpu"]) == 0
    assert "13.2 kB of main memory (replay)" in " ".join(capsys.readouterr().out.split())


def test_narrow_terminals_lose_no_run(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    arguments = ["sweep", "--dst=dense,our-rlx2", "--env=HalfCheetah-v5", "--env=Ant-v5"]
    assert main([*arguments, "--seeds=0-9", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, table_lines(lines))) <= 60
    assert "40 runs, 40 to do" in lines[-1]


# --- train, eval, table, sweep ------------------------------------------------------------------


def test_train_then_eval_then_table(capsys):
    assert main(["train", *SMALL, "--sparsity=0.5"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "step 300  return" in shown.out
    assert "finished" in shown.out
    assert str(RUN) in shown.out
    assert {path.name for path in RUN.iterdir()} == {
        "config.yaml",
        "progress.csv",
        "eval.csv",
        "episodes.csv",
        "topology.csv",
        "hashes.csv",
        "neurons.csv",
        "summary.json",
        "initial.safetensors",
        "policy.safetensors",
        "best.safetensors",
    }
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    assert (config["engine"], config["run"]["device"]) == ("sparse", "cpu")

    assert main(["eval", str(RUN), "--episodes=12", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["returns"]) == 12
    assert result["return"]["min"] <= result["return"]["mean"] <= result["return"]["max"] < 0
    assert main(["eval", str(RUN / "policy.safetensors"), "--episodes=1"]) == 0
    assert "1 episode" in capsys.readouterr().out

    assert main(["table", "results", "--metric=final", "--json"]) == 0
    assert "rlx2" in capsys.readouterr().out

    assert main(["train", *SMALL, "--sparsity=0.5"]) == 2
    assert "already holds this run (finished)" in capsys.readouterr().err
    assert main(["train", *SMALL, "--sparsity=0.5", "--set=tau=0.1"]) == 2
    assert "tau" in capsys.readouterr().err
    assert main(["train", *SMALL, "--sparsity=0.5", "--set=tau=0.1", "--overwrite", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert (run["status"], run["path"]) == ("finished", str(RUN))
    assert yaml.safe_load((RUN / "config.yaml").read_text())["tau"] == 0.1


def test_the_policy_must_fit_the_environment(capsys):
    assert main(["train", *SMALL, "--sparsity=0.5", "--steps=1"]) == 0
    capsys.readouterr()
    assert main(["eval", str(RUN), "--env=Pendulum-v1"]) == 2
    assert "Pendulum-v1" in capsys.readouterr().err


def test_a_video_needs_its_extra(capsys, monkeypatch):
    assert main(["train", *SMALL, "--sparsity=0.5", "--steps=1"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    assert main(["eval", str(RUN), "--video=out.mp4"]) == 2
    assert 'pip install "dstrl[video]"' in capsys.readouterr().err
    assert not Path("out.mp4").exists()


def test_what_cannot_be_drawn_is_said(tmp_path, capsys, monkeypatch):
    Path("unseen.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "class Unseen(PendulumEnv):\n"
        "    metadata = {'render_modes': []}\n"
        "gymnasium.register('Unseen-v0', entry_point=Unseen, max_episode_steps=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(evaluation, "check_video", lambda path: None)
    monkeypatch.setitem(sys.modules, "imageio", ModuleType("imageio"))
    monkeypatch.setitem(sys.modules, "imageio.v2", ModuleType("imageio.v2"))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert main(["train", *SMALL, "--env=unseen:Unseen-v0", "--sparsity=0.5", "--steps=1"]) == 0
    capsys.readouterr()
    run = "results/Unseen-v0/td3-rlx2/s0.5/seed0"
    assert main(["eval", run, "--episodes=1", "--video=out.mp4"]) == 2
    assert "env 'Unseen-v0' cannot be drawn" in capsys.readouterr().err


def test_sweep_shows_the_table_beside_a_run_that_failed_at_once(tmp_path):
    Path("sudden.py").write_text(
        "import gymnasium, multiprocessing\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "class Sudden(PendulumEnv):\n"
        "    def reset(self, **options):\n"
        "        if multiprocessing.parent_process():  # not where it is checked before\n"
        "            raise RuntimeError('no battery')\n"
        "        return super().reset(**options)\n"
        "gymnasium.register('Sudden-v0', entry_point=Sudden, max_episode_steps=9)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    arguments = [*SMALL, "--env=sudden:Sudden-v0", "--sparsity=0.5", "--metric=final"]
    done = dstrl("sweep", *arguments, PYTHONPATH=path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    named = "failed      Sudden-v0/td3-rlx2/s0.5/seed0 environment 0 (Sudden-v0)"
    assert done.stderr.count(named) == 1
    assert "RLx2" in done.stdout


def test_sweep_prints_the_table_and_continues(capsys):
    arguments = ["sweep", *SMALL, "--dst=sst,rlx2", "--sparsity=0.5", "--metric=final"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "2 runs, 2 to do" in shown
    assert "RLx2" in shown.splitlines()[-1] or "RLx2" in shown
    before = {name: Path(name).stat().st_mtime_ns for name in files()}
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == []
    assert document["table"]
    assert {name: Path(name).stat().st_mtime_ns for name in files()} == before


def test_several_seeds_and_a_failure_end_with_exit_code_1(tmp_path):
    Path("fragile.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import PendulumEnv\n"
        "class Fragile(PendulumEnv):\n"
        "    worn = False\n"
        "    def step(self, action):\n"
        "        if self.worn:\n"
        "            raise RuntimeError('the arm fell off')\n"
        "        self.worn = True\n"
        "        return super().step(action)\n"
        "gymnasium.register('Fragile-v0', entry_point=Fragile, max_episode_steps=9)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = dstrl("train", *SMALL, "--env=fragile:Fragile-v0", "--seeds=0,1", PYTHONPATH=path)
    assert done.returncode == 1
    assert "error: 2 of 2 runs did not finish; they are named above" in done.stderr
    assert "Traceback" not in done.stderr
    for seed in (0, 1):  # the cause is told once
        label = f"Fragile-v0/td3-rlx2/s0.95/seed{seed}"
        assert len(re.findall(rf"failed +{label} .*the arm fell off", done.stderr)) == 1
    assert "the arm fell off" not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_valid_folder(number, capsys):
    arguments = [*SMALL, "--sparsity=0.5", "--steps=1e7"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dstrl_cli.cli", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "step 200" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    summary = json.loads((RUN / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert summary["steps"] >= 200
    assert main(["train", *arguments]) == 2
    assert "(interrupted)" in capsys.readouterr().err
    assert main(["eval", str(RUN)]) == 0
