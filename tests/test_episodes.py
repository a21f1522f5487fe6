"""Runs whose length is given in episodes: where they stop, and that schedules end there."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from training_samples import run, status, train

from dstrl_cli import cli
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.envs.workers.group import EnvGroup
from dstrl_cli.errors import InputError
from dstrl_cli.nets.groups import rule_groups
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.plan import Axes, expand, prepare
from dstrl_cli.training.reporter import Silent
from dstrl_cli.training.trainer import Population

PENDULUM = "InvertedPendulum-v5"  # episodes end when the pole falls, at steps of each member's own
TIMES = ["time_s", "steps_per_s"]


def small(
    episodes: int,
    steps: int,
    method: str = "sst",
    seed: int = 0,
    env: str = PENDULUM,
    keys: Mapping[str, Any] = MappingProxyType({}),
) -> RunConfig:
    """A run of `episodes`, but of no more than `steps`."""
    sets = [f"{key}={value}" for key, value in keys.items()]
    lengths = {"episodes": episodes, "steps": steps}
    return run(method, seed, env, sets).model_copy(update=lengths)


def rows(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv")


def end_of(folder: Path, episodes: int) -> int:
    """The step at which a run ended, which must be that of its last episode."""
    summary, ended = read_summary(folder) or {}, rows(folder, "episodes")["step"]
    assert (summary["status"], summary["episodes"], len(ended)) == ("finished", episodes, episodes)
    assert summary["steps"] == ended.iloc[-1] == rows(folder, "eval")["step"].max()
    return int(summary["steps"])


# --- where training stops -------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_a_run_stops_at_the_end_of_its_last_episode(engine: str, tmp_path: Path) -> None:
    config = small(9, 1000, "rlx2").model_copy(update={"engine": engine})
    (folder,) = train([config], tmp_path)
    assert 40 < end_of(folder, 9) < 1000


def test_episodes_that_are_computed_on_the_device_stop_as_exactly(tmp_path: Path) -> None:
    configs = [small(2, 1000, "dst", seed, "2DNav-v1", {"eval_every": 70}) for seed in (0, 1)]
    for folder in train(configs, tmp_path):
        assert end_of(folder, 2) <= 200


def test_steps_end_a_run_whose_episodes_are_not_done(tmp_path: Path) -> None:
    (folder,) = train([small(1000, 120)], tmp_path)
    summary = read_summary(folder) or {}
    assert (summary["status"], summary["steps"]) == ("finished", 120)
    assert summary["episodes"] == len(rows(folder, "episodes")) < 1000


def test_flops_are_those_of_the_updates_that_were_taken(tmp_path: Path) -> None:
    (folder,) = train([small(9, 1000, "dense")], tmp_path)
    updates = end_of(folder, 9) - 40
    actor, critic = 4 * 12 + 12 * 12 + 12 * 1, 5 * 12 + 12 * 12 + 12
    each = 2.5 * 2 * actor + 8.5 * 2 * critic  # TD3: 2.5 A + 8.5 C a sample
    found = (read_summary(folder) or {})["flops"]["train_total"]
    assert found == pytest.approx(16 * updates * each)


# --- members of a population ----------------------------------------------------------------------


def test_members_end_at_steps_of_their_own_and_are_the_same_alone(tmp_path: Path) -> None:
    methods, keys = ("sst", "our-rlx2", "dst"), {"learning_rate": 1e-5}
    configs = [small(15, 1000, method, seed, keys=keys) for seed, method in enumerate(methods)]
    together = train(configs, tmp_path / "among")
    assert len({end_of(folder, 15) for folder in together}) == len(methods)
    for config, among in zip(configs, together, strict=True):
        (alone,) = train([config], tmp_path / f"alone{config.seed}")
        assert end_of(alone, 15) == end_of(among, 15)
        for name in ("eval", "episodes", "topology", "progress"):
            ours, theirs = (rows(folder, name) for folder in (among, alone))
            if name == "progress":
                ours, theirs = ours.drop(columns=TIMES), theirs.drop(columns=TIMES)
            pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)
        ours, theirs = (load_file(folder / "policy.safetensors") for folder in (among, alone))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


def test_environments_of_members_that_ended_are_not_stepped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: Counter[tuple[int, int]] = (
        Counter()
    )  # by how many environments the batch has, and which it is
    step = EnvGroup._step

    def counting(group: EnvGroup, index: int, action: np.ndarray) -> bool:
        taken[len(group._envs), index] += 1
        return step(group, index, action)

    monkeypatch.setattr(EnvGroup, "_step", counting)
    folders = train([small(3, 1000), small(15, 1000, seed=1)], tmp_path)
    ends = [end_of(folder, episodes) for folder, episodes in zip(folders, (3, 15), strict=True)]
    assert ends[0] < 50 < ends[1]
    assert [taken[2, member] for member in (0, 1)] == ends
    evaluated = [rows(folder, "eval")["length"].sum() for folder in folders]
    assert [taken[4, 2 * member] + taken[4, 2 * member + 1] for member in (0, 1)] == evaluated


def test_the_last_evaluation_of_a_member_does_not_touch_the_others() -> None:
    """Its actions would show at once that another member has diverged, which has its own time."""
    configs = [prepare(small(9, 1000, seed=seed), Path("run")) for seed in (0, 1)]
    config = [each.config for each in configs]
    with torch.no_grad():
        population = Population(config, [[], []], configs[0].spec, "cpu", Silent())
        population.env.reset(population.env_seeds)
        population.algorithm.actor.params.flat[1] = torch.nan  # type: ignore[attr-defined]
        population.evaluate([0])
        assert population.algorithm.alive.tolist() == [True, True]
        assert list(population.recorder.last_evaluation) == [0]
        population.evaluate()
        assert population.algorithm.alive.tolist() == [True, False]
        assert population.training == [0]
        population.close()


def test_the_episodes_of_the_slowest_member_are_reported_up_to_the_last(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    class Listener(Silent):
        def episodes(self, done: int, total: int) -> None:
            told.append((done, total))

    configs = [small(12, 1000, seed=seed) for seed in (0, 1)]
    folders = train(configs, tmp_path, reporter=Listener())
    assert [status(folder) for folder in folders] == ["finished", "finished"]
    assert told[-1] == (12, 12)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# --- schedules ------------------------------------------------------------------------------------


def share_at(folder: Path, step: int, episodes: int) -> float:
    return int((rows(folder, "episodes")["step"] <= step).sum()) / episodes


def test_the_cosine_follows_the_episodes_to_its_end(tmp_path: Path) -> None:
    keys = {"schedule": "cosine", "drop_fraction": 0.8, "update_interval": 2}
    keys = {f"topology.{key}": value for key, value in keys.items()}
    (folder,) = train([small(15, 15_000, "dst", keys=keys)], tmp_path)
    end = end_of(folder, 15)
    assert end < 1500  # by steps alone the cosine would hardly have begun
    critic = rows(folder, "topology").query("network == 'critic1' and layer == 0")
    for step, fraction in zip(critic["step"], critic["fraction"], strict=True):
        progress = max((step - 40) / (15_000 - 40), share_at(folder, step, 15))
        assert fraction == pytest.approx(0.4 * (1 + math.cos(math.pi * progress)), abs=1e-12)
    assert critic["fraction"].iloc[-1] == pytest.approx(
        0.4 * (1 + math.cos(math.pi * 14 / 15))  # no change at the very end, as in a run of steps
    )


def test_the_topology_stays_as_it_is_from_t_end_on(tmp_path: Path) -> None:
    """The last fifth: of 10,000 steps the last 2,000, so of 20 episodes the last 4."""
    keys: dict[str, Any] = {"topology.update_interval": 2, "topology.stop_before_end": 2000}
    (folder,) = train([small(20, 10_000, "dst", keys=keys)], tmp_path / "whole")
    end_of(folder, 20)
    changed = rows(folder, "topology")["step"].unique()
    assert [share_at(folder, step, 20) for step in changed][-1] == 15 / 20
    keys["topology.final_drop"] = "true"
    (folder,) = train([small(20, 10_000, "dst", keys=keys)], tmp_path / "drop")
    topology = rows(folder, "topology")
    last = topology[topology["network"] == "critic1"].groupby("step")[["dropped", "grown"]].sum()
    assert share_at(folder, int(last.index[-1]), 20) == 16 / 20
    assert last["dropped"].iloc[-1] > last["grown"].iloc[-1] == 0
    assert (last["grown"].iloc[:-1] > 0).all()


def test_members_that_count_episodes_share_no_rule_and_see_their_own_progress() -> None:
    configs = [small(10, 1040, "rlx2", seed) for seed in (0, 1)]
    first, second = rule_groups(NetworkPlan("critic", (4, 4, 1), 2, configs, "cpu"))
    assert (first.members, second.members) == ([0], [1])
    first.rule.episode_share = 0.7
    assert [group.rule.run_progress(250) for group in (first, second)] == [
        0.7,
        0.25,
    ]  # of 1000 updates
    assert first.rule.run_progress(800) == 0.8


# --- the steps that episodes can take -------------------------------------------------------------


def planned(*sets: str, preset: Any = None, **flags: Any) -> RunConfig:
    flags = {"env.id": "2DNav-v1", **flags}
    return expand(Axes(methods=("sst",)), sets=sets, flags=flags, preset=preset)[0].config


def test_steps_default_to_what_the_episodes_can_take(tmp_path: Path) -> None:
    assert planned(episodes=40).steps == 40 * 100
    assert planned("episodes=40").steps == 40 * 100
    assert planned(episodes=40, **{"env.id": PENDULUM}).steps == 40 * 1000
    assert planned().steps == 1_000_000


def test_steps_that_somebody_gave_stay(tmp_path: Path) -> None:
    assert planned(episodes=40, steps=500).steps == 500
    assert planned("steps=500", episodes=40).steps == 500
    file = tmp_path / "mine.yaml"
    file.write_text("config: {steps: 500}")
    assert planned(preset=load_sweep_preset(file), episodes=40).steps == 500


def test_without_a_time_limit_steps_keep_their_default() -> None:
    assert planned(episodes=40, **{"env.id": "env_samples:Counter-v0"}).steps == 1_000_000


def test_episodes_that_could_take_more_steps_than_a_run_can_have_are_refused() -> None:
    with pytest.raises(InputError, match=r"episodes = 10,000,001: .*give --steps"):
        planned(episodes=10_000_001)
    assert planned(episodes=10_000_001, steps=1000).steps == 1000


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--episodes", "0"), "--episodes: '0' is not a whole number of episodes from 1 to 1e9"),
        (("--episodes", "2.5"), "--episodes: '2.5' is not a whole number"),
        (("--set", "episodes=0"), "episodes = 0: should be greater than or equal to 1"),
        (("--set", "episodes=-3"), "episodes = -3: should be greater"),
        (("--set", "episodes=many"), "episodes = 'many': must be a whole number"),
        (("--set", "metric=first-episodes:0"), "'0' must be a whole number of at least 1"),
        (("--num-episodes", "5"), "use --episodes N"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(
    arguments: tuple[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["train", "--env", "2DNav-v1", "--out", str(out), *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_dry_run_shows_the_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--env", "2DNav-v1", "--episodes", "300", "--out", str(tmp_path), "--dry-run"]
    assert cli.main(["train", *common]) == 0
    shown = capsys.readouterr().out
    assert "episodes     300, unless" in shown
    assert "at most 30,000, of which 25,000 random" in shown
    assert cli.main(["sweep", *common]) == 0
    assert "length of each run: 300 episodes, at most 30,000 steps" in capsys.readouterr().out
    assert cli.main(["sweep", *common, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["episodes"], found["steps"]) == (300, 30_000)


def test_episodes_within_the_random_start_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["train", "--env", "2DNav-v1", "--episodes", "10", "--out", str(tmp_path)]
    assert cli.main([*common, "--dry-run"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing will be trained in 1 run: steps (1,000)" in told
    assert "raise --episodes" in told
