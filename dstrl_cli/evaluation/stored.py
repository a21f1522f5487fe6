"""Episodes of a stored policy, on the CPU and without noise, and a video of one.

Training evaluates by itself (`trainer`); this is for afterwards, on any environment that fits.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.envs import EnvSpec, make_batch, make_env
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.runs.policy import Policy

AT_ONCE = 10
"""Environments that run side by side."""

DEFAULT_FPS = 30


@dataclass(frozen=True)
class Episodes:
    """Undiscounted returns and lengths, one entry per episode."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]


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


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Return a start for each episode; different seeds give unrelated starts."""
    return [int(word) % 2**31 for word in np.random.SeedSequence(seed).generate_state(episodes)]


def evaluate(policy: Policy, spec: EnvSpec, episodes: int, seed: int) -> Episodes:
    """Run episodes of a policy that fits the environment."""
    seeds = episode_seeds(seed, episodes)
    parts = [
        _side_by_side(policy, spec, seeds[i : i + AT_ONCE]) for i in range(0, episodes, AT_ONCE)
    ]
    returns, lengths = zip(*parts, strict=True)
    return Episodes(np.concatenate(returns), np.concatenate(lengths))


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
    policy: Policy, spec: EnvSpec, seeds: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import torch

    from dstrl_cli.evaluation import rollout

    batch = make_batch(spec, len(seeds), "cpu")
    try:
        found = rollout.episodes(
            batch, lambda observation: torch.from_numpy(policy.act(observation.numpy())), seeds
        )
        batch.check()
        return found
    finally:
        batch.close()


def check_video(path: Path) -> None:
    """Raise InputError where a video could not be written to `path`, before anything is run."""
    for module in ("imageio", "imageio_ffmpeg"):
        if find_spec(module) is None:
            raise InputError(
                f'--video needs {module}, which is not installed: pip install "dstrl[video]"'
            )
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise InputError(f"--video: '{path}' must end in .mp4 or .gif")
    if not path.parent.is_dir():
        raise InputError(f"--video: folder '{path.parent}' does not exist")


def _draw_without_display() -> None:
    """Let MuJoCo draw off-screen where there is no screen and the user has not chosen how."""
    chosen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"))
    if sys.platform == "linux" and not chosen:
        os.environ["MUJOCO_GL"] = "egl"


def record(policy: Policy, spec: EnvSpec, seed: int, path: Path) -> None:
    """Write a video of the first episode that `evaluate` runs with this seed.

    Raises InputError for an environment that cannot be drawn, DstrlError where drawing fails.
    """
    import imageio.v2

    _draw_without_display()
    try:
        env = make_env(spec, render_mode="rgb_array")
    except Exception as error:
        raise InputError(f"--video: env '{spec.name}' cannot be drawn ({error})") from error
    try:
        if "rgb_array" not in env.metadata.get("render_modes", ()):
            raise InputError(f"--video: env '{spec.name}' cannot be drawn (no mode rgb_array)")
        fps = env.metadata.get("render_fps") or DEFAULT_FPS
        with imageio.v2.get_writer(path, fps=fps) as writer:
            for frame in _frames(policy, spec, env, episode_seeds(seed, 1)[0]):
                writer.append_data(frame)
    except InputError:
        raise
    except Exception as error:
        path.unlink(missing_ok=True)
        remedy = "without a display, MuJoCo needs MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        raise DstrlError(
            f"--video: drawing '{spec.name}' failed ({type(error).__name__}: {error})"
            + (f"; {remedy} in the environment" if "mujoco" in sys.modules else "")
        ) from error
    finally:
        with suppress(Exception):  # a failed renderer may fail again while closing
            env.close()


def _frames(policy: Policy, spec: EnvSpec, env: Any, seed: int) -> Any:
    """Yield the pictures of one episode."""
    from dstrl_cli.evaluation.rollout import LONGEST_EPISODE

    low, high = np.array(spec.action_low), np.array(spec.action_high)
    observation, _ = env.reset(seed=seed)
    for _ in range(spec.time_limit or LONGEST_EPISODE):
        picture = env.render()
        if picture is None:
            raise DstrlError("the environment gives no pictures")
        yield picture
        unit = policy.act(np.asarray(observation)[None])[0]
        action = (low + (unit + 1) / 2 * (high - low)).astype(env.action_space.dtype)
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            return
