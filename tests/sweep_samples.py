"""Small runs of sweeps, for the tests of planning and of running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from dstrl_cli.config.parse import to_dict
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep.plan import Axes, expand

SMALL = ("hidden_sizes=8,8", "batch_size=8", "learning_starts=50", "eval_episodes=2")
SHORT = {"env.id": "2DNav-v1", "steps": 200}


def runs(axes: Axes, out: Path = Path("results"), **options):
    flags = {"steps": 200, "out": str(out), **options.pop("flags", {})}
    if not axes.envs:
        flags["env.id"] = "2DNav-v1"
    return expand(axes, sets=(*SMALL, *options.pop("sets", ())), flags=flags, **options)


def labels(axes: Axes, **options) -> list[str]:
    return [run.label for run in runs(axes, **options)]


def leave(run, status: str | None, **changes) -> None:
    config = run.config.model_copy(update=changes)
    with RunFolder(run.path).create(to_dict(config) | {"run": {}}) as folder:
        if status:
            folder.summary({"status": status})


def wait_for(condition: Callable[[], bool], timeout_s: float = 240.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
