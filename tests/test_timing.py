"""When a run trains: periods of steps or episodes, worked by hand, and whole runs of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import training_samples as small
from hypothesis import given
from hypothesis import strategies as st
from report_samples import write_run

from dstrl_cli.cli import main
from dstrl_cli.config.effects import notes, topology_changes, training_in_words
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.resolving import resolve, resolve_explicit
from dstrl_cli.envs.base import Step
from dstrl_cli.errors import InputError
from dstrl_cli.report.metrics import evaluation_returns
from dstrl_cli.report.runs import load
from dstrl_cli.sweep.packing import groups
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.training.timing import UpdateTiming


def timed(train_freq: str, gradient_steps: int, starts: int, steps: int = 100) -> RunConfig:
    sets = [f"train_freq={train_freq}", f"gradient_steps={gradient_steps}"]
    return resolve("sst", sets=[*sets, f"learning_starts={starts}"], flags={"steps": steps})


def taken(config: RunConfig, ends: Sequence[int] = ()) -> dict[int, int]:
    """Return the updates after each step that has some; episodes end at `ends`."""
    timing, found, nothing = UpdateTiming(config), {}, torch.zeros(1)
    for step in range(1, config.steps + 1):
        ended = torch.tensor([step in ends])
        timing.count(Step(nothing, nothing, ended, torch.zeros_like(ended), nothing))
        if updates := timing.updates_after(step):
            found[step] = updates
    return found


def test_one_update_follows_every_step_beyond_the_warm_up() -> None:
    assert taken(timed("1", 1, 5, steps=9)) == {6: 1, 7: 1, 8: 1, 9: 1}


def test_periods_of_steps_are_counted_from_step_0() -> None:
    # periods end at 4, 8, 12; the first two are not beyond the warm-up
    assert taken(timed("4", 2, 8, steps=18)) == {12: 2, 16: 2}
    assert taken(timed("4", -1, 6, steps=18)) == {8: 4, 12: 4, 16: 4}
    assert taken(timed("1", 3, 2, steps=4)) == {3: 3, 4: 3}


def test_an_episode_is_trained_on_with_as_many_updates_as_it_had_steps() -> None:
    # episodes of 3, 4 and 5 steps; the second one is trained on whole, although it began in the
    # warm-up; the steps 13 to 15 belong to an episode that does not end
    assert taken(timed("[1, episode]", -1, 5, steps=15), ends=[3, 7, 12]) == {7: 4, 12: 5}


def test_several_episodes_or_a_fixed_number_of_updates() -> None:
    ends = [3, 7, 12, 14]
    assert taken(timed("[2, episode]", -1, 5, steps=15), ends) == {7: 7, 14: 7}
    assert taken(timed("[2, episode]", 10, 0, steps=15), ends) == {7: 10, 14: 10}
    assert taken(timed("[1, episode]", 2, 7, steps=15), ends) == {12: 2, 14: 2}


@given(
    every=st.integers(1, 40),
    gradient_steps=st.sampled_from([-1, 1, 2, 7]),
    starts=st.integers(0, 120),
    until=st.integers(0, 100),
)
def test_the_planned_updates_are_those_that_are_taken(
    every: int, gradient_steps: int, starts: int, until: int
) -> None:
    changes = {"train_freq": every, "gradient_steps": gradient_steps, "learning_starts": starts}
    config = resolve("sst", flags={"steps": 100}).model_copy(update=changes)
    found = sum(updates for step, updates in taken(config).items() if step <= until)
    assert max(0, config.updates_until(until)) == found


# --- the keys -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("64", 64),
        ("1e3", 1000),
        ("[64, step]", 64),
        ("[1, episode]", (1, "episode")),
        ("1,episode", (1, "episode")),
        ("[2, 'episode']", (2, "episode")),
    ],
)
def test_train_freq_is_written_as_in_other_tools(written: str, value: object) -> None:
    config = resolve("sst", sets=[f"train_freq={written}", "gradient_steps=-1"])
    assert config.train_freq == value
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train_freq=0", "train_freq = 0: must be a whole number of steps, or [N, step] or"),
        ("train_freq=[1, epoch]", "train_freq = [1, 'epoch']: must be a whole number of"),
        ("train_freq=[1, step, 2]", "must be a whole number of steps"),
        ("train_freq=[]", "must be a whole number of steps"),
        ("train_freq=true", "must be a whole number of steps"),
        ("gradient_steps=0", "gradient_steps = 0: must be at least 1, or -1 for as many updates"),
        ("gradient_steps=-2", "gradient_steps = -2: must be at least 1, or -1"),
        ("gradient_steps=1.5", "gradient_steps = 1.5: must be a whole number"),
    ],
)
def test_other_values_are_refused(setting: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        resolve("sst", sets=[setting])
    assert message in str(error.value)


def test_a_schedule_whose_end_is_unknown_is_refused() -> None:
    sets = ["train_freq=[1, episode]", "gradient_steps=100"]
    with pytest.raises(InputError, match=r"gradient_steps = 100: with train_freq = \[1, episode\]"):
        resolve("rlx2", sets=sets)
    assert resolve("sst", sets=sets).gradient_steps == 100
    assert resolve("rlx2", sets=[sets[0], "gradient_steps=-1"]).gradient_steps == -1


def test_plans_say_when_a_run_trains() -> None:
    assert training_in_words(timed("1", 1, 0)) == "1 update after every step"
    assert training_in_words(timed("64", -1, 0)) == "as many updates as steps after every 64 steps"
    assert training_in_words(timed("[1,episode]", 8, 0)) == "8 updates after every episode"


def test_plans_count_the_updates() -> None:
    sets = ["train_freq=10", "gradient_steps=5", "topology.update_interval=1000"]
    resolved = resolve_explicit("rlx2", sets=sets, flags={"steps": 65_000})
    # 4,000 trainings of 5 updates: critics change at 1000, ..., 19000; the actor up to 9000
    assert topology_changes(resolved.config, "critic").count == 19
    assert topology_changes(resolved.config, "actor").count == 9
    late = resolve_explicit("rlx2", sets=["train_freq=10"], flags={"steps": 65_000})
    assert (
        "update_interval is 10,000, and updates are 2,000 (actor) and 4,000 (critics)"
        in " ".join(notes(*late))
    )


def test_a_run_too_short_to_train_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--dst=sst", "--env=2DNav-v1", "--steps=100", "--dry-run"]
    arguments.append(f"--out={tmp_path}")
    assert main([*arguments, "--set=learning_starts=0", "--set=train_freq=101"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "steps (100) do not exceed train_freq (101)" in told


def test_members_share_these_keys_and_runs_of_episodes_are_alone() -> None:
    def grouped(*sets: str) -> list[int]:
        axes = Axes(methods=["sst", "dst"], envs=["2DNav-v1"], seeds=[0, 1])
        return [len(group) for group in groups(expand(axes, sets=sets))]

    assert grouped("train_freq=4", "gradient_steps=2") == [4]
    assert grouped("train_freq=[1, episode]", "gradient_steps=-1") == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("train_freq", "values"), [(1, [3.0, 4.0, 5.0]), (64, [5.0]), ([1, "episode"], [3.0, 4.0, 5.0])]
)
def test_no_window_of_a_table_begins_before_the_first_training(
    tmp_path: Path, train_freq: object, values: list[float]
) -> None:
    config = {"learning_starts": 100, "train_freq": train_freq}
    evaluations = {50: [1.0], 100: [2.0], 110: [3.0], 120: [4.0], 128: [5.0]}
    write_run(tmp_path, "Hopper-v5/td3-sst/s0.9/seed0", evaluations, config=config)
    (found,) = load(tmp_path).runs
    assert evaluation_returns(found).trained.values.tolist() == values


# --- whole runs -----------------------------------------------------------------------------------


def rows(path: Path, name: str) -> list[dict[str, str]]:
    with (path / name).open() as file:
        return list(csv.DictReader(file))


def flops(path: Path) -> float:
    return float(json.loads((path / "summary.json").read_text())["flops"]["train_total"])


@pytest.mark.parametrize(("method", "engine"), [("rlx2", "masked"), ("dst", "sparse")])
def test_updates_per_step_count_in_flops_and_topology(
    tmp_path: Path, method: str, engine: str
) -> None:
    def trained(name: str, *sets: str) -> tuple[RunConfig, Path]:
        # as many connections at every update: all that differs is how many updates there are
        config = small.run(method, sets=["nstep=1", *sets])
        config = config.model_copy(update={"engine": engine})
        return config, small.train([config], tmp_path / name)[0]

    _, once = trained("once")
    config, often = trained("often", "train_freq=4", "gradient_steps=6")
    # steps 44, 48, ..., 120 are trained after: 20 times 6 updates, instead of 80
    assert flops(often) == pytest.approx(flops(once) * 120 / 80)
    changes = [row for row in rows(often, "topology.csv") if row["layer"] == "0"]
    critics = [row for row in changes if row["network"] == "critic1"]
    assert len(critics) == topology_changes(config, "critic").count == 11
    assert len(changes) - 2 * len(critics) == topology_changes(config, "actor").count == 5
    assert {int(row["step"]) % 4 for row in changes} == {0}


def test_a_run_that_trains_after_episodes(tmp_path: Path) -> None:
    sets = ["train_freq=[1, episode]", "gradient_steps=-1", "env.kwargs.max_episode_steps=30"]
    config = small.run("sst", env="Pendulum-v1", sets=sets)
    (path,) = small.train([config], tmp_path)
    assert [row["length"] for row in rows(path, "episodes.csv")] == ["30"] * 4
    # episodes end at 30, 60, 90 and 120; three of them beyond the 40 steps of the warm-up
    (once,) = small.train([small.run("sst", env="Pendulum-v1", sets=sets[2:])], tmp_path / "once")
    assert flops(path) == pytest.approx(flops(once) * 90 / 80)


def test_a_member_is_the_same_alone_as_among_others_with_several_updates(tmp_path: Path) -> None:
    sets = ["train_freq=4", "gradient_steps=-1", "learning_rate.linear=1e-3"]
    runs = [small.run(method, seed, sets=sets) for seed, method in enumerate(("rlx2", "dst"))]
    together = small.train(runs, tmp_path / "together")
    for number, run in enumerate(runs):
        (alone,) = small.train([run], tmp_path / f"alone{number}")
        for ours, theirs in zip(
            rows(together[number], "eval.csv"), rows(alone, "eval.csv"), strict=True
        ):
            assert float(ours["return"]) == pytest.approx(float(theirs["return"]), rel=1e-3)
