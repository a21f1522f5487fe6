"""Steps without Gymnasium's wrappers: the same transitions, step by step."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import OrderEnforcing, TimeLimit, TransformReward

from dstrl_cli.envs import make_env, spec
from dstrl_cli.envs.registration import NAVIGATION_TASKS, PAPER_TASKS
from dstrl_cli.envs.specs import known_envs
from dstrl_cli.envs.unwrapped import step_function
from dstrl_cli.envs.workers.group import success

MUJOCO = [
    name
    for name, entry in gymnasium.registry.items()
    # Gymnasium makes no v2 and v3 any more, and no Pusher-v4 with MuJoCo 3 or newer.
    if str(entry.entry_point).startswith("gymnasium.envs.mujoco.") and name != "Pusher-v4"
]
OWN = [*PAPER_TASKS, *NAVIGATION_TASKS]
OTHERS = ["MountainCarContinuous-v0", "Pendulum-v1"]


def test_all_versions_of_mujocos_tasks_are_compared() -> None:
    assert len(MUJOCO) == 21
    assert set(MUJOCO) | set(OWN) | set(OTHERS) <= set(known_envs())


@pytest.mark.parametrize("name", [*MUJOCO, *OWN, *OTHERS])
def test_transitions_are_those_of_the_wrapped_environment_bit_by_bit(name: str) -> None:
    found = spec(name, kwargs={"max_episode_steps": 40})
    wrapped, other = make_env(found), make_env(found)
    step = step_function(other)
    assert step != other.step
    low, high = np.array(found.action_low), np.array(found.action_high)
    random = np.random.default_rng(0)
    assert (wrapped.reset(seed=3)[0] == other.reset(seed=3)[0]).all()
    ended = 0
    for _ in range(100):
        action = random.uniform(low, high).astype(found.action_dtype)
        theirs, ours = wrapped.step(action), step(action.copy())
        assert same_bits(theirs, ours)
        assert np.array_equal(success(theirs[4]), success(ours[4]), equal_nan=True)
        if ours[2] or ours[3]:
            ended += 1
            assert same_bits(wrapped.reset(), other.reset())
    assert ended >= 2
    assert other.get_wrapper_attr("_elapsed_steps") == wrapped.get_wrapper_attr("_elapsed_steps")


def same_bits(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether observations, rewards and ends are equal, zeros with their signs, and their types."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(one[:4], other[:4], strict=True)]
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs if a.dtype != object
    )


def test_other_wrappers_are_left_in_place() -> None:
    plain = make_env(spec("Pendulum-v1"))
    inner = plain.unwrapped

    class Counting(TimeLimit):
        """A wrapper of somebody else's."""

    limit = {"max_episode_steps": 9}
    for env in (
        inner,
        OrderEnforcing(inner),
        TimeLimit(inner, **limit),
        Counting(OrderEnforcing(inner), **limit),
        TransformReward(plain, lambda reward: 2 * reward),
        TimeLimit(OrderEnforcing(TransformReward(inner, lambda reward: 2 * reward)), **limit),
    ):
        assert step_function(env) == env.step
