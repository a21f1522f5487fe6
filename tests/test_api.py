"""dstrl from Python: what `import dstrl_cli` offers, loads and promises."""

from __future__ import annotations

import inspect
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from env_samples import Counter
from readme_samples import code_after

import dstrl_cli
from dstrl_cli.cli import main
from dstrl_cli.cli import train as command

SMALL = {
    "hidden_sizes": (16, 16),
    "batch_size": 16,
    "learning_starts": 100,
    "eval_every": 100,
    "eval_episodes": 2,
    "topology": {"update_interval": 50},
}
HEAVY = ("torch", "gymnasium", "pandas", "mujoco", "numpy", "numba")

pytestmark = pytest.mark.usefixtures("empty_folder")


def train(**keys: Any) -> dict[str, Any]:
    """Train 300 steps on 2DNav-v1, unless `keys` say otherwise."""
    sets = SMALL | keys.pop("sets", {})
    return dstrl_cli.train(**{"env": "2DNav-v1", "steps": 300, "sparsity": 0.5} | keys, sets=sets)


def python(*arguments: str) -> str:
    """Return what a Python process printed that ended well and complained of nothing."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# --- importing ----------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, dstrl_cli; print([name for name in {HEAVY} if name in sys.modules])"
    assert python("-c", code) == "[]\n"


def test_every_name_that_is_offered_can_be_had():
    assert {"train", "load_policy", "read_results", "read_evaluations"} < set(dstrl_cli.__all__)
    assert set(dstrl_cli.__all__) <= set(dir(dstrl_cli))
    for name in dstrl_cli.__all__:
        assert getattr(dstrl_cli, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'tarin'"):
        _ = dstrl_cli.tarin


def test_python_m_is_the_command():
    assert python("-m", "dstrl_cli", "--version") == f"dstrl {dstrl_cli.__version__}\n"


# --- train --------------------------------------------------------------------------------------


def test_train_takes_the_keys_of_the_command():
    of_the_screen = {"dry_run", "as_json"}
    of_several_runs = {"seeds", "jobs", "device_memory", "members_per_device"}
    flags = {name.rstrip("_") for name in inspect.signature(command).parameters}
    flags = flags - of_the_screen - of_several_runs - {"set"} | {"sets", "quiet"}
    assert set(inspect.signature(dstrl_cli.train).parameters) == flags


def test_a_stored_run_is_trained_again_and_made_longer():
    first = train(dst="sst", out="a", keep_checkpoint=True, checkpoint_every=100)
    again = dstrl_cli.train(config=Path(first["path"]) / "config.yaml", out="b")
    assert Path(again["path"], "eval.csv").read_bytes() == (
        Path(first["path"], "eval.csv").read_bytes()
    )
    longer = train(dst="sst", out="a", resume=True, steps=400)
    assert (longer["steps"], longer["extended_from"]) == (400, 300)
    with pytest.raises(dstrl_cli.InputError, match=r"seed.*config"):
        dstrl_cli.train(config=Path(first["path"]) / "config.yaml", seed=3)


def test_train_does_what_the_command_does(capsys):
    ours = train(algo="sac", dst="rlx2", seed=3, out="a", sets={"nstep": np.int64(2)})
    assert capsys.readouterr() == ("", "")
    arguments = [
        "train",
        "--algo=sac",
        "--dst=rlx2",
        "--seed=3",
        "--out=b",
        "--env=2DNav-v1",
        "--steps=300",
    ]
    keys = {**SMALL, "hidden_sizes": "[16, 16]", "nstep": 2}
    del keys["topology"]
    keys["topology.update_interval"] = 50
    sets = [f"--set={key}={value}" for key, value in keys.items()]
    assert main([*arguments, "--sparsity=0.5", *sets, "--json"]) == 0
    (theirs,) = json.loads(capsys.readouterr().out)["runs"]
    assert ours.keys() == theirs.keys()
    for key in ("status", "steps", "seed", "method", "final_return", "parameters", "flops"):
        assert ours[key] == theirs[key]
    assert (ours["path"], theirs["path"]) == tuple(
        f"{out}/2DNav-v1/sac-rlx2/s0.5/seed3" for out in "ab"
    )
    for name in ("eval.csv", "episodes.csv", "topology.csv", "policy.safetensors"):
        assert Path(ours["path"], name).read_bytes() == Path(theirs["path"], name).read_bytes()


def test_train_prints_evaluations_where_asked(capsys):
    train(quiet=False, engine="masked")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  return")[0] for line in lines] == [
        f"step {step}" for step in (0, 100, 200, 300)
    ]


def test_a_preset_file_and_a_method_file_may_be_paths(tmp_path):
    Path("short.yaml").write_text("description: short\nconfig: {steps: 1, env: 2DNav-v1}\n")
    Path("mine.yaml").write_text("extends: rlx2\n")
    run = dstrl_cli.train(dst=tmp_path / "mine.yaml", preset=tmp_path / "short.yaml")
    assert (run["method"], run["env"], run["steps"]) == ("mine", "2DNav-v1", 1)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"dst": "rlx3"}, "did you mean 'rlx2'"),
        ({"sets": {"taau": 1}}, "did you mean 'tau'"),
        ({"sets": {"nstep": "lots"}}, "nstep"),
        ({"sparsity": 1.5}, "sparsity"),
        ({"steps": 0.5}, "steps"),
        ({"seed": -1}, "seed"),
        ({"preset": "quick"}, "choose one"),
    ],
)
def test_wrong_input_raises_and_nothing_is_written(tmp_path, keys, said):
    with pytest.raises(dstrl_cli.InputError, match=said):
        train(**keys)
    assert not list(tmp_path.iterdir())


def test_a_run_is_replaced_only_when_asked():
    first = train(steps=1)
    with pytest.raises(dstrl_cli.InputError, match="already holds this run"):
        train(steps=1)
    assert train(steps=1, overwrite=True)["path"] == first["path"]


class Fragile(Counter):
    """Breaks at its second step."""

    def step(self, action: np.ndarray) -> Any:
        if self.count == 1:
            raise RuntimeError("the arm fell off")
        return super().step(action)


gymnasium.register("Fragile-v0", Fragile)


def test_a_run_that_fails_raises_with_the_cause():
    with pytest.raises(dstrl_cli.DstrlError, match="the arm fell off") as caught:
        train(env="Fragile-v0")
    assert not isinstance(caught.value, dstrl_cli.InputError)


def test_the_settings_of_the_process_are_as_before():
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        train(steps=1)
        assert torch.get_num_threads() == 3
        assert tiny * 1 != 0
        torch.set_flush_denormal(True)
        train(steps=1, overwrite=True)
        assert tiny * 1 == 0
    finally:
        torch.set_num_threads(threads)


def test_a_program_draws_on_from_its_own_random_numbers():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = [(random.random(), np.random.random()) for _ in range(3)]  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    drawn = []
    for seed in range(3):
        drawn.append((random.random(), np.random.random()))  # noqa: NPY002
        train(seed=seed, steps=1)
    assert drawn == expected


def test_presets_of_several_runs_are_refused():
    with pytest.raises(dstrl_cli.InputError, match=r"seed: the preset names several \(0, 1\)"):
        train(preset="quick", dst="rlx2")
    Path("two.yaml").write_text(
        "config: {env.id: 2DNav-v1}\nsweep: {variants: [{config: {gamma: 0.9}}]}\n"
    )
    with pytest.raises(dstrl_cli.InputError, match="has variants of a run"):
        train(preset="two.yaml", dst="rlx2")


def test_a_finished_run_that_lost_its_summary_is_repaired():
    run = train()
    summary = Path(run["path"]) / "summary.json"
    summary.unlink()
    again = train(resume=True)
    assert again["final_return"]["mean"] == pytest.approx(run["final_return"]["mean"])
    assert summary.is_file()


def test_text_beyond_the_first_plane_is_taken():
    assert train(steps=1, sets={"out": "\U0001f600"})["path"].startswith("\U0001f600")


def test_a_script_needs_no_main_guard():
    keys = "env='2DNav-v1', steps=1, dst='sst'"
    Path("script.py").write_text(
        f"import dstrl_cli\nprint('once')\nprint(dstrl_cli.train({keys})['status'])\n"
    )
    assert python("script.py") == "once\nfinished\n"


# --- policies and results -----------------------------------------------------------------------


def test_load_policy_takes_a_run_folder_or_a_file():
    run = train()
    folder = Path(run["path"])
    observations = np.linspace(-1, 1, 8).reshape(4, 2)
    acts = [
        dstrl_cli.load_policy(path).act(observations)
        for path in (folder, str(folder), folder / "policy.safetensors")
    ]
    assert acts[0].shape == (4, 2)
    assert all(np.array_equal(acts[0], other) for other in acts)
    assert np.abs(acts[0]).max() <= np.float32(0.1)  # the bounds of 2DNav-v1
    with pytest.raises(dstrl_cli.InputError, match="does not exist"):
        dstrl_cli.load_policy("nowhere")


def test_the_example_in_the_readme_runs(capsys):
    space: dict[str, Any] = {}
    exec(code_after("python-example"), space)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in printed[:2]] == [["sst", "finished"], ["rlx2", "finished"]]
    assert -2 <= space["policy"].act([1.0, 0.0, 0.0]).item() <= 2
    assert len(space["runs"]) == 2
    assert len(space["evaluations"]) == 2 * 4  # at steps 0, 200, 400 and 600
