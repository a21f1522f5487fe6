"""The navigation tasks: their fixed task sets, their dynamics, and the batched form of 2DNav."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from dstrl_cli.envs import make_batch, make_env, spec
from dstrl_cli.envs.gymnasium import GymnasiumBatch
from dstrl_cli.envs.registration import NAVIGATION_TASKS
from dstrl_cli.envs.tasks.navigation_batch import NavigationBatch
from dstrl_cli.envs.tasks.task_sets import (
    TASK_COUNT,
    Disc,
    Point,
    choose_task,
    inside_obstacle,
    task_set,
)
from dstrl_cli.errors import InputError

CPU = torch.device("cpu")


def make(name: str, **kwargs: Any) -> gymnasium.Env:
    return gymnasium.make("dstrl_cli.envs:dstrl/" + name, **kwargs)


def walk_towards(env: gymnasium.Env, goal: Point, steps: int) -> tuple[list[float], bool]:
    """Go straight to a goal; return the rewards and whether the episode terminated."""
    position, _ = env.reset()
    rewards: list[float] = []
    for _ in range(steps):
        action = np.clip(np.asarray(goal, np.float32) - position, -0.1, 0.1)
        position, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        if terminated or truncated:
            return rewards, terminated
    return rewards, False


# Task sets --------------------------------------------------------------------------------------


def test_task_sets_are_fixed() -> None:
    # The first draws of NumPy's RandomState(47).
    assert task_set("box")[0].goal == pytest.approx((-0.38651153, 0.47448309))
    assert task_set("box")[2].goal == pytest.approx((0.20760514, 0.29960460))
    for name in ("box", "disc", "obstacles"):
        assert len(set(task_set(name))) == TASK_COUNT
    assert all(np.hypot(*task.goal) < 0.2 for task in task_set("disc"))
    assert all(np.abs(task.goal).max() <= 0.5 for task in task_set("box"))


def test_no_task_starts_or_ends_in_an_obstacle() -> None:
    for task in task_set("obstacles"):
        assert [disc.radius for disc in task.obstacles] == [0.1, 0.15, 0.2]
        assert np.abs([disc.centre for disc in task.obstacles]).max() <= 0.5
        assert not inside_obstacle((0.0, 0.0), task.obstacles)
        assert not inside_obstacle(task.goal, task.obstacles)


def test_a_disc_is_entered_at_its_edge() -> None:
    disc = Disc((0.5, 0.0), 0.25)
    assert inside_obstacle((0.25, 0.0), (disc,))
    assert not inside_obstacle((0.25, 0.01), (disc,))
    assert not inside_obstacle((0.25, 0.0), ())


def test_impossible_choices_are_refused() -> None:
    centre = task_set("obstacles")[0].obstacles[0].centre
    with pytest.raises(InputError, match="lies in an obstacle of task 0"):
        choose_task("obstacles", 0, centre)
    with pytest.raises(InputError, match="two finite numbers"):
        choose_task("box", 0, (0.0, float("nan")))
    with pytest.raises(InputError, match="unknown goal_range 'disk'; did you mean 'disc'"):
        make("ReacherNav", goal_range="disk")
    with pytest.raises(InputError, match=r"unknown goal_range 'obstacles'\. Valid: box, disc$"):
        make("ReacherNav", goal_range="obstacles")
    with pytest.raises(InputError, match=r"env.task 10 does not exist: choose 0 to 9"):
        make("AntNav", task=10)


def test_the_task_number_chooses_the_goal() -> None:
    for name, known in [("2DNav-v1", "box"), ("2DNav-v2", "obstacles"), ("AntNav", "box")]:
        assert make_env(spec(name, 4)).unwrapped.task == task_set(known)[4]
    assert make_env(spec("ReacherNav", 4)).unwrapped.task == task_set("disc")[4]
    assert make("AntNav", goal=(1, 1)).unwrapped.task.goal == (1.0, 1.0)


# Gymnasium environments -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2DNav-v1", "2DNav-v2"])
def test_the_plane_passes_gymnasiums_checker(name: str) -> None:
    check_env(make(name).unwrapped)


@pytest.mark.parametrize("name", ["ReacherNav", "AntNav"])
# The checker dislikes unbounded observations, which every MuJoCo task has; frames need a display.
@pytest.mark.filterwarnings("ignore:.*observation space m.*imum value is -?infinity")
def test_the_robots_pass_gymnasiums_checker(name: str) -> None:
    check_env(make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", NAVIGATION_TASKS)
def test_episodes_are_truncated_after_100_steps(name: str) -> None:
    env = make(name, goal=(0.5, -0.4) if name != "2DNav-v2" else None)
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape, env.action_space.dtype)
    ends = [env.step(still)[2:4] for _ in range(100)]
    assert ends[:-1] == [(False, False)] * 99
    assert ends[-1] == (False, True)


def test_the_plane_by_hand() -> None:
    env = make("2DNav-v1", goal=(0.3, 0.4))
    assert env.reset(seed=0)[0].tolist() == [0.0, 0.0]
    position, reward, terminated, _, _ = env.step(np.array([0.0, 0.1], np.float32))
    assert position == pytest.approx([0.0, 0.1])
    assert reward == pytest.approx(-np.hypot(0.3, 0.3) - 0.01 * 0.01)
    assert not terminated
    # A step beyond the bounds is cut, in the cost as well.
    position, reward, *_ = env.step(np.array([5.0, 0.0], np.float32))
    assert position == pytest.approx([0.1, 0.1])
    assert reward == pytest.approx(-np.hypot(0.2, 0.3) - 0.01 * 0.01)


def test_the_plane_ends_at_the_goal_and_stops_at_its_edge() -> None:
    env = make("2DNav-v1", goal=(0.25, -0.25))
    rewards, terminated = walk_towards(env, (0.25, -0.25), 10)
    assert terminated
    assert len(rewards) == 3
    assert sum(rewards) == pytest.approx(-(0.15 + 0.05) * 2**0.5 - 0.01 * (0.02 * 2 + 0.005))
    env.reset()
    for _ in range(30):
        position, *_ = env.step(np.array([0.1, -0.1], np.float32))
    assert position.tolist() == [2.0, -2.0]


def test_an_obstacle_refuses_the_step_and_costs_a_tenth() -> None:
    env = make("2DNav-v2")
    task = env.unwrapped.task
    rewards: list[float] = []
    position, _ = env.reset()
    centre = np.array(task.obstacles[2].centre, np.float32)
    for _ in range(20):
        before = position
        action = np.clip(centre - position, -0.1, 0.1)
        position, reward, _, _, info = env.step(action)
        if info["blocked"]:
            assert position.tolist() == before.tolist()
            offset = np.hypot(*(position - task.goal))
            rewards.append(reward + offset + 0.01 * np.square(action).sum())
    assert rewards
    assert rewards == pytest.approx([-0.1] * len(rewards), abs=1e-6)


def test_frames_show_the_point_the_goal_and_the_obstacles() -> None:
    env = make("2DNav-v2", render_mode="rgb_array")
    env.reset()
    first = env.render()
    assert first.shape == (400, 400, 3)
    assert first.dtype == np.uint8
    assert first[200, 200].tolist() == [40, 90, 200]  # the point, at the origin
    env.step(np.array([0.1, 0.0], np.float32))
    assert not np.array_equal(first, env.render())
    goal = env.unwrapped.task.goal
    row, column = int((2 - goal[1]) * 100), int((goal[0] + 2) * 100)
    assert first[row, column].tolist() == [60, 160, 80]
    colours = {tuple(c) for c in np.unique(first.reshape(-1, 3), axis=0).tolist()}
    assert (150, 150, 150) in colours
    assert make("2DNav-v1").unwrapped.render() is None


def test_reacher_nav_by_hand() -> None:
    env = make("ReacherNav", goal=(0.1, 0.1))
    observation, _ = env.reset(seed=1)
    assert observation.shape == (11,)
    # cos, sin of joints at 0; the goal; at rest; fingertip (0.21, 0) minus goal.
    expected = [1, 1, 0, 0, 0.1, 0.1, 0, 0, 0.11, -0.1, 0]
    assert observation == pytest.approx(expected, abs=1e-6)
    observation, reward, terminated, _, _ = env.step(np.array([1.0, -1.0], np.float32))
    distance = np.linalg.norm(observation[-3:])
    assert reward == pytest.approx(-distance - 2e-4)
    assert not terminated
    assert env.reset(seed=2)[0] == pytest.approx(expected, abs=1e-6)  # the same start
    reached = make("ReacherNav", goal=(0.21, 0.0))
    reached.reset()
    assert reached.step(np.zeros(2, np.float32))[2]


def test_reacher_navs_far_goals_stay_where_they_are() -> None:
    env = make("ReacherNav", goal_range="box", goal=(0.5, -0.5))
    env.reset()
    for _ in range(50):
        observation, *_ = env.step(env.action_space.sample())
    assert observation[4:6] == pytest.approx([0.5, -0.5], abs=1e-9)


def test_ant_nav_by_hand() -> None:
    env = make("AntNav", goal=(1.0, 1.0))
    first, _ = env.reset(seed=1)
    assert first.shape == (111,)
    assert np.array_equal(first, env.reset(seed=2)[0])
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 8)).astype(np.float32)
    contacts = 0.0
    for action in actions:
        observation, reward, *_ = env.step(action)
        torso = env.unwrapped.get_body_com("torso")[:2]
        forces = np.square(observation[27:]).sum()
        expected = -np.hypot(*(torso - 1.0)) + 0.2 - 0.01 * np.square(action).sum() - 1e-4 * forces
        assert reward == pytest.approx(expected)
        contacts = max(contacts, np.abs(observation[27:]).max())
    assert 0 < contacts <= 1


def test_ant_nav_ends_at_the_goal_and_when_it_falls() -> None:
    start = make("AntNav", goal=(0.0, 0.0))
    start.reset()
    result = start.step(np.zeros(8, np.float32))
    assert result[2]
    assert result[4]["reached"]
    fallen = make("AntNav", goal=(0.5, 0.5)).unwrapped
    fallen.reset()
    fallen.init_qpos[2] = 1.5  # dropped from above the healthy height
    fallen.reset()
    result = fallen.step(np.zeros(8, np.float32))
    assert result[2]
    assert not result[4]["reached"]


# The batched form -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "task"), [("2DNav-v1", 0), ("2DNav-v1", 7), ("2DNav-v2", 5)])
def test_the_batch_equals_gymnasium_step_by_step(name: str, task: int) -> None:
    count = 5
    found = spec(name, task)
    batch = make_batch(found, count)
    assert isinstance(batch, NavigationBatch)
    plain = GymnasiumBatch(found, count, CPU)
    seeds = list(range(count))
    ours, theirs = batch.reset(seeds), plain.reset(seeds)
    assert torch.equal(ours, theirs)
    random = torch.Generator().manual_seed(task)
    goal = torch.tensor(choose_task("box" if name == "2DNav-v1" else "obstacles", task).goal)
    seen = {"terminated": 0, "truncated": 0, "blocked": 0}
    for index in range(600):
        noise = torch.rand(count, 2, generator=random) * 2 - 1
        # Members 0 and 1 go for the goal, so that episodes end in both ways.
        towards = ((goal - ours) / 0.1).clamp(-1, 1) + 0.2 * noise * (index % 3)
        chasing = (torch.arange(count) < 2)[:, None]
        actions = torch.where(chasing, towards, noise).clamp(-1, 1)
        active = None if index % 4 else (torch.rand(count, generator=random) < 0.7).numpy()
        one, other = batch.step(actions, active), plain.step(actions, active)
        for field in ("next_observation", "reward", "observation"):
            difference = getattr(one, field) - getattr(other, field)
            assert difference.abs().max() <= 1e-6, (index, field)
        assert torch.equal(one.terminated, other.terminated)
        assert torch.equal(one.truncated, other.truncated)
        assert not (one.terminated & one.truncated).any()
        seen["terminated"] += int(one.terminated.sum())
        seen["truncated"] += int(one.truncated.sum())
        refused = (one.next_observation == ours).all(-1)
        seen["blocked"] += int(refused.sum()) if active is None else 0
        ours = one.observation
    assert seen["terminated"] > 10
    assert seen["truncated"] >= 15
    assert (seen["blocked"] > 10) == (name == "2DNav-v2")


@pytest.mark.parametrize("limit_wins", [False, True])
def test_reaching_the_goal_on_the_last_step_terminates_unless_the_limit_wins(
    limit_wins: bool,
) -> None:
    found = spec("2DNav-v1", 2)
    goal = torch.tensor(choose_task("box", 2).goal)
    for batch in (make_batch(found, 1), GymnasiumBatch(found, 1, CPU)):
        batch.limit_wins = torch.tensor([limit_wins])
        position = batch.reset([0])
        for _ in range(95):
            batch.step(torch.zeros(1, 2))
        ends: list[tuple[bool, bool]] = []
        for _ in range(5):
            # Three steps reach the goal; the first two of five are spent waiting.
            wait = len(ends) < 2
            action = torch.zeros(1, 2) if wait else ((goal - position) / 0.1).clamp(-1, 1)
            step = batch.step(action)
            position = step.next_observation
            ends.append((bool(step.terminated), bool(step.truncated)))
        assert (position - goal).abs().max() < 0.01
        assert ends == [(False, False)] * 4 + [(not limit_wins, limit_wins)]
        assert step.observation.tolist() == [[0.0, 0.0]]


def test_what_a_batch_returned_stays_as_it_was() -> None:
    batch = make_batch(spec("2DNav-v1"), 2)
    first = batch.reset([0, 1])
    step = batch.step(torch.ones(2, 2))
    kept = step.next_observation.clone()
    step.observation.fill_(9.0)  # the caller's own
    batch.step(-torch.ones(2, 2))
    assert torch.equal(first, torch.zeros(2, 2))
    assert torch.equal(step.next_observation, kept)
    assert batch.step(torch.zeros(2, 2)).observation.abs().max() < 1e-6


def test_a_batch_on_the_device_tells_the_host_nothing_and_never_fails() -> None:
    batch = make_batch(spec("2DNav-v1"), 2)
    batch.reset([0, 1])
    step = batch.step(torch.full((2, 2), torch.nan))
    assert step.host is None
    assert batch.failures == {}
    batch.close()
    batch.close()


def test_the_state_of_the_plain_form_brings_back_the_same_steps() -> None:
    batch = GymnasiumBatch(spec("2DNav-v2", 3), 2, CPU)
    batch.reset([0, 1])
    actions = torch.rand(130, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for action in actions[:30]:
        batch.step(action)
    states = batch.get_state()
    assert [state.elapsed for state in states] == [30, 30]
    expected = [batch.step(action) for action in actions[30:]]
    assert any(step.truncated.all() for step in expected)
    assert torch.equal(batch.set_state(states)[0], torch.from_numpy(states[0].observation))
    for action, before in zip(actions[30:], expected, strict=True):
        again = batch.step(action)
        assert all(torch.equal(a, b) for a, b in zip(again[:5], before[:5], strict=True))


class Tensors(NavigationBatch):
    """The batch as it is computed on an accelerator, with torch's functions, but on the CPU."""

    _on_cpu = property(lambda _: False, lambda *_: None)  # type: ignore[assignment]


@pytest.mark.parametrize("name", ["2DNav-v1", "2DNav-v2"])
def test_a_batch_on_the_cpu_returns_the_bits_that_torchs_functions_return(name: str) -> None:
    count, found = 4, spec(name, 5)
    one, other = NavigationBatch(found, count, CPU), Tensors(found, count, CPU)
    limit_wins = torch.tensor([True, False] * 2)
    one.limit_wins, other.limit_wins = limit_wins, limit_wins
    observation = one.reset(range(count))
    assert torch.equal(observation, other.reset(range(count)))
    goal = torch.tensor(choose_task("box" if name == "2DNav-v1" else "obstacles", 5).goal)
    random = torch.Generator().manual_seed(0)
    ended = 0
    for index in range(400):
        noise = torch.rand(count, 2, generator=random) * 2 - 1
        towards = ((goal - observation) / 0.1).clamp(-1, 1) + 0.2 * noise * (index % 3)
        actions = torch.where((torch.arange(count) < 2)[:, None], towards, noise).clamp(-1, 1)
        active = None if index % 4 else torch.rand(count, generator=random) < 0.7
        steps = one.step(actions, active), other.step(actions, active)
        for ours, theirs in zip(*(step[:5] for step in steps), strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)
        observation = steps[0].observation
        ended += int(steps[0].ended.sum())
    assert ended > 10
    for state, same in zip(one.get_state(), other.get_state(), strict=True):
        assert (state.observation == same.observation).all()
        assert state.elapsed == same.elapsed
