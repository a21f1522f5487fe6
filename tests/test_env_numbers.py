"""Types, sums, ends and success: what an environment gives arrives in the files as it was given."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from foreign_samples import foreign
from policy_samples import write_policy
from rich.console import Console
from training_samples import run, train

from dstrl_cli.cli import main
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parts import EnvConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs import make_batch, spec
from dstrl_cli.envs.actions import ActionScale
from dstrl_cli.evaluation import rollout
from dstrl_cli.report.marks import Mark
from dstrl_cli.report.metrics import parse
from dstrl_cli.report.runs import load
from dstrl_cli.runs.policy import Policy, policy_metadata
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.terminal.display import LineDisplay
from dstrl_cli.training import learner

# Types ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_actions_and_returns_have_the_precision_of_the_environment(workers: int) -> None:
    batch = make_batch(spec(foreign("precise")), 1, workers=workers)

    def fully_open(observation: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(observation), 1)

    episodes = rollout.episodes(batch, fully_open, [0])  # the environment checks its actions
    batch.check()
    batch.close()
    assert episodes.returns.tolist() == [3 * 16777217.0]


@pytest.mark.parametrize(
    ("dtype", "unit", "expected"),
    [
        (np.float64, [-1, 0, 1], [0.0, 0.05, 0.1]),
        (np.float32, [-1, 0, 1], np.array([0.0, 0.05, 0.1], np.float32).tolist()),
        (np.float16, [-1, 1], np.array([0.0, 0.1], np.float16).tolist()),
    ],
)
def test_actions_lie_within_the_bounds_exactly(
    dtype: type, unit: list[float], expected: list[float]
) -> None:
    low, high = (float(each) for each in np.array([0.0, 0.1], dtype))
    bounds = {"action_low": (low,), "action_high": (high,), "action_dtype": np.dtype(dtype).name}
    scale = ActionScale(replace(spec(foreign("precise")), **bounds))
    units = np.array(unit, np.float32)[:, None]
    assert scale(units).astype(dtype).ravel().tolist() == expected
    for extreme in (np.float32(1), np.float32(-1), np.nextafter(np.float32(1), 0)):
        assert low <= scale(extreme).astype(dtype).item() <= high


def test_a_policy_acts_in_the_type_of_the_action_space(tmp_path: Path) -> None:
    bounds: dict[str, Any] = {"action_low": [0.0], "action_high": [0.1]}
    stored = Policy.load(write_policy(tmp_path / "p", **bounds, action_dtype="float64"))
    assert stored.action_high.tolist() == [0.1]
    action = stored.act(np.ones(stored.observation_size))
    assert action.dtype == np.float64
    assert 0.0 <= action.item() <= 0.1
    plain = Policy.load(write_policy(tmp_path / "q", **bounds))
    assert plain.act(np.ones(plain.observation_size)).dtype == np.float32
    sizes = {"observation_size": 1, "action_size": 1, "hidden_sizes": [1], "step": 0}
    usual = policy_metadata(algo="td3", env="a", task=None, **sizes, **bounds)
    assert not {"action_dtype", "env_flatten"} & set(usual)


# Ends -------------------------------------------------------------------------------------------


def bootstraps(config: RunConfig, tmp_path: Path) -> tuple[set[int], set[float]]:
    """Train; return `terminated` of the episodes, and what their last values are multiplied by."""
    seen: set[float] = set()

    class Watching(learner.Learner):
        def store(self, observation: Any, action: Any, step: Any, policy_action: Any) -> None:
            super().store(observation, action, step, policy_action)
            if bool(step.ended.any()):
                row = int(self.replay.position) - 1
                seen.add(float(self.replay.not_terminated[0, row]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dstrl_cli.training.trainer.Learner", Watching)
        (folder,) = train([config], tmp_path)
    return set(pd.read_csv(folder / "episodes.csv")["terminated"]), seen


@pytest.mark.parametrize(
    ("sets", "expected"),
    [((), ({1}, {0.0})), (("limit_wins=true",), ({0}, {1.0}))],
)
def test_an_end_at_the_time_limit_bootstraps_only_where_the_limit_wins(
    sets: tuple[str, ...], expected: Any, tmp_path: Path
) -> None:
    config = run("sst", env="foreign_samples:Limited-v0", sets=sets)
    assert bootstraps(config, tmp_path) == expected


def test_the_authors_methods_let_the_limit_win_and_stored_runs_did() -> None:
    assert [resolve(name).limit_wins for name in ("dst-official", "rlx2-official", "dst")] == [
        True,
        True,
        False,
    ]


def test_members_of_one_population_may_differ_in_which_end_wins(tmp_path: Path) -> None:
    configs = [
        run("sst", seed, "foreign_samples:Limited-v0", [f"limit_wins={wins}"])
        for seed, wins in enumerate(("true", "false"))
    ]
    ends = [
        set(pd.read_csv(each / "episodes.csv")["terminated"]) for each in train(configs, tmp_path)
    ]
    assert ends == [{0}, {1}]


# Evaluation episodes without an end -------------------------------------------------------------


@pytest.mark.parametrize(("most", "length"), [("null", 300), ("200", 200), ("300", 300)])
def test_eval_max_steps_ends_an_evaluation_episode_and_says_so(
    most: str, length: int, tmp_path: Path
) -> None:
    sets = ["env.kwargs.length=300", f"eval_max_steps={most}"]
    told: list[str] = []

    class Listener:
        def progress(self, *_: object) -> None: ...
        def evaluation(self, *_: object) -> None: ...
        def message(self, text: str) -> None:
            told.append(text)

    (folder,) = train([run("sst", env=foreign(), sets=sets)], tmp_path, reporter=Listener())
    evaluations = pd.read_csv(folder / "eval.csv")
    assert set(evaluations["return"]) == set(evaluations["length"]) == {length}
    found = read_summary(folder) or {}
    cut = length < 300
    assert found["eval_cut"] == cut * len(evaluations)
    assert [text for text in found["notes"] if f"eval_max_steps = {most}" in text] == found["notes"]
    assert len(found["notes"]) == sum("eval_max_steps" in text for text in told) == cut
    (logged,) = load(tmp_path, only=[folder]).runs
    value = parse("final").compute(logged)
    assert value is not None
    assert (Mark.CUT in value.marks) == cut


# Success ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "cell", "workers"),
    [("sound", 1.0, 0), ("sound", 1.0, 1), ("failure", 0.0, 0), ("says nothing", None, 0)],
)
def test_success_is_the_last_column_of_both_files_and_a_metric(
    habit: str, cell: float | None, workers: int, tmp_path: Path
) -> None:
    (folder,) = train([run("sst", env=foreign(habit), sets=[f"env_workers={workers}"])], tmp_path)
    for name in ("eval.csv", "episodes.csv"):
        table = pd.read_csv(folder / name)
        assert table.columns[-1] == "success"
        assert len(table) > 0
        assert table["success"].isna().all() if cell is None else (table["success"] == cell).all()
    assert (read_summary(folder) or {})["final_success"] == cell
    (logged,) = load(tmp_path, only=[folder]).runs
    assert len(logged.evaluations["return"]) > 0
    value = parse("success").compute(logged)
    assert (None if value is None else value.value) == cell


def test_success_is_that_of_the_last_step_and_counts_for_each_evaluation(tmp_path: Path) -> None:
    (folder,) = train([run("sst", env=foreign())], tmp_path)
    file = folder / "eval.csv"
    rows = [f"{step},{e},1.0,5,{s}" for step, e, s in [(50, 0, 1), (50, 1, 1), (120, 0, 1)]]
    file.write_text("\n".join(["step,episode,return,length,success", *rows, "120,1,1.0,5,0", ""]))
    (folder / "summary.json").write_text(json.dumps({"status": "finished", "steps": 120}))
    (logged,) = load(tmp_path, only=[folder]).runs
    value = parse("success").compute(logged)
    assert value is not None
    assert value.value == 0.5


def test_the_screen_shows_success() -> None:
    console = Console(file=StringIO(), width=100)
    row = {"step": 5, "eval_return_mean": 1.0, "eval_return_std": 0.0}
    with LineDisplay(console, 1, evaluations=True) as display:
        display.evaluation(0, "run", row | {"eval_success": 0.75})
        display.evaluation(0, "run", row | {"eval_success": None})
    first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert "success 75%" in first
    assert "success" not in second


def test_a_stored_policy_knows_that_its_observations_are_flattened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = train([run("sst", env=foreign("goals"), sets=["env.flatten=true"])], tmp_path)
    alone = (folder / "policy.safetensors").rename(tmp_path / "alone.safetensors")
    assert main(["eval", str(alone), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["return"]["mean"], found["success"]["mean"]) == (5.0, 1.0)


# Keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("10m", 600), ("1.5h", 5400), ("90 s", 90), (2, 2), ("250ms", 0.25), (0, None), (None, None)],
)
def test_a_timeout_is_seconds_or_a_time(value: Any, seconds: float | None) -> None:
    assert EnvConfig(id="a", timeout=value).timeout == seconds


@pytest.mark.parametrize("value", ["soon", -1, True, "1e999", ".inf", [1]])
def test_a_timeout_that_is_no_time_is_refused(
    value: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--dry-run", f"--set=env.timeout={json.dumps(value)}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "env.timeout = " in said
    assert "must be seconds, or a time such as 90s, 10m or 2h" in said
