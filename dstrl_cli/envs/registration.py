"""The tasks that dstrl adds to Gymnasium's registry, all under `dstrl/`.

Everything that distinguishes one task from another is in its row here: its class, its time limit,
its arguments, and the class that computes a batch of it on the device. Classes are named as text,
so that neither MuJoCo nor torch is imported before a task is made. Nothing that Gymnasium itself
registers is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium

PREFIX = "dstrl/"
_MUJOCO = "dstrl_cli.envs.tasks.mujoco:"
_ROBOTS = "dstrl_cli.envs.tasks.mujoco_navigation:"
_PLANE = "dstrl_cli.envs.tasks.navigation:Navigation2D"
_PLANE_BATCH = "dstrl_cli.envs.tasks.navigation_batch:NavigationBatch"


@dataclass(frozen=True)
class Registration:
    """How one task is made.

    Attributes:
        entry_point: its class as `module:Class`.
        time_limit: steps after which an episode is truncated.
        kwargs: arguments of its class.
        batch: the class that computes a batch of it on the training device, as `module:Class`;
            None where the environments are stepped one by one.
    """

    entry_point: str
    time_limit: int
    kwargs: dict[str, Any] = field(default_factory=dict)
    batch: str | None = None


# MuJoCo 2, which the v3 results were obtained with, left Ant's contact forces at zero; MuJoCo 1.5,
# behind the v2 results, computed them. The other tasks do not differ between v2 and v3.
_FORCES = {"use_contact_forces": True}
PAPER_TASKS = {
    **{
        f"{robot}-{version}": Registration(_MUJOCO + robot, 1000)
        for robot in ("HalfCheetah", "Hopper", "Walker2d", "Humanoid")
        for version in ("v2", "v3")
    },
    "Ant-v2": Registration(_MUJOCO + "Ant", 1000, _FORCES),
    "Ant-v3": Registration(_MUJOCO + "AntZeroContacts", 1000, _FORCES),
    "InvertedPendulum-v2": Registration(_MUJOCO + "InvertedPendulum", 1000),
    "Reacher-v2": Registration(_MUJOCO + "Reacher", 50),
}
NAVIGATION_TASKS = {
    "2DNav-v1": Registration(_PLANE, 100, {"obstacles": False}, _PLANE_BATCH),
    "2DNav-v2": Registration(_PLANE, 100, {"obstacles": True}, _PLANE_BATCH),
    "ReacherNav": Registration(_ROBOTS + "ReacherNav", 100),
    "AntNav": Registration(_ROBOTS + "AntNav", 100),
}
"""The tasks that come in a set of ten (see `has_tasks`)."""

DEVICE_BATCHES = {
    PREFIX + name: task.batch for name, task in NAVIGATION_TASKS.items() if task.batch is not None
}
"""Id to the class that computes a batch of it on the training device."""


def has_tasks(env_id: str) -> bool:
    """Return whether the environment comes in a set of ten: its class takes the argument `task`."""
    return env_id.startswith(PREFIX) and env_id.removeprefix(PREFIX) in NAVIGATION_TASKS


def register_tasks() -> None:
    """Add dstrl's tasks to Gymnasium's registry; a second call changes nothing."""
    for name, task in {**PAPER_TASKS, **NAVIGATION_TASKS}.items():
        env_id = PREFIX + name
        if env_id in gymnasium.registry:
            continue
        gymnasium.register(
            env_id,
            entry_point=task.entry_point,
            max_episode_steps=task.time_limit,
            kwargs=dict(task.kwargs),
        )
        # Here v1, v2 and v3 are different tasks, not releases of one: with the suffix as part of
        # the name, Gymnasium does not advise to "upgrade" from 2DNav-v1 to 2DNav-v2.
        registered = gymnasium.registry[env_id]
        registered.name, registered.version = name, None
