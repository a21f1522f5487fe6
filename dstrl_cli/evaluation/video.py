"""Episodes of a stored policy to look at: recorded as a video, or live in a window."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np

from dstrl_cli.envs import EnvSpec, make_env
from dstrl_cli.envs.actions import ActionScale
from dstrl_cli.envs.workers.group import success
from dstrl_cli.errors import DstrlError, InputError, suggest
from dstrl_cli.evaluation.rollout import LONGEST_EPISODE, Episodes
from dstrl_cli.runs.files import check_output, replacing
from dstrl_cli.runs.policy import Policy

DEFAULT_FPS = 30
"""Pictures a second where the environment names no number."""

RENDER_MODES = ("human",)
"""What `--render` takes: Gymnasium's mode of that name, a window."""


# --- refusing before anything is run ------------------------------------------------------------


def check_video(path: Path) -> None:
    """Raise InputError where a video could not be written to `path`."""
    for module in ("imageio", "imageio_ffmpeg"):
        if find_spec(module) is None:
            raise InputError(
                f'--video needs {module}, which is not installed: pip install "dstrl[video]"'
            )
    if path.suffix.lower() not in (".mp4", ".gif"):
        raise InputError(f"--video: '{path}' must end in .mp4 or .gif")
    if not path.parent.is_dir():
        raise InputError(f"--video: folder '{path.parent}' does not exist")
    check_output(path, "--video")


def check_render(mode: str) -> None:
    """Raise InputError for an unknown `--render`, or where there is no display to show it on."""
    if mode not in RENDER_MODES:
        raise InputError(f"--render: {suggest('mode', mode, RENDER_MODES)}")
    if sys.platform == "linux" and not _has_display():
        raise InputError(
            f"--render {mode}: there is no display here (neither DISPLAY nor WAYLAND_DISPLAY is "
            "set); record the episode with --video FILE.mp4 instead"
        )


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _check_monitor() -> None:
    """Raise InputError where GLFW, which MuJoCo's windows need, finds no monitor.

    MuJoCo's viewer does not look: without this check it would abort the whole process.
    """
    import glfw

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GLFW reports by warnings what the error below says
        found = glfw.init() and glfw.get_primary_monitor()
    if not found:
        raise InputError(
            "--render human: the display of DISPLAY or WAYLAND_DISPLAY cannot be opened, or has no "
            "monitor; record the episode with --video FILE.mp4 instead"
        )


# --- recording and showing ----------------------------------------------------------------------


def record(spec: EnvSpec, start: int, episodes: Episodes, path: Path) -> str | None:
    """Write a video of the first of the episodes, which began with the seed `start`.

    Its actions are repeated in an environment that draws. Returns a sentence where that ends
    otherwise, because the environment does not do the same twice.
    Raises InputError for an environment that cannot be drawn, DstrlError where drawing fails; a
    file that was at `path` is then still there.
    """
    import imageio.v2

    assert episodes.first is not None
    actions = iter(episodes.first)
    _draw_without_display()
    with _drawing(spec, "rgb_array", "--video") as env, replacing(path, path.suffix) as film:
        fps = env.metadata.get("render_fps") or DEFAULT_FPS
        with imageio.v2.get_writer(film, fps=fps) as writer:
            found = _episode(
                lambda _: next(actions),
                spec,
                env,
                start,
                len(episodes.first),
                lambda: writer.append_data(_picture(env)),
            )
    shown, evaluated = ((each.returns[0], each.lengths[0]) for each in (found, episodes))
    if shown[1] == evaluated[1] and np.isclose(shown[0], evaluated[0], rtol=1e-3, atol=1e-6):
        return None
    return (
        f"the film shows another episode (return {shown[0]:.2f} for {evaluated[0]:.2f}): "
        f"'{spec.name}' does not do the same twice from one seed"
    )


def show(
    policy: Policy,
    spec: EnvSpec,
    starts: Sequence[int],
    max_steps: int | None = LONGEST_EPISODE,
) -> Episodes:
    """Show one episode from each start in a window, one after the other, and return them.

    Raises InputError for an environment that has no window, DstrlError where drawing fails.
    """
    with _drawing(spec, "human", "--render human") as env:
        if hasattr(env.unwrapped, "mujoco_renderer"):
            _check_monitor()
        # In the mode "human" an environment draws by itself whenever it is reset or stepped.
        return Episodes.joined(
            [
                _episode(policy.unit_action, spec, env, start, max_steps, lambda: None)
                for start in starts
            ]
        )


def _draw_without_display() -> None:
    """Let MuJoCo draw off-screen where there is no screen and the user has not chosen how."""
    if sys.platform == "linux" and not _has_display() and not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "egl"


@contextmanager
def _drawing(spec: EnvSpec, mode: str, flag: str) -> Iterator[gymnasium.Env]:
    """Make the environment in a render mode; what goes wrong becomes one error that names `flag`.

    Raises InputError where it cannot be made so, DstrlError where using it fails.
    """
    try:
        env = make_env(spec, render_mode=mode)
    except Exception as error:  # an environment's constructor may raise anything
        raise InputError(f"{flag}: env '{spec.name}' cannot be drawn ({error})") from error
    try:
        if mode not in env.metadata.get("render_modes", ()):
            raise InputError(f"{flag}: env '{spec.name}' cannot be drawn (no mode {mode})")
        yield env
    except InputError:
        raise
    except Exception as error:
        remedy = "without a display, MuJoCo needs MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        raise DstrlError(
            f"{flag}: drawing '{spec.name}' failed ({type(error).__name__}: {error})"
            + (f"; {remedy} in the environment" if "mujoco" in sys.modules else "")
        ) from error
    finally:
        with suppress(Exception):  # a failed renderer may fail again while closing
            env.close()


def _picture(env: gymnasium.Env) -> np.ndarray:
    """Return the environment's picture [height, width, 3]."""
    picture = env.render()
    if picture is None:
        raise DstrlError("the environment gives no pictures")
    return np.asarray(picture)


def _episode(
    act: Callable[[np.ndarray], np.ndarray],
    spec: EnvSpec,
    env: gymnasium.Env,
    start: int,
    max_steps: int | None,
    before_step: Callable[[], None],
) -> Episodes:
    """Run one episode, of `max_steps` steps at most, and return it.

    `act` gives actions in [-1, 1], which are scaled as in a batch of environments.
    """
    scale = ActionScale(spec)
    observation, _ = env.reset(seed=start)
    total, length, solved, running = 0.0, 0, np.nan, True
    while running and (max_steps is None or length < max_steps):
        before_step()
        action = scale(act(np.asarray(observation))).astype(spec.action_dtype)
        observation, reward, terminated, truncated, info = env.step(action)
        total, length, solved = total + float(reward), length + 1, success(info)
        running = not (terminated or truncated)
    return Episodes(np.array([total]), np.array([length]), np.array([solved]), np.array([running]))
