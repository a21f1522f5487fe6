"""The tasks that dstrl adds to Gymnasium's registry, all under ``dstrl/``.

Only names, entry points as strings, and time limits: neither MuJoCo nor torch is imported before a
task is made, and nothing that Gymnasium registers is replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium

PREFIX = "dstrl/"
_MUJOCO = "dstrl_cli.envs.tasks.mujoco:"
_NAVIGATION = "dstrl_cli.envs.tasks.navigation:Navigation2D"


@dataclass(frozen=True)
class Registration:
    """How one task is made: its class, its time limit in steps, its keyword arguments."""

    entry_point: str
    time_limit: int
    kwargs: dict[str, Any] = field(default_factory=dict)


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
    "2DNav-v1": Registration(_NAVIGATION, 100, {"obstacles": False}),
    "2DNav-v2": Registration(_NAVIGATION, 100, {"obstacles": True}),
    "ReacherNav": Registration("dstrl_cli.envs.tasks.mujoco_navigation:ReacherNav", 100),
    "AntNav": Registration("dstrl_cli.envs.tasks.mujoco_navigation:AntNav", 100),
}


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
