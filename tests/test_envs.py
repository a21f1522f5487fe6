"""The environments' edge: ids, spaces, errors, and that nothing chatters.

How batches behave is in `test_env_backends.py`.
"""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Sequence, Tuple

from dstrl_cli.envs import EnvSpec, known_envs, make_batch, make_env, spec
from dstrl_cli.envs.base import BatchEnv, Step
from dstrl_cli.envs.registration import NAVIGATION_TASKS, PAPER_TASKS, register_tasks
from dstrl_cli.errors import InputError

Register = Callable[..., str]

# Observations, actions, action bound, time limit: Gymnasium's documentation of v2 and v3.
SIZES = {
    "HalfCheetah": (17, 6, 1.0, 1000),
    "Hopper": (11, 3, 1.0, 1000),
    "Walker2d": (17, 6, 1.0, 1000),
    "Ant": (111, 8, 1.0, 1000),
    "Humanoid": (376, 17, 0.4, 1000),
    "InvertedPendulum": (4, 1, 3.0, 1000),
    "Reacher": (11, 2, 1.0, 50),
}


VECTOR = Box(-1, 1, (2,))


class Spaces(gymnasium.Env):
    """An environment that only has spaces."""

    def __init__(self, observation: gymnasium.Space, action: gymnasium.Space) -> None:
        self.observation_space, self.action_space = observation, action


@pytest.fixture
def register() -> Iterator[Register]:
    """Register environments for one test."""
    added: list[str] = []

    def add(name: str, entry_point: Callable[..., gymnasium.Env], **kwargs: Any) -> str:
        gymnasium.register(name, entry_point, **kwargs)
        added.append(name)
        return name

    yield add
    for name in added:
        del gymnasium.registry[name]


def rollout(batch: BatchEnv, steps: int, seed: int = 0) -> list[Step]:
    """Step with the same random actions everywhere; return the steps."""
    torch.manual_seed(seed)
    size = batch.spec.action_size
    return [
        batch.step(torch.rand(1, size).expand(batch.num_envs, -1) * 2 - 1) for _ in range(steps)
    ]


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_paper_tasks_have_the_papers_sizes_bounds_and_limits(name: str) -> None:
    found = spec(name)
    observations, actions, bound, limit = SIZES[name.partition("-")[0]]
    assert found.id == "dstrl/" + name
    assert found.name == name
    assert found.task is None
    assert (found.observation_size, found.action_size) == (observations, actions)
    assert found.action_high == pytest.approx((bound,) * actions)
    assert found.action_low == pytest.approx((-bound,) * actions)
    assert found.time_limit == limit


def test_an_id_that_gymnasium_serves_is_gymnasiums() -> None:
    assert spec("HalfCheetah-v4").id == "HalfCheetah-v4"
    assert spec("HalfCheetah-v5").id == "HalfCheetah-v5"
    # Gymnasium knows HalfCheetah-v3 but refuses to make it.
    assert "HalfCheetah-v3" in gymnasium.registry
    assert spec("HalfCheetah-v3") == spec("dstrl/HalfCheetah-v3")
    assert spec("dstrl_cli.envs:dstrl/Hopper-v2") == spec("Hopper-v2")


def test_registering_twice_changes_nothing_and_gymnasiums_ids_stay() -> None:
    before = dict(gymnasium.registry)
    register_tasks()
    assert dict(gymnasium.registry) == before
    assert "dstrl_cli" not in str(gymnasium.registry["HalfCheetah-v3"].entry_point)


def test_known_environments_are_continuous_ones_of_gymnasium_and_all_of_dstrls() -> None:
    known = known_envs()
    assert known == sorted(set(known))
    assert {*PAPER_TASKS, *NAVIGATION_TASKS, "HalfCheetah-v5", "Pendulum-v1"} <= set(known)
    assert not {"CartPole-v1", "CarRacing-v3", "dstrl/2DNav-v1"} & set(known)


@pytest.mark.parametrize("name", ["HalfCheetah", "Walker2d", "Humanoid", "Hopper"])
def test_v2_v3_and_v4_are_one_task_except_for_ant(name: str) -> None:
    batches = [make_batch(spec(f"{name}-{version}"), 1) for version in ("v2", "v3", "v4")]
    starts = [batch.reset([5]) for batch in batches]
    runs = [rollout(batch, 30) for batch in batches]
    for start, run in zip(starts[1:], runs[1:], strict=True):
        assert torch.equal(start, starts[0])
        for one, other in zip(run, runs[0], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one[:5], other[:5], strict=True))


def test_ant_contacts_are_real_in_v2_and_zero_in_v3() -> None:
    real, zero = (make_batch(spec(f"Ant-{version}"), 1) for version in ("v2", "v3"))
    assert torch.equal(real.reset([0])[:, :27], zero.reset([0])[:, :27])
    forces, differences = [], []
    for one, other in zip(rollout(real, 60), rollout(zero, 60), strict=True):
        assert torch.equal(one.next_observation[:, :27], other.next_observation[:, :27])
        assert not other.next_observation[:, 27:].any()
        forces.append(one.next_observation[0, 27:])
        differences.append(other.reward - one.reward)
    stacked = torch.stack(forces)
    assert stacked.abs().max() == 1.0  # clipped
    costs = 5e-4 * stacked.square().sum(-1)
    assert costs.max() > 0
    torch.testing.assert_close(torch.cat(differences), costs, atol=1e-5, rtol=0)


# Errors -----------------------------------------------------------------------------------------


def test_unknown_ids_get_the_closest_match() -> None:
    with pytest.raises(InputError, match="did you mean 'HalfCheetah-v5'"):
        spec("HalfCheeta-v5")
    with pytest.raises(InputError, match="did you mean '2DNav-v1'"):
        spec("2dnav-v1")
    with pytest.raises(InputError, match="module 'no_such_module' is not found"):
        spec("no_such_module:Thing-v0")
    with pytest.raises(InputError, match="module 'json' was imported, but registers no 'Thing-v0'"):
        spec("json:Thing-v0")


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (Dict({"a": VECTOR}), VECTOR, r"observations are Dict, .*env\.flatten=true"),
        (Tuple([VECTOR]), VECTOR, r"observations are Tuple, .*env\.flatten=true"),
        (Discrete(3), VECTOR, r"observations are Discrete, .*env\.flatten=true"),
        (Sequence(VECTOR), VECTOR, "observations are Sequence, .*whose observations are vectors"),
        (Box(-1, 1, (2, 2)), VECTOR, r"observations have shape \(2, 2\), .*env\.flatten=true"),
        (VECTOR, Discrete(3), r"actions are Discrete, .*env\.kwargs\.continuous=true"),
        (Discrete(3), MultiBinary(3), "actions are MultiBinary, .*continuous actions"),
        (VECTOR, Dict({"a": VECTOR}), r"actions are Dict, .*wrappers\.TransformAction"),
        (VECTOR, Box(-1, 1, ()), r"actions have shape \(\), .*wrappers\.TransformAction"),
        (VECTOR, Box(-1, np.inf, (2,)), r"actions are unbounded; .*wrappers\.TransformAction"),
        (VECTOR, Box(0, 9, (2,), np.int64), r"actions are integers \(int64\); .*continuous"),
    ],
)
def test_spaces_that_do_not_fit_are_refused_with_a_remedy(
    register: Register, observation: gymnasium.Space, action: gymnasium.Space, message: str
) -> None:
    name = register("Spaces-v0", lambda: Spaces(observation, action))
    with pytest.raises(InputError, match=message):
        spec(name)


def test_the_remedy_for_dictionaries_works() -> None:
    with pytest.raises(InputError, match="'Nested-v0': observations are Dict"):
        spec("env_samples:Nested-v0")
    batch = make_batch(spec("env_samples:Flattened-v0"), 1)
    assert batch.reset([0])[0, 1:].tolist() == [0, 0, 1, 0]  # 3 numbers; even, odd
    assert batch.step(torch.zeros(1, 2)).observation.tolist() == [[1, 0, 0.5, 0, 1]]


def test_an_environment_that_cannot_be_made_says_why(register: Register) -> None:
    def missing() -> gymnasium.Env:
        raise gymnasium.error.DependencyNotInstalled("pip install thing")

    name = register("Missing-v0", missing)
    with pytest.raises(InputError, match=r"'Missing-v0' cannot be made .*pip install thing"):
        spec(name)


def test_tasks_are_refused_where_there_are_none() -> None:
    with pytest.raises(InputError, match="'HalfCheetah-v5' has no tasks"):
        spec("HalfCheetah-v5", task=1)
    for task in (-1, 10):
        with pytest.raises(InputError, match=f"env.task {task} does not exist"):
            spec("2DNav-v1", task=task)
    assert spec("2DNav-v1", task=9).task == 9


@pytest.mark.parametrize("name", ["InvertedPendulum-v2", "Humanoid-v2"])
def test_scaled_actions_reach_mujoco(name: str) -> None:
    found = spec(name)
    batch, env = make_batch(found, 1), make_env(found)
    batch.reset([1])
    env.reset(seed=1)
    action = torch.linspace(-1, 1, found.action_size)[None]
    expected = env.step(found.action_high[0] * action[0].numpy())
    result = batch.step(action)
    np.testing.assert_allclose(result.next_observation[0], expected[0], rtol=1e-5, atol=1e-6)
    assert result.reward.item() == pytest.approx(float(expected[1]), rel=1e-5)


def test_specifications_travel_as_plain_values() -> None:
    found = spec("Pendulum-v1")
    assert found == EnvSpec("Pendulum-v1", "Pendulum-v1", None, 3, 1, (-2.0,), (2.0,), 200)
    assert hash(found) == hash(spec("Pendulum-v1"))


# Quiet ------------------------------------------------------------------------------------------


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder; fails on any warning, and returns what it printed."""
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        cwd=folder,
        env={"PYTHONPATH": os.pathsep.join(path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_importing_the_package_is_light(tmp_path: Path) -> None:
    done = run_python(
        """
        import sys, json, dstrl_cli.envs
        dstrl_cli.envs.known_envs()
        print(json.dumps([m for m in ("torch", "mujoco", "pandas") if m in sys.modules]))
        """,
        tmp_path,
    )
    assert json.loads(done.stdout) == []


def test_other_programs_make_every_task_without_torch_warnings_or_log_files(tmp_path: Path) -> None:
    done = run_python(
        f"""
        import sys, gymnasium
        for name in {[*PAPER_TASKS, *NAVIGATION_TASKS]}:
            env = gymnasium.make("dstrl_cli.envs:dstrl/" + name)
            env.reset(seed=0)
            env.step(env.action_space.sample())
            env.close()
            print(env.spec.id)
        assert "torch" not in sys.modules
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["dstrl/" + name for name in [*PAPER_TASKS, *NAVIGATION_TASKS]]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_mujoco_is_quiet_even_when_a_simulation_explodes(tmp_path: Path) -> None:
    done = run_python(
        """
        import torch
        from dstrl_cli.envs import make_batch, spec
        for name in ("HalfCheetah-v4", "HalfCheetah-v5"):
            batch = make_batch(spec(name), 1, "cpu")
            batch.reset([0])
            batch.step(torch.full((1, 6), float("nan")))
            print(batch.failures[0])
        """,
        tmp_path,
    )
    assert done.stdout.count("environment 0 (HalfCheetah-v") == 2
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
