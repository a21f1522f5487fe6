"""The MuJoCo tasks of the papers under their old names, on Gymnasium's v4 classes.

Nothing is simulated here: v4 kept the dynamics, observations and rewards of v2 and v3 (v5 did not:
it pays no healthy reward on the terminating step and changed Walker2d's friction). Only Ant needs
its contact entries back. The engine is today's MuJoCo, not the papers' 1.5 or 2.0.
"""

from __future__ import annotations

import numpy as np
from gymnasium.envs.mujoco.ant_v4 import AntEnv as Ant
from gymnasium.envs.mujoco.half_cheetah_v4 import HalfCheetahEnv as HalfCheetah
from gymnasium.envs.mujoco.hopper_v4 import HopperEnv as Hopper
from gymnasium.envs.mujoco.humanoid_v4 import HumanoidEnv as Humanoid
from gymnasium.envs.mujoco.inverted_pendulum_v4 import InvertedPendulumEnv as InvertedPendulum
from gymnasium.envs.mujoco.reacher_v4 import ReacherEnv as Reacher
from gymnasium.envs.mujoco.walker2d_v4 import Walker2dEnv as Walker2d

from dstrl_cli.envs.quiet import log_mujoco_warnings

__all__ = [
    "Ant",
    "AntZeroContacts",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "InvertedPendulum",
    "Reacher",
    "Walker2d",
]

# Gymnasium imports this module on the way to making one of its classes, in whatever program.
log_mujoco_warnings()


class AntZeroContacts(Ant):
    """Ant whose 84 contact entries, and so its contact cost, are zero, as under MuJoCo 2."""

    @property
    def contact_forces(self) -> np.ndarray:
        """Zeros [bodies, 6]."""
        return np.zeros_like(self.data.cfrc_ext)
