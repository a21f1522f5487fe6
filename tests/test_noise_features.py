"""Noisy features: what is appended to observations, from which numbers, and where it is refused."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from training_samples import run, train

from dstrl_cli import envs
from dstrl_cli.config.identity import run_path
from dstrl_cli.envs.noise import observed_size
from dstrl_cli.envs.state import read_state, write_state
from dstrl_cli.errors import InputError
from dstrl_cli.report.papers import task_name
from dstrl_cli.report.runs import load
from dstrl_cli.runs.policy import Policy


def test_the_size_is_rounded_up_as_in_the_authors_code():
    sizes = [(17, 0.95), (17, 0.98), (17, 0.99), (11, 0.98), (376, 0.98), (17, 0.9)]
    found = [observed_size(size, share) for size, share in sizes]
    assert found == [340, 850, 1700, 550, 18800, 171]  # 17 / (1 - 0.9) is a little above 170


def noisy(share: float = 0.75, env: str = "Pendulum-v1") -> gymnasium.Env:
    return envs.make_env(envs.spec(env, noise_features=share))


def test_the_environment_itself_is_as_without_noise():
    with_noise, plain = noisy(), envs.make_env(envs.spec("Pendulum-v1"))
    one, other = with_noise.reset(seed=3)[0], plain.reset(seed=3)[0]
    assert one.shape == (12,)
    for _ in range(3):
        np.testing.assert_array_equal(one[:3], other)
        (one, paid, *_), (other, due, *_) = (
            each.step(np.array([0.5], np.float32)) for each in (with_noise, plain)
        )
        assert paid == due


def test_noise_is_standard_normal_new_at_every_step_and_follows_the_seed():
    first, second = noisy(0.999), noisy(0.999)
    started = first.reset(seed=1)[0][3:]
    np.testing.assert_array_equal(started, second.reset(seed=1)[0][3:])
    assert not np.array_equal(started, second.reset(seed=2)[0][3:])
    stepped = first.step(np.zeros(1, np.float32))[0][3:]
    assert not np.isin(stepped, started).any()
    drawn = np.concatenate([started, stepped])
    assert abs(drawn.mean()) < 0.1
    assert abs(drawn.std() - 1) < 0.1


@pytest.mark.parametrize("env", ["Pendulum-v1", "2DNav-v1"])
def test_an_environment_goes_on_with_the_same_noise_where_its_state_is_set(env):
    first, second = noisy(env=env), noisy(env=env)
    observation = first.reset(seed=5)[0]
    write_state(second, read_state(first, observation.astype(np.float32)))
    action = np.zeros(first.action_space.shape, np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])


def test_tasks_computed_on_the_device_are_stepped_one_by_one_with_noise():
    spec = envs.spec("2DNav-v1", noise_features=0.5)
    batch = envs.make_batch(spec, 2)
    observation = batch.reset([1, 2])
    assert observation.shape == (2, 2 * envs.spec("2DNav-v1").observation_size)
    assert not torch.equal(observation[0], observation[1])
    assert not batch.on_device


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.9999999, r"env\.noise_features = 0\.9999999: .* 30,000,001 entries"),
        (0.99999999999, r"env\.noise_features"),
    ],
)
def test_shares_that_make_no_sense_are_refused(share, message):
    with pytest.raises(InputError, match=message):
        envs.spec("Pendulum-v1", noise_features=share)


def test_a_run_has_a_folder_and_a_column_of_its_own_and_its_policy_knows(tmp_path):
    config = run("sst", sets=["env.noise_features=0.75"])
    path = tmp_path / "results" / run_path(config)
    assert path.parts[-4] == "2DNav-v1.noise0.75"
    (folder,) = train([config], tmp_path)
    path.parent.mkdir(parents=True)
    folder.rename(path)
    (logged,) = load(tmp_path / "results").runs
    assert logged.identity.env == "2DNav-v1.noise0.75"
    policy = Policy.load(path / "policy.safetensors")
    assert policy.env_noise_features == 0.75
    assert policy.observation_size == 4 * envs.spec("2DNav-v1").observation_size


def test_published_numbers_are_found_by_task_and_noise():
    assert task_name("HalfCheetah-v3.noise0.98") == task_name("HalfCheetah-v5.noise0.98")
    assert task_name("HalfCheetah-v3.noise0.98") != task_name("HalfCheetah-v3")
