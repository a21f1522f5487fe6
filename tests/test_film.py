"""The film of an evaluation: it shows the evaluated episode, and replaces an old film at last."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from policy_samples import write_policy

from dstrl_cli import envs
from dstrl_cli.cli import main
from dstrl_cli.errors import DstrlError
from dstrl_cli.evaluation import stored, video
from dstrl_cli.runs.policy import Policy

STARTS = [11, 12, 13]


class Drift(gymnasium.Env):
    """Moves by its action, which it shows as its picture; unsteady ones move by chance as well."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = Box(-np.inf, np.inf, (2,), np.float64)
    action_space = Box(-2.0, 2.0, (1,))
    pictures: ClassVar[list[float]] = []

    def __init__(
        self, render_mode: str | None = None, unsteady: bool = False, broken: int = 0
    ) -> None:
        self.render_mode, self.unsteady, self.broken = render_mode, unsteady, broken

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 2)
        return self.at.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        chance = np.random.default_rng().uniform() if self.unsteady else 0.0
        self.at = np.sin(3 * self.at + action[0] + chance)  # small differences grow
        return self.at.copy(), float(self.at[0]), False, False, {}

    def render(self) -> np.ndarray:
        Drift.pictures.append(float(self.at[0]))
        if self.broken and len(Drift.pictures) >= self.broken:
            raise RuntimeError("no light")
        return np.zeros((16, 16, 3), np.uint8)


gymnasium.register("Drift-v0", Drift, max_episode_steps=40)


class Writer:
    """Writes one byte for every picture."""

    def __init__(self, path: Path, fps: float) -> None:
        self.file = Path(path).open("wb")  # noqa: SIM115

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def append_data(self, picture: np.ndarray) -> None:
        self.file.write(b".")


@pytest.fixture(autouse=True)
def _camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count pictures instead of encoding them: ffmpeg is an extra."""
    camera = ModuleType("imageio.v2")
    camera.get_writer = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "imageio", ModuleType("imageio"))
    monkeypatch.setitem(sys.modules, "imageio.v2", camera)
    monkeypatch.setattr(sys.modules["imageio"], "v2", camera, raising=False)
    monkeypatch.setattr(Drift, "pictures", [])


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy.load(write_policy(tmp_path / "p.safetensors", env="Drift-v0", task=None))


def test_the_film_shows_the_first_evaluated_episode_to_the_last_digit(
    policy: Policy, tmp_path: Path
) -> None:
    spec = envs.spec("Drift-v0")
    found = stored.evaluate(policy, spec, STARTS)
    assert video.record(spec, STARTS[0], found, tmp_path / "film.mp4") is None
    assert (tmp_path / "film.mp4").read_bytes() == b"." * 40
    # a picture before each step; the reward of a step is where the next picture is taken
    env = Drift()
    env.reset(seed=STARTS[0])
    assert Drift.pictures[0] == env.at[0]
    last = found.returns[0] - sum(Drift.pictures[1:])
    assert -1 <= last <= 1
    assert found.first is not None
    assert found.first.shape == (40, 1)


def test_a_failing_camera_leaves_the_old_film(policy: Policy, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    film.write_bytes(b"old")
    spec = replace(envs.spec("Drift-v0"), kwargs=(("broken", 3),))
    found = stored.evaluate(policy, spec, STARTS)
    with pytest.raises(DstrlError, match="no light"):
        video.record(spec, STARTS[0], found, film)
    assert film.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "p.safetensors"]


def test_a_film_replaces_a_link_and_not_what_it_points_to(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "film.mp4").symlink_to(tmp_path / "victim")
    spec = envs.spec("Drift-v0")
    video.record(spec, STARTS[0], stored.evaluate(policy, spec, STARTS), tmp_path / "film.mp4")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "film.mp4").is_symlink()


def test_an_environment_that_does_not_do_the_same_twice_is_told(
    policy: Policy, tmp_path: Path
) -> None:
    spec = replace(envs.spec("Drift-v0"), kwargs=(("unsteady", True),))
    found = stored.evaluate(policy, spec, STARTS)
    told = video.record(spec, STARTS[0], found, tmp_path / "film.mp4")
    assert told is not None
    assert "does not do the same twice from one seed" in told


def test_other_bounds_of_actions_are_told(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, bounds in (("same", [2.0]), ("other", [1.0])):
        low, high = [-each for each in bounds], bounds
        task = {"env": "Drift-v0", "task": None, "action_low": low, "action_high": high}
        assert main(["eval", str(write_policy(empty_folder / name, **task)), "--json"]) == 0
        said = capsys.readouterr().err
        shown = "trained for actions in [-1, 1], 'Drift-v0' takes [-2, 2]" in said
        assert shown == (name == "other"), said
