"""Small run folders for the tests of the reports: real files, no training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.resolving import resolve

EVAL_HEADER = "step,episode,return,length\n"
EPISODES_HEADER = "step,episode,return,length,terminated\n"
PROGRESS_HEADER = "step,time_s,steps_per_s,eval_return_mean\n"

WHOLE = to_dict(resolve()) | dict.fromkeys(("metric", "method_label", "method_order"))
"""Every key of a run."""
WHOLE |= {"learning_starts": 0}


def csv_of(header: str, returns: Mapping[int, Sequence[float]], tail: str = "") -> str:
    """Rows of a CSV: step -> the returns of its episodes."""
    rows = [
        f"{step},{episode},{value},100{tail}\n"
        for step, values in returns.items()
        for episode, value in enumerate(values)
    ]
    return header + "".join(rows)


def write_run(
    root: Path,
    path: str,
    evaluations: Mapping[int, Sequence[float]],
    *,
    episodes: Mapping[int, Sequence[float]] | None = None,
    status: str | None = "finished",
    summary: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run folder `root/path`, `path` being `env/algo-method/sparsity/seed`.

    By its summary the run ends at its last evaluation, and has as many episodes in each as in that.
    """
    env, algo_method, sparsity, seed = path.split("/")[-4:]
    env, _, task = env.partition(".task")
    algo, _, method = algo_method.partition("-")
    actor, critic = parse_sparsity_label(sparsity)
    folder = root / path
    folder.mkdir(parents=True)
    last = max(evaluations, default=0)
    document = WHOLE | {
        "algo": algo,
        "method": method.partition("+")[0],
        "env": {"id": env, "task": int(task or 0)},
        "seed": int(seed.removeprefix("seed")),
        "steps": 1000,
        "eval_episodes": max(1, len(evaluations.get(last, ()))),
        "actor": {"sparsity": actor, "dense": actor == 0},
        "critic": {"sparsity": critic, "dense": critic == 0},
        "out": str(root),
        "run": {"versions": {"dstrl": "0.1.0"}, "device": seed},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document | dict(config or {})))
    (folder / "eval.csv").write_text(csv_of(EVAL_HEADER, evaluations))
    (folder / "episodes.csv").write_text(csv_of(EPISODES_HEADER, episodes or {}, ",0"))
    (folder / "progress.csv").write_text(PROGRESS_HEADER + "0,1.5,,-3\n")
    if status is not None:
        content = {"status": status, "steps": last, **(summary or {})}
        (folder / "summary.json").write_text(json.dumps(content))
    return folder
