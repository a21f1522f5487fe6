"""Episodes of a stored policy, on the CPU and without noise, on any environment that fits.

By default they are the episodes of its run's own evaluations, so that their mean is that of the
last rows of `eval.csv`, up to what rounding does to a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs import EnvSpec, make_batch
from dstrl_cli.errors import InputError
from dstrl_cli.evaluation import rollout
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.logs import COLUMNS
from dstrl_cli.runs.policy import Policy
from dstrl_cli.runs.summary import CONFIG_FILE, SUMMARY_FILE

AT_ONCE = 10
"""Environments that run side by side."""

EPISODES, SEED = 10, 0
"""How a policy is evaluated whose file lies in no run folder."""


@dataclass(frozen=True)
class Episodes:
    """Undiscounted returns and lengths, one entry per episode.

    `first` are the actions of the first episode in [-1, 1], [steps, act], where they were kept.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    first: NDArray[np.float32] | None = None


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


def evaluate(policy: Policy, spec: EnvSpec, starts: Sequence[int]) -> Episodes:
    """Run one episode from each start of a policy that fits the environment.

    Args:
        policy: the policy.
        spec: the environment.
        starts: the seed of each episode's start (`evaluation.starts`).

    Raises:
        DstrlError: an environment failed.
    """
    kept: list[NDArray[np.float32]] = []
    returns, lengths = [], []
    for i in range(0, len(starts), AT_ONCE):
        found = _side_by_side(policy, spec, starts[i : i + AT_ONCE], kept if i == 0 else None)
        returns.append(found[0])
        lengths.append(found[1])
    first = np.array(kept[: lengths[0][0]], np.float32).reshape(-1, spec.action_size)
    return Episodes(np.concatenate(returns), np.concatenate(lengths), first)


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


def statistics(episodes: Episodes) -> dict[str, dict[str, float]]:
    """Return mean, std (over the episodes), min and max of returns and lengths."""
    return {
        name: {
            "mean": float(values.mean()),
            "std": float(values.std()),
            "min": float(values.min()),
            "max": float(values.max()),
        }
        for name, values in (("return", episodes.returns), ("length", episodes.lengths))
    }


def _side_by_side(
    policy: Policy,
    spec: EnvSpec,
    starts: Sequence[int],
    kept: list[NDArray[np.float32]] | None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the returns and lengths of one episode from each start, run in one batch.

    The actions of the first episode are added to `kept`, and those after its end as well.
    """

    def act(observation: torch.Tensor) -> torch.Tensor:
        actions = policy.unit_action(observation.numpy())
        if kept is not None:
            kept.append(actions[0])
        return torch.from_numpy(actions)

    batch = make_batch(spec, len(starts), "cpu")
    try:
        found = rollout.episodes(batch, act, starts)
        batch.check()
        return found
    finally:
        batch.close()
