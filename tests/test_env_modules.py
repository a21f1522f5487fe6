"""Two modules that register one id: two environments, two runs, two folders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import pytest
from program_samples import dstrl

from dstrl_cli.cli import main
from dstrl_cli.config.identity import run_path
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs import specs
from dstrl_cli.sweep.again import stored_label

WALKER = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box

class Same(gymnasium.Env):
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.array([action[0], 1.0], np.float32), REWARD, False, False, {}

for name in ("Same-v0", "Other-v0"):
    gymnasium.register(name, entry_point=Same, max_episode_steps=10)
"""
SMALL = (
    *("--dst=sst", "--sparsity=0.5", "--steps=60", "--engine=masked", "--device=cpu"),
    *("--set=hidden_sizes=8,8", "--set=batch_size=8", "--set=learning_starts=50"),
    *("--set=eval_every=30", "--set=eval_episodes=2"),
)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """Two modules in the current folder; what they register is forgotten afterwards."""
    names = f"a_{tmp_path.name}", f"b_{tmp_path.name}"
    for name, reward in zip(names, ("1.0", "3.0"), strict=True):
        (tmp_path / f"{name}.py").write_text(WALKER.replace("REWARD", reward))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(gymnasium.registry)
    yield names
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def first_reward(env_id: str) -> float:
    env = specs.make_env(specs.spec(env_id))
    env.reset(seed=0)
    reward = float(env.step(env.action_space.sample())[1])
    env.close()
    return reward


def test_each_module_keeps_what_it_registered(modules: tuple[str, str]) -> None:
    a, b = modules
    order = (f"{a}:Same-v0", f"{b}:Same-v0", f"{a}:Same-v0", f"{a}:Other-v0", f"{b}:Other-v0")
    assert [first_reward(env_id) for env_id in order] == [1.0, 3.0, 1.0, 1.0, 3.0]


def test_a_module_does_not_change_what_a_plain_id_means(
    tmp_path: Path, modules: tuple[str, str]
) -> None:
    source = (tmp_path / f"{modules[0]}.py").read_text()
    (tmp_path / f"c_{tmp_path.name}.py").write_text(source.replace("Same-v0", "Pendulum-v1"))
    assert first_reward(f"c_{tmp_path.name}:Pendulum-v1") == 1.0
    assert first_reward("Pendulum-v1") < 0.0
    assert specs.spec(f"c_{tmp_path.name}:Pendulum-v1").foreign
    assert not specs.spec("Pendulum-v1").foreign


def test_two_modules_in_one_plan_get_folders_that_name_them(
    modules: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    both = [f"--env={each}:Same-v0" for each in modules]
    assert main(["sweep", *SMALL, *both, "--env=Pendulum-v1", "--dry-run", "--json"]) == 0
    paths = [run["path"] for run in json.loads(capsys.readouterr().out)["runs"]]
    names = [f"{each}.Same-v0" for each in modules]
    assert [Path(path).parts[1] for path in paths] == [*names, "Pendulum-v1"]
    assert main(["sweep", *SMALL, *both, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)


def test_a_stored_run_keeps_the_module_in_its_folder() -> None:
    config = resolve(sets=["env=a2:Same-v0", "seed=3"])
    for name in ("a2.Same-v0", "Same-v0"):
        place = Path(name, *run_path(config).parts[1:])
        assert stored_label(Path("results") / place, config) == place
    renamed = Path("results", "b2.Same-v0", *run_path(config).parts[1:])
    assert stored_label(renamed, config) == run_path(config)


@pytest.mark.soak
def test_two_modules_in_one_sweep_are_trained_and_shown_apart(
    tmp_path: Path, modules: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = modules
    both = (f"--env={a}:Same-v0", f"--env={b}:Same-v0")
    dstrl(tmp_path, "sweep", *SMALL, *both, "--metric=final", "--jobs=2")
    for name, value in ((a, 10.0), (b, 30.0)):
        run = tmp_path / "results" / f"{name}.Same-v0/td3-sst/s0.5/seed0"
        summary = json.loads((run / "summary.json").read_text())
        assert summary["final_return"]["mean"] == value
    assert main(["table", "results", "--json", "--metric=final"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["sections"][0]["rows"]
    means = {env: cell["mean"] for env, cell in row["cells"].items()}
    assert means == {f"{a}:Same-v0": 10.0, f"{b}:Same-v0": 30.0}
    assert main(["sweep", *SMALL, *both, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["total"], plan["to_do"]) == (2, 0)


def test_a_run_of_one_module_is_no_result_of_another(
    modules: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = modules
    assert main(["train", *SMALL, f"--env={a}:Same-v0", "--out=here"]) == 0
    assert Path("here/Same-v0/td3-sst/s0.5/seed0/summary.json").is_file()
    capsys.readouterr()
    assert main(["sweep", *SMALL, f"--env={b}:Same-v0", "--out=here"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"env.id: {a}:Same-v0 -> {b}:Same-v0" in said
    assert "--overwrite" in said
