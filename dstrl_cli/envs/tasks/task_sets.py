"""The fixed task sets of the navigation environments: goals and obstacles, no dynamics.

Ten tasks per set, drawn once with `np.random.RandomState(47)`, whose stream NumPy guarantees never
to change: every method and every seed sees the same ten. The goal ranges are those of the code of
Wang, Chen and Dong (github.com/HeyuanMingong/sllrl), which draws with the same generator and seed:
the first 2DNav-v1 tasks are that code's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np

from dstrl_cli.errors import InputError, suggest

TASK_COUNT = 10
TASK_SEED = 47
OBSTACLE_RADII = (0.1, 0.15, 0.2)
BOX = 0.5
"""Goals of most tasks, and the centres of obstacles, lie in [-BOX, BOX]^2."""
REACH = 0.2
"""ReacherNav's goals lie within this distance of the shoulder."""

Point = tuple[float, float]


class Disc(NamedTuple):
    """An obstacle: the points within `radius` of `centre`, the edge included."""

    centre: Point
    radius: float


@dataclass(frozen=True)
class NavigationTask:
    """One task: where to go, and the discs in the way."""

    goal: Point
    obstacles: tuple[Disc, ...] = ()


def inside_obstacle(point: Point, obstacles: tuple[Disc, ...]) -> bool:
    """Return whether a point lies in, or on the edge of, one of the discs."""
    return any(
        np.hypot(point[0] - centre[0], point[1] - centre[1]) <= radius
        for centre, radius in obstacles
    )


def _point(row: np.ndarray) -> Point:
    return float(row[0]), float(row[1])


def _draw_box(random: np.random.RandomState) -> NavigationTask:
    return NavigationTask(_point(random.uniform(-BOX, BOX, 2)))


def _draw_disc(random: np.random.RandomState) -> NavigationTask:
    while True:
        goal = _point(random.uniform(-REACH, REACH, 2))
        if np.hypot(*goal) < REACH:
            return NavigationTask(goal)


def _draw_obstacles(random: np.random.RandomState) -> NavigationTask:
    while True:
        *centres, goal = map(_point, random.uniform(-BOX, BOX, (len(OBSTACLE_RADII) + 1, 2)))
        obstacles = tuple(map(Disc, centres, OBSTACLE_RADII))
        if not inside_obstacle((0.0, 0.0), obstacles) and not inside_obstacle(goal, obstacles):
            return NavigationTask(goal, obstacles)


_DRAWS: dict[str, Callable[[np.random.RandomState], NavigationTask]] = {
    "box": _draw_box,  # goals U(-.5, .5)^2
    "disc": _draw_disc,  # goals uniform in the disc of radius .2
    "obstacles": _draw_obstacles,  # "box", and three discs with centres U(-.5, .5)^2
}


@cache
def task_set(name: str) -> tuple[NavigationTask, ...]:
    """Return the ten tasks of a set: `box`, `disc` or `obstacles`.

    Raises:
        InputError: the name is none of the three.
    """
    if name not in _DRAWS:
        raise InputError(suggest("task set", name, _DRAWS))
    random = np.random.RandomState(TASK_SEED)
    return tuple(_DRAWS[name](random) for _ in range(TASK_COUNT))


def check_task(task: int) -> None:
    """Raise `InputError` unless `task` is one of 0 .. 9."""
    if task not in range(TASK_COUNT):
        raise InputError(f"env.task {task} does not exist: choose 0 to {TASK_COUNT - 1}")


def choose_task(name: str, task: int, goal: Point | None = None) -> NavigationTask:
    """Return task number `task` of a set, with its goal replaced where one is given.

    Raises:
        InputError: no such set or task, or a goal that is not two finite numbers or lies in an
            obstacle.
    """
    check_task(task)
    chosen = task_set(name)[task]
    if goal is None:
        return chosen
    if np.shape(goal) != (2,) or not np.isfinite(np.asarray(goal, float)).all():
        raise InputError(f"goal {goal!r} must be two finite numbers (x, y)")
    point = float(goal[0]), float(goal[1])
    if inside_obstacle(point, chosen.obstacles):
        raise InputError(f"goal {goal!r} lies in an obstacle of task {task}: choose another")
    return replace(chosen, goal=point)
