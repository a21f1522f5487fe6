"""Episodes of a stored policy, on the CPU and without noise, on any environment that fits.

By default they are the episodes of its run's own evaluations, so that their mean is that of the
last rows of `eval.csv`, up to what rounding does to a trajectory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs import EnvSpec, make_batch
from dstrl_cli.errors import InputError
from dstrl_cli.evaluation.rollout import LONGEST_EPISODE, Episodes, episodes
from dstrl_cli.runs.checksums import check_policy
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.logs import COLUMNS
from dstrl_cli.runs.policy import Policy
from dstrl_cli.runs.status import SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE, read_summary

AT_ONCE = 10
"""Environments that run side by side."""

Acting = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observations [N, obs] to actions [N, act] in [-1, 1]."""

Around = Callable[[Acting, range], Acting]
"""What stands between a policy and the environments of the episodes of these numbers."""

EPISODES, SEED, TIMEOUT_S = 10, 0, 600.0
"""How a policy is evaluated whose file lies in no run folder."""


def run_config(policy_file: Path) -> RunConfig | None:
    """Return the configuration of the run in whose folder a policy file lies.

    None where no `config.yaml` lies beside the file. Raises InputError where it cannot be read.
    """
    folder = policy_file.parent
    if not (folder / CONFIG_FILE).is_file():
        return None
    try:
        return read_config(folder)
    except InputError as error:
        cause = "; ".join(str(error.__cause__ or error).splitlines())
        raise InputError(
            f"{folder / CONFIG_FILE}, which says how this run evaluates, cannot be read ({cause}); "
            "repair it, or move the policy file out of the folder"
        ) from error


def without_config(policy_file: Path) -> bool:
    """Whether a policy file lies among other files of a run, and `config.yaml` is missing there."""
    folder = policy_file.parent
    others = (SUMMARY_FILE, *COLUMNS)
    return not (folder / CONFIG_FILE).is_file() and any((folder / each).exists() for each in others)


def check_content(policy_file: Path) -> None:
    """Raise InputError where a policy file in a run's folder is not what the run wrote."""
    check_policy(policy_file, read_summary(policy_file.parent) or {})


def check_fit(policy: Policy, spec: EnvSpec) -> None:
    """Raise InputError unless the policy's sizes are the environment's."""
    ours = (policy.observation_size, policy.action_size)
    theirs = (spec.observation_size, spec.action_size)
    if ours != theirs:
        raise InputError(
            f"the policy takes {ours[0]} observations and gives {ours[1]} actions, but "
            f"env '{spec.name}' has {theirs[0]} and {theirs[1]}; it was trained on "
            f"'{policy.env}', choose --env accordingly"
        )


def evaluate(
    policy: Policy,
    spec: EnvSpec,
    starts: Sequence[int],
    max_steps: int | None = LONGEST_EPISODE,
    around: Around | None = None,
) -> Episodes:
    """Run one episode from each start of a policy that fits the environment.

    Args:
        policy: the policy.
        spec: the environment.
        starts: the seed of each episode's start (`evaluation.starts`).
        max_steps: where an episode ends that the environment has not ended; None: nowhere.
        around: perturbs what the policy sees or does; None: nothing does.

    Raises:
        InputError: the policy gives actions that are no numbers: its weights overflow.
        DstrlError: an environment failed.
    """
    plain = _checked(policy)
    kept: list[NDArray[np.float32]] = []
    parts = []
    for i in range(0, len(starts), AT_ONCE):
        here = starts[i : i + AT_ONCE]
        acting = plain if around is None else around(plain, range(i, i + len(here)))
        parts.append(_side_by_side(acting, spec, here, max_steps, kept if i == 0 else None))
    first = np.array(kept[: parts[0].lengths[0]], np.float32).reshape(-1, spec.action_size)
    return replace(Episodes.joined(parts), first=first)


def _checked(policy: Policy) -> Acting:
    """Return how a policy acts; InputError is raised where finite observations overflow in it."""

    def acting(observations: NDArray[np.float32]) -> NDArray[np.float32]:
        actions = policy.unit_action(observations)
        overflows = np.isfinite(observations).all(1) & ~np.isfinite(actions).all(1)
        if overflows.any():
            raise InputError(
                f"the policy of step {policy.step:,} gives actions that are not finite: its "
                "weights overflow, the training diverged; give an earlier one, such as "
                "best.safetensors"
            )
        return actions

    return acting


def other_bounds(policy: Policy, spec: EnvSpec) -> str | None:
    """Return a sentence where actions have other bounds than a policy was trained for."""
    ours, theirs = (policy.action_low, policy.action_high), (spec.action_low, spec.action_high)
    if np.allclose(ours, theirs, rtol=1e-6, atol=0):
        return None
    shown = []
    for bounds in (ours, theirs):
        pairs = dict.fromkeys(zip(*bounds, strict=True))
        shown.append(", ".join(f"[{low:.6g}, {high:.6g}]" for low, high in pairs))
    return (
        f"the policy was trained for actions in {shown[0]}, '{spec.name}' takes {shown[1]}: "
        "its actions are stretched to these"
    )


def statistics(found: Episodes) -> dict[str, dict[str, float]]:
    """Return mean, std (over the episodes), min and max of returns, lengths and known success."""
    known = found.known_success()
    return {
        name: {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
        }
        for name, values in (
            ("return", found.returns),
            ("length", found.lengths),
            *([("success", known)] if len(known) else []),
        )
    }


def _side_by_side(
    acting: Acting,
    spec: EnvSpec,
    starts: Sequence[int],
    max_steps: int | None,
    kept: list[NDArray[np.float32]] | None,
) -> Episodes:
    """Return one episode from each start, run in one batch.

    The actions of the first episode are added to `kept`, and those after its end as well.
    """

    def act(observation: torch.Tensor) -> torch.Tensor:
        actions = acting(observation.numpy())
        if kept is not None:
            kept.append(actions[0])
        return torch.from_numpy(actions)

    batch = make_batch(spec, len(starts), "cpu")
    try:
        found = episodes(batch, act, starts, max_steps)
        batch.check()
        return found
    finally:
        batch.close()
