"""Arguments of environments: from `--set env.kwargs.KEY=VALUE` to the constructor and the files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dstrl_cli.cli import main
from dstrl_cli.config.identity import differences, identity, run_path
from dstrl_cli.config.keys import flatten
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.envs import computed_on_device, make_batch, make_env, spec
from dstrl_cli.envs.gymnasium import GymnasiumBatch
from dstrl_cli.errors import InputError
from dstrl_cli.runs.policy import Policy, policy_metadata, read
from dstrl_cli.sweep.plan import Axes, expand, prepare

COUNTER = "env_samples:Counter-v0"


def config(*sets: str, env: str = "HalfCheetah-v5") -> RunConfig:
    return resolve("dst", sets=sets, flags={"env.id": env})


# --- configurations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("3", 3),
        ("0.5", 0.5),
        ("far", "far"),
        ("null", None),
        ("[1, [2]]", [1, [2]]),
    ],
)
def test_plain_values_are_kept_as_they_are(text: str, value: Any) -> None:
    found = config(f"env.kwargs.mode={text}")
    assert found.env.kwargs == {"mode": value}
    assert type(found.env.kwargs["mode"]) is type(value)
    written = yaml.safe_load(yaml.safe_dump(to_dict(found)))
    assert from_dict(written) == found
    assert hash(from_dict(written)) == hash(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env.kwargs.a=.nan", r"env\.kwargs\.a = nan: must be true.*\(set by --set\)"),
        ("env.kwargs=3", r"--set: env\.kwargs = 3: must be env\.kwargs\.NAME = VALUE"),
        ("env.kwargs.a.b=3", r"--set: env\.kwargs\.a\.b = 3: must be env\.kwargs\.NAME = VALUE"),
        ("env.kwarg.a=3", r"unknown key 'env\.kwarg\.a'"),
        ("env.length=3", r"unknown key 'env\.length'.*env\.kwargs"),
    ],
)
def test_what_is_no_argument_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(text)


def test_a_stored_configuration_refuses_values_that_are_not_plain() -> None:
    stored = to_dict(config())
    stored["env"]["kwargs"] = {"a": {"b": 1}}
    with pytest.raises(InputError, match=r"env\.kwargs\.a: must be true, false, a number, text"):
        from_dict(stored)


def test_configurations_of_before_have_no_arguments() -> None:
    stored = to_dict(config())
    del stored["env"]["kwargs"]
    assert from_dict(stored) == config()
    assert from_dict(stored | {"env": "HalfCheetah-v5"}) == config()
    assert not [key for key in identity(config()) if key.startswith("env.kwargs")]


def test_arguments_identify_a_run_but_do_not_name_its_folder() -> None:
    plain, short = config(), config("env.kwargs.b=2", "env.kwargs.a=1")
    assert flatten(to_dict(short))["env.kwargs.a"] == 1
    assert differences(plain, short) == [
        "env.kwargs.b: not set -> 2",
        "env.kwargs.a: not set -> 1",
    ]
    assert differences(short, plain)[1] == "env.kwargs.a: 1 -> not set"
    assert differences(short, config("env.kwargs.a=1", "env.kwargs.b=2")) == []
    assert run_path(plain) == run_path(short)


def test_presets_and_method_files_may_set_arguments(tmp_path: Path) -> None:
    method = tmp_path / "mine.yaml"
    method.write_text("extends: dst\nall:\n  env.kwargs.a: 1\n  env: {kwargs: {b: [2]}}\n")
    preset = tmp_path / "preset.yaml"
    preset.write_text("config:\n  env:\n    id: Hopper-v5\n    kwargs: {b: 3}\n")
    found = resolve(method, preset=load_sweep_preset(preset), sets=["env.kwargs.c=true"])
    assert found.env.id == "Hopper-v5"
    assert found.env.kwargs == {"a": 1, "b": 3, "c": True}


def test_a_sweep_over_an_argument_has_a_folder_for_each_value() -> None:
    axes = Axes(envs=("Ant-v5",), sets={"env.kwargs.healthy_reward": (0, 0.5)})
    paths = [run.label for run in expand(axes)]
    assert paths == [f"Ant-v5/td3-rlx2+healthy_reward{value}/s0.95/seed0" for value in (0, 0.5)]


def test_runs_of_a_sweep_that_would_share_a_folder_are_refused() -> None:
    axes = Axes(envs=(COUNTER,), sets={"env.kwargs.fault": ("a b", "a-b")})
    with pytest.raises(InputError, match=r"share the folder .*env\.kwargs\.fault: a b -> a-b"):
        expand(axes)


# --- environments -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_arguments_reach_every_environment(workers: int) -> None:
    batch = make_batch(spec(COUNTER, kwargs={"length": 2}), 2, workers=workers)
    batch.reset([0, 1])
    ends = [batch.step(torch.zeros(2, 2)).ended.tolist() for _ in range(4)]
    assert ends == [[False, False], [True, True]] * 2
    batch.close()


def test_sizes_and_time_limit_are_those_with_the_arguments() -> None:
    given = {"exclude_current_positions_from_observation": False, "max_episode_steps": 7}
    found = spec("HalfCheetah-v5", kwargs=given)
    assert (found.observation_size, found.time_limit) == (18, 7)
    assert (spec("HalfCheetah-v5").observation_size, spec("HalfCheetah-v5").time_limit) == (
        17,
        1000,
    )
    assert make_env(found).observation_space.shape == (18,)
    assert found == spec("HalfCheetah-v5", kwargs=dict(reversed(given.items())))
    assert len({found, spec("HalfCheetah-v5"), spec("HalfCheetah-v5", kwargs={})}) == 2


def test_a_list_arrives_as_a_tuple() -> None:
    found = spec("Hopper-v5", kwargs={"healthy_z_range": [0.5, math.inf]})
    assert make_env(found).unwrapped._healthy_z_range == (0.5, math.inf)


@pytest.mark.parametrize(
    ("env", "name", "value", "message"),
    [
        (
            "Ant-v5",
            "speed",
            2,
            r"kwargs\.speed = 2: env 'Ant-v5' does not take it \(Type",
        ),
        ("Ant-v5", "speed", 2, r"'speed'\); it takes .*, healthy_reward, .*, max_episode_steps$"),
        ("HalfCheetah-v3", "speed", 2, r"'HalfCheetah-v3' does not take it .*, ctrl_cost_weight,"),
        ("2DNav-v1", "speed", 2, r"it takes goal, obstacles, max_episode_steps$"),
        ("2DNav-v2", "goal", [9, 1, 1], r"'2DNav-v2' cannot be made with env\.kwargs\.goal = \(9,"),
        (
            "2DNav-v2",
            "goal",
            [9, math.inf],
            r"\(goal \(9, inf\) must be two finite numbers",
        ),
        ("2DNav-v1", "goal", "home", r"goal 'home' must be two finite .*change its arguments, or"),
        ("2DNav-v1", "task", 3, r"env\.kwargs\.task cannot be set: choose the task with env\.task"),
        (
            "Ant-v5",
            "render_mode",
            "human",
            r"kwargs\.render_mode cannot be set: dstrl sets it",
        ),
        ("Ant-v5", "id", "Hopper-v5", r"kwargs\.id cannot be set: choose .* with env\.id"),
    ],
)
def test_arguments_that_do_not_fit_are_named(env: str, name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec(env, kwargs={name: value})


@pytest.mark.parametrize(
    "kwargs", [{"goal": [0.15, 0.05]}, {"obstacles": True}, {"max_episode_steps": 30}]
)
def test_the_batch_on_the_device_honours_them(kwargs: dict[str, Any]) -> None:
    found, plain = spec("2DNav-v1", 2, kwargs), spec("2DNav-v1", 2)
    assert computed_on_device(found)
    ours, theirs, without = (
        make_batch(found, 4),
        GymnasiumBatch(found, 4, torch.device("cpu")),
        make_batch(plain, 4),
    )
    for batch in (ours, theirs, without):
        batch.reset(range(4))
    random = torch.Generator().manual_seed(0)
    same = True
    for _ in range(60):
        actions = torch.rand(4, 2, generator=random) * 2 - 1
        one, other, third = (batch.step(actions) for batch in (ours, theirs, without))
        for field in ("next_observation", "reward", "observation"):
            assert torch.allclose(getattr(one, field), getattr(other, field), atol=1e-6)
        assert torch.equal(one.ended, other.ended)
        same &= torch.equal(one.reward, third.reward) and torch.equal(one.ended, third.ended)
    assert not same


def test_without_a_time_limit_the_batch_on_the_device_goes_on() -> None:
    batch = make_batch(spec("2DNav-v1", kwargs={"max_episode_steps": -1}), 1)
    assert batch.spec.time_limit is None
    batch.reset([0])
    still = torch.zeros(1, 2)
    assert not any(bool(batch.step(still).ended) for _ in range(150))


# --- runs and policies --------------------------------------------------------------------------


def test_a_run_keeps_its_arguments_and_sizes_its_networks_for_them() -> None:
    argument = "env.kwargs.exclude_current_positions_from_observation=false"
    run = prepare(config(argument, env="dstrl/HalfCheetah-v3"), Path("there"))
    assert run.config.env.kwargs == {"exclude_current_positions_from_observation": False}
    assert run.config.env.id == run.spec.id == "dstrl/HalfCheetah-v3"
    assert run.spec.observation_size == 18


def metadata(**more: Any) -> dict[str, str]:
    sizes = {"observation_size": 2, "action_size": 1, "hidden_sizes": [2], "step": 3}
    bounds = {"action_low": [-1.0], "action_high": [1.0]}
    return policy_metadata(algo="td3", env="2DNav-v1", task=None, **sizes, **bounds, **more)


def test_metadata_of_a_policy_name_arguments_only_where_there_are_some() -> None:
    assert metadata(env_kwargs={}) == metadata()
    assert "env_kwargs" not in metadata()
    assert json.loads(metadata(env_kwargs={"b": (1, 2), "a": None})["env_kwargs"]) == {
        "a": None,
        "b": [1, 2],
    }


def test_a_policy_is_evaluated_with_the_arguments_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = ("hidden_sizes=8,8", "batch_size=8", "learning_starts=10", "eval_episodes=1")
    sets = [f"--set={each}" for each in (*tiny, "engine=masked", "env.kwargs.max_episode_steps=6")]
    run = ["train", "--dst=sst", "--env=2DNav-v1", "--steps=20", "--sparsity=0.5", *sets]
    assert main(run) == 0
    folder = tmp_path / "results/2DNav-v1/td3-sst/s0.5/seed0"
    _, stored = read(folder / "policy.safetensors")
    assert stored["env_kwargs"] == '{"max_episode_steps": 6}'
    assert Policy.load(folder / "policy.safetensors").env_kwargs == {"max_episode_steps": 6}
    capsys.readouterr()
    assert main(["eval", str(folder), "--episodes=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["length"]["max"] == 6
    for env, as_trained in (("2DNav-v1", True), ("dstrl/2DNav-v1", True), ("2DNav-v2", False)):
        assert main(["eval", str(folder), "--episodes=2", "--json", f"--env={env}"]) == 0
        assert (json.loads(capsys.readouterr().out)["length"]["max"] == 6) is as_trained
    # another value is another run, which would need a folder of its own
    other = [each.replace("steps=6", "steps=7") for each in run]
    assert main(other) == 2
    assert "env.kwargs.max_episode_steps: 6 -> 7" in " ".join(capsys.readouterr().err.split())
