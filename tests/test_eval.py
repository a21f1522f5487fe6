"""`dstrl eval`: the episodes of training again, other ones, the best policy, and live pictures."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from env_samples import Counter
from policy_samples import write_policy
from readme_samples import code_after
from safetensors.numpy import load_file

import dstrl_cli
from dstrl_cli.cli import main
from dstrl_cli.envs import make_batch, spec
from dstrl_cli.evaluation.starts import start_seeds
from dstrl_cli.runs.policy import Policy, network_tensors, read

SMALL = {
    "hidden_sizes": [16, 16],
    "batch_size": 16,
    "learning_starts": 100,
    "eval_every": 100,
    "eval_episodes": 3,
    "topology.update_interval": 50,
}

pytestmark = pytest.mark.usefixtures("empty_folder")


def trained(env: str, *, seed: int = 5, **keys: Any) -> Path:
    """Train a short run; return its folder."""
    sets = SMALL | keys.pop("sets", {})
    run = dstrl_cli.train(env=env, seed=seed, sparsity=0.5, sets=sets, **{"steps": 300} | keys)
    return Path(run["path"])


def evaluated(capsys, run: Path | str, *arguments: str) -> dict[str, Any]:
    """Return what `dstrl eval --json` prints."""
    assert main(["eval", str(run), "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def rows(run: Path, name: str = "eval.csv") -> list[dict[str, float]]:
    with (run / name).open(newline="") as file:
        return [{k: float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]


def returns_at(run: Path, step: float) -> list[float]:
    return [row["return"] for row in rows(run) if row["step"] == step]


# --- the episodes of training -------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["masked", "sparse"])
@pytest.mark.parametrize("env", ["2DNav-v1", "Pendulum-v1", "InvertedPendulum-v5"])
def test_eval_repeats_the_last_evaluation_of_training(capsys, env, engine):
    run = trained(env, engine=engine)
    found = evaluated(capsys, run)
    assert (found["step"], found["seed"]) == (300, 5)
    assert found["returns"] == pytest.approx(returns_at(run, 300), rel=1e-3)
    mean = rows(run, "progress.csv")[-1]["eval_return_mean"]
    assert found["return"]["mean"] == pytest.approx(mean, rel=1e-3)


def test_other_seeds_start_elsewhere_and_more_episodes_follow_those_of_training(capsys):
    run = trained("Pendulum-v1")
    own = evaluated(capsys, run)["returns"]
    assert evaluated(capsys, run, "--seed=5")["returns"] == own
    assert not np.isclose(evaluated(capsys, run, "--seed=6")["returns"], own).any()
    more = evaluated(capsys, run, "--episodes=12")["returns"]
    assert len(more) == 12
    assert more[:3] == pytest.approx(own, rel=1e-3)


def test_the_starts_are_named(capsys):
    run = trained("2DNav-v1", steps=1)
    for arguments, said in (
        ([], "3 episodes from the starts of training's evaluations"),
        (["--seed=6", "--episodes=1"], "1 episode from the starts of seed 6"),
    ):
        assert main(["eval", str(run), *arguments]) == 0
        assert said in capsys.readouterr().out


def test_start_seeds_are_those_of_the_first_release():
    first = [768374506, 219759032, 468035288]
    assert start_seeds(0, 3) == first
    assert start_seeds(0, 2) == first[:2]
    assert not set(start_seeds(1, 10)) & set(start_seeds(0, 10))


def test_a_file_outside_a_run_takes_ten_episodes_of_seed_0(capsys, tmp_path):
    run = trained("2DNav-v1", steps=1)
    alone = tmp_path / "alone"
    shutil.copy(run / "policy.safetensors", alone)
    assert main(["eval", str(alone), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found = json.loads(captured.out)
    assert (found["seed"], len(found["returns"])) == (0, 10)


@pytest.mark.parametrize("file", ["", "policy.safetensors"])
def test_a_run_whose_configuration_is_missing_is_told_which_starts_it_gets(capsys, file):
    run = trained("2DNav-v1", steps=1)
    (run / "config.yaml").unlink()
    said = "config.yaml is missing: the starts are those of seed 0, not the run's"
    for arguments in ([], ["--json"]):
        assert main(["eval", str(run / file), *arguments]) == 0
        assert said in " ".join(capsys.readouterr().err.split())
    assert main(["eval", str(run / file), "--seed=5"]) == 0
    assert capsys.readouterr().err == ""


def test_a_damaged_configuration_beside_the_policy_is_named(capsys):
    run = trained("2DNav-v1", steps=1)
    (run / "config.yaml").write_text("algo: nothing")
    assert main(["eval", str(run)]) == 2
    said = capsys.readouterr().err
    assert "config.yaml, which says how this run evaluates, cannot be read" in said
    assert "seems cut off: it lacks keys that every run has (method, env, seed and " in said


def test_another_task_or_environment_can_be_chosen(capsys):
    run = trained("2DNav-v1", steps=1)
    assert evaluated(capsys, run)["task"] == 0
    other = evaluated(capsys, run, "--task=3")
    assert (other["env"], other["task"]) == ("2DNav-v1", 3)
    assert evaluated(capsys, run, "--env=2DNav-v2")["env"] == "2DNav-v2"


# --- the best policy ----------------------------------------------------------------------------


def test_the_best_policy_is_that_of_the_best_evaluation_after_step_0(capsys):
    run = trained("Pendulum-v1", steps=500)
    later = rows(run, "progress.csv")[1:]
    best = max(later, key=lambda row: row["eval_return_mean"])  # of equal ones the first
    assert best["step"] < 500  # else this test would show nothing
    found = evaluated(capsys, run / "best.safetensors")
    assert found["step"] == best["step"]
    assert found["return"]["mean"] == pytest.approx(best["eval_return_mean"], rel=1e-3)


def test_of_equal_evaluations_the_first_after_step_0_is_kept():
    run = trained("2DNav-v1", sets={"learning_starts": 1000})  # never updated
    assert len({row["eval_return_mean"] for row in rows(run, "progress.csv")}) == 1
    _, metadata = read(run / "best.safetensors")
    assert metadata["step"] == "100"
    best, last = (load_file(run / f"{name}.safetensors") for name in ("best", "policy"))
    assert best.keys() == last.keys()
    assert all(np.array_equal(best[name], last[name]) for name in best)


# --- live pictures ------------------------------------------------------------------------------


class Window(Counter):
    """Draws itself, as environments do in the mode `human`, whenever it is reset or stepped."""

    metadata = {"render_modes": ["human"]}  # noqa: RUF012
    drawn = 0

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        Window.drawn += self.render_mode == "human"
        return super().reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        Window.drawn += self.render_mode == "human"
        return super().step(action)


gymnasium.register("Window-v0", Window)


def test_render_human_shows_the_episodes_and_prints_their_returns(capsys, monkeypatch):
    run = trained("Window-v0", steps=1)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(Window, "drawn", 0)
    hidden = evaluated(capsys, run)
    assert Window.drawn == 0
    assert evaluated(capsys, run, "--render=human") == hidden
    assert Window.drawn == 3 * (1 + 3)  # three episodes: a start and three steps


def test_what_cannot_be_shown_is_said_in_one_message(capsys, monkeypatch):
    run = trained("env_samples:Counter-v0", steps=1)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    for mode, said in (
        ("humn", "--render: unknown mode 'humn'; did you mean 'human'?"),
        ("human", "--render human: there is no display here"),
    ):
        assert main(["eval", str(run), f"--render={mode}"]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["eval", str(run), "--render=human"]) == 2
    shown = capsys.readouterr()
    assert "--render human: env 'Counter-v0' cannot be drawn" in shown.err
    assert shown.out == ""


@pytest.mark.skipif(sys.platform != "linux", reason="displays have these names on Linux")
def test_a_display_that_does_not_exist_ends_no_process():
    run = trained("InvertedPendulum-v5", steps=1)
    done = subprocess.run(
        [sys.executable, "-m", "dstrl_cli", "eval", str(run), "--render=human"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DISPLAY": ":4077", "WAYLAND_DISPLAY": ""},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot be opened, or has no monitor" in done.stderr


# --- the policy file as the README describes it -------------------------------------------------


@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_the_lines_in_the_readme_act_as_the_policy_in_the_environment(monkeypatch, algo):
    run = trained("env_samples:Counter-limit4-v0", algo=algo)
    monkeypatch.chdir(run)
    lines = code_after("policy-file-example")
    policy = Policy.load(Path("policy.safetensors"))
    batch = make_batch(spec("env_samples:Counter-limit4-v0"), 5)
    observation = batch.reset(range(5))
    got = batch.step(torch.from_numpy(policy.unit_action(observation.numpy())))
    got = got.next_observation[:, 1:].numpy()  # Counter observes the action that it was given
    batch.close()
    for one in (..., 0):
        space: dict[str, Any] = {"observation": observation.numpy()[one]}
        exec(lines, space)
        assert np.abs(space["action"] - got[one]).max() < 1e-5
        assert np.abs(space["action"] - policy.act(space["observation"])).max() < 1e-5
    assert np.array_equal(policy.act(observation.numpy()), got)
    assert np.ptp(got) > 0.01  # else any constant would do


@pytest.mark.parametrize("more", [[], ["--perturb", "action_noise=0.5"]])
def test_a_policy_whose_weights_overflow_is_refused_in_one_line(capsys, more):
    weights = [np.full((2, 2), 3e38), np.full((2, 2), 3e38), np.array([[1.0] * 2, [-1.0] * 2])]
    layers = (weights, [np.ones(2)] * 3, [np.ones((2, 2))] * 3)
    tensors = network_tensors("actor", *layers)
    sizes = {"action_size": 2, "action_low": [-0.1] * 2, "action_high": [0.1] * 2}
    write_policy(Path("policy"), tensors, hidden_sizes=[2, 2], **sizes)
    assert main(["eval", "policy", "--episodes", "1", *more]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (said,) = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert "the policy of step 300 gives actions that are not finite: its weights overflow" in said
