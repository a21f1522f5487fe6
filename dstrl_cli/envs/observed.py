"""What the entries of observations and actions are, for the environments where that is known.

Names of MuJoCo's joints and actuators are read from the model that Gymnasium loads, in the order in
which its classes put positions, velocities and forces into the observation. Of the few that compute
something else, the names are those of Gymnasium's documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from dstrl_cli.envs.specs import EnvSpec, make_env

FREE, BALL = 0, 1
"""Types of joints of MuJoCo that have several numbers; all others have one."""

PLACES = {
    FREE: ("x", "y", "z", "quaternion w", "quaternion x", "quaternion y", "quaternion z"),
    BALL: ("quaternion w", "quaternion x", "quaternion y", "quaternion z"),
}
SPEEDS = {
    FREE: ("x", "y", "z", "angular x", "angular y", "angular z"),
    BALL: ("angular x", "angular y", "angular z"),
}
SIX = ("torque x", "torque y", "torque z", "force x", "force y", "force z")
INERTIA = tuple(f"inertia {number}" for number in range(10))
VELOCITY = ("angular x", "angular y", "angular z", "linear x", "linear y", "linear z")

_REACHER = (
    *("cos joint0", "cos joint1", "sin joint0", "sin joint1", "target x", "target y"),
    *("joint0 velocity", "joint1 velocity", "fingertip - target x", "fingertip - target y"),
)
_POLES = (
    *("cart", "sin pole1", "sin pole2", "cos pole1", "cos pole2"),
    *("cart velocity", "pole1 velocity", "pole2 velocity"),
)
DOCUMENTED: dict[str, Sequence[Sequence[str]]] = {
    "Navigation2D": [("x", "y")],
    "PendulumEnv": [("cos theta", "sin theta", "theta velocity")],
    "Continuous_MountainCarEnv": [("position", "velocity")],
    "ReacherEnv": [_REACHER, (*_REACHER, "fingertip - target z")],
    "ReacherNav": [(*_REACHER, "fingertip - target z")],
    "InvertedDoublePendulumEnv": [
        (*_POLES, "constraint force"),
        (*_POLES, "constraint force 0", "constraint force 1", "constraint force 2"),
    ],
}
"""Class to names, of each version of it; the one whose number of entries fits is taken."""


class Names(NamedTuple):
    """Names of the entries of observations and actions; None: not known."""

    observations: Sequence[str] | None
    actions: Sequence[str] | None


def entry_names(spec: EnvSpec) -> Names:
    """Return what the entries of an environment's observations and actions are.

    Environments of others, whose code would have to be run, have no names.
    """
    if spec.foreign or spec.flatten:
        return Names(None, None)
    env = make_env(spec)
    try:
        inner = env.unwrapped
        return Names(
            _fitting(_observations(inner, spec.observation_size), spec.observation_size),
            _fitting(_actions(inner), spec.action_size),
        )
    finally:
        env.close()


def _fitting(names: Sequence[str] | None, size: int) -> Sequence[str] | None:
    return names if names is not None and len(names) == size and all(names) else None


def _observations(env: Any, size: int) -> Sequence[str] | None:
    documented = DOCUMENTED.get(type(env).__name__)
    if documented is not None:
        return next((names for names in documented if len(names) == size), None)
    if not hasattr(env, "model"):
        return None
    model = env.model
    joints = [model.joint(number) for number in range(model.njnt)]
    kinds = [int(joint.type[0]) for joint in joints]
    places = [
        f"{joint.name} {part}".strip()
        for joint, kind in zip(joints, kinds, strict=True)
        for part in PLACES.get(kind, ("",))
    ]
    speeds = [
        f"{joint.name} {part} velocity".replace("  ", " ")
        for joint, kind in zip(joints, kinds, strict=True)
        for part in SPEEDS.get(kind, ("",))
    ]
    own = [*places[_skipped(env, FREE in kinds) :], *speeds]
    return next((own + more for more in _further(model, speeds) if len(own + more) == size), None)


def _skipped(env: Any, has_free_root: bool) -> int:
    """Return how many of the first positions an observation leaves out."""
    structure = getattr(env, "observation_structure", None)
    if isinstance(structure, dict):
        return int(structure.get("skipped_qpos", 0))
    if not getattr(env, "_exclude_current_positions_from_observation", False):
        # AntNav's class and Ant's of v2 to v4 keep the flag; pendulums have none and skip nothing
        return 0
    return 2 if has_free_root or type(env).__name__.startswith("Swimmer") else 1


def _further(model: Any, speeds: Sequence[str]) -> list[list[str]]:
    """Return what may follow positions and velocities: nothing, Ant's forces, Humanoid's extras.

    Version 5 leaves out the world and, of Humanoid's actuator forces, those of its free root.
    """
    bodies = [model.body(number).name or f"body {number}" for number in range(model.nbody)]
    forces = [part.replace(" velocity", "") + " actuator force" for part in speeds]
    found: list[list[str]] = [[]]
    for first, skipped in ((0, 0), (1, 6)):
        of = bodies[first:]
        contact = [f"{body} contact {part}" for body in of for part in SIX]
        inertia = [f"{body} {part}" for body in of for part in INERTIA]
        velocity = [f"{body} velocity {part}" for body in of for part in VELOCITY]
        found += [contact, [*inertia, *velocity, *forces[skipped:], *contact]]
    return found


def _actions(env: Any) -> Sequence[str] | None:
    if hasattr(env, "model"):
        model = env.model
        names = [model.actuator(number).name for number in range(model.nu)]
        joints = [
            model.joint(int(model.actuator_trnid[number][0])).name for number in range(model.nu)
        ]
        return [name or joint for name, joint in zip(names, joints, strict=True)]
    return ("dx", "dy") if type(env).__name__ == "Navigation2D" else None
