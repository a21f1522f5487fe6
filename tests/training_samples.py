"""Small runs on quick environments, and what trains them as one population."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.resolving import resolve
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training import trainer
from dstrl_cli.training.capture import Capture
from dstrl_cli.training.reporter import Reporter

SMALL = (
    "hidden_sizes=[12,12]",
    "batch_size=16",
    "learning_starts=40",
    "eval_every=50",
    "eval_episodes=2",
    "topology.update_interval=10",
    "nstep_delay=20",
    "buffer.check_interval=25",
    "buffer.min_size=30",
    "buffer.distance_threshold=0",
)
STEPS = 120


def run(method: str, seed: int = 0, env: str = "2DNav-v1", sets: Sequence[str] = ()) -> RunConfig:
    """A small run on the masked engine, as populations have it."""
    flags = {"env.id": env, "steps": STEPS, "seed": seed, "sparsity": 0.6, "engine": "masked"}
    return resolve(method, sets=(*SMALL, *sets), flags=flags)


def train(
    configs: Sequence[RunConfig],
    out: Path,
    *,
    device: str = "cpu",
    reporter: Reporter | None = None,
    capturing: Capture | None = None,
) -> list[Path]:
    """Train one population; return the members' folders."""
    runs = [prepare(config, Path(str(number))) for number, config in enumerate(configs)]
    paths = [out / each.path for each in runs]
    with ExitStack() as stack:
        sinks = [
            [stack.enter_context(RunFolder(path).create(to_dict(each.config) | {"run": {}}))]
            for path, each in zip(paths, runs, strict=True)
        ]
        resolved = [each.config for each in runs]
        trainer.train(resolved, sinks, runs[0].spec, device, reporter, capturing)
    return paths


def status(folder: Path) -> Any:
    return (read_summary(folder) or {}).get("status")
