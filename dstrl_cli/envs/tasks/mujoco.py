"""The MuJoCo tasks of the papers under their old names, on Gymnasium's v4 classes.

Gymnasium's v4 classes kept the dynamics, observations and rewards of v2 and v3; v5 did not: it pays
no healthy reward on the terminating step and changed Walker2d's friction. Only Ant needs a change:
v4 dropped its contact entries. The physics engine is today's MuJoCo, not the papers' 1.5 or 2.0.
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

# Done on import, so that it happens in every program in which Gymnasium makes one of these classes.
log_mujoco_warnings()


class AntZeroContacts(Ant):
    """Ant whose 84 contact entries, and so its contact cost, are zero, as under MuJoCo 2."""

    @property
    def contact_forces(self) -> np.ndarray:
        """Zeros [bodies, 6]."""
        return np.zeros_like(self.data.cfrc_ext)
