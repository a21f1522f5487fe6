"""Runs and their evaluations as pandas DataFrames, for notebooks and scripts.

Damage that is found is announced by a warning and listed in the frame's `attrs["damaged"]`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dstrl_cli.config.keys import flatten
from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.config.metrics import DEFAULT_METRIC
from dstrl_cli.report.labels import method_label
from dstrl_cli.report.metrics import WITHOUT_PARAMETER, Value, parse, stored_metric
from dstrl_cli.report.runs import LoggedRun, Results, load
from dstrl_cli.report.statistics import mean_by_step
from dstrl_cli.report.words import counted

SUMMARY_KEYS = ("sparsity", "parameters", "flops", "wall_time_s")
"""What of a summary becomes columns, groups with dotted names: `flops.train_total`."""


def read_results(folder: Path | str) -> pd.DataFrame:
    """Return one row per run of a results folder, in the order of tables.

    Columns:
        path: the run's folder, relative to `folder`.
        env, task, algo, method, label: the method as folders and as tables name it.
        sparsity, actor_sparsity, critic_sparsity: the label (`s0.95`), and the numbers in it.
        sparsity.actor, sparsity.critic: what was realised of these, as in `summary.json`.
        seed, status: status is `finished`, `failed`, `diverged`, `interrupted`, `unfinished`, or
            `damaged` where `summary.json` cannot be read.
        steps_trained, episodes_trained: environment steps and training episodes done, where the
            summary says it.
        metric, value: the metric that the run was trained to be shown by (else the default), and
            what it is for this run.
        final, best, lca, all-evals, all-episodes: these metrics; NaN where nothing is logged.
        parameters.*, flops.*, wall_time_s: as in `summary.json`.
        every other key of `config.yaml`, dotted, as in `actor.topology.drop_fraction`; lists are
            tuples.

    `folder` may also be a run, or any folder between the two. Raises InputError where it does not
    exist or holds no usable run.
    """
    results = load(folder)
    metrics = [parse(name) for name in WITHOUT_PARAMETER]
    rows = []
    for run in results.runs:
        own = parse(stored_metric(run) or DEFAULT_METRIC)
        shown = {"metric": own.name, "value": _value(own.compute(run))}
        shown |= {metric.name: _value(metric.compute(run)) for metric in metrics}
        found = {**_identity(run), **shown, **_summary(run.summary)}
        rows.append(found | {k: _cell(v) for k, v in run.config.items() if k not in found})
    return _with_damage(pd.DataFrame(rows), results, folder)


def read_evaluations(folder: Path | str) -> pd.DataFrame:
    """Return one row per evaluation of the runs of a results folder, step 0 included.

    Columns: those that say which run it is (path, env, task, algo, method, label, sparsity,
    actor_sparsity, critic_sparsity, seed, status), then `step` (environment steps), `return_mean`
    and `return_std` (ddof=0) over the episodes, `length_mean` (steps of an episode) and `episodes`
    (how many). Raises InputError as `read_results` does.
    """
    results = load(folder)
    parts = [_evaluations(run) for run in results.runs]
    logged = [part for part in parts if len(part)] or parts[:1]
    return _with_damage(pd.concat(logged, ignore_index=True), results, folder)


def _evaluations(run: LoggedRun) -> pd.DataFrame:
    logged = run.evaluations
    steps, means = mean_by_step(logged["step"], logged["return"])
    where = np.searchsorted(steps, logged["step"])
    squares = (logged["return"] - means[where]) ** 2
    columns = {
        "step": steps.astype(np.int64),
        "return_mean": means,
        "return_std": np.sqrt(mean_by_step(logged["step"], squares)[1]),
        "length_mean": mean_by_step(logged["step"], logged["length"])[1],
        "episodes": np.bincount(where, minlength=len(steps)),
    }
    return pd.DataFrame({**_identity(run, steps_trained=False), **columns}, index=range(len(steps)))


def _identity(run: LoggedRun, *, steps_trained: bool = True) -> dict[str, Any]:
    who = run.identity
    actor, critic = parse_sparsity_label(who.sparsity)
    found = {
        "path": run.path,
        "env": who.env,
        "task": who.task,
        "algo": who.algo,
        "method": who.method,
        "label": method_label(who.method, run.config).label,
        "sparsity": who.sparsity,
        "actor_sparsity": actor,
        "critic_sparsity": critic,
        "seed": who.seed,
        "status": run.status,
    }
    if not steps_trained:
        return found
    done = {f"{name}_trained": run.summary.get(name) for name in ("steps", "episodes")}
    return found | done


def _value(value: Value | None) -> float:
    return float("nan") if value is None else value.value


def _summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    return flatten({key: summary[key] for key in SUMMARY_KEYS if summary.get(key) is not None})


def _cell(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _with_damage(frame: pd.DataFrame, results: Results, folder: Path | str) -> pd.DataFrame:
    """Return the frame with the damage found, after a warning where there is any."""
    damaged = [f"{item.path}: {item.cause}" for item in results.damaged]
    frame.attrs["damaged"] = damaged
    if damaged:
        message = f"{counted(len(damaged), 'problem')} in {folder}, the first: {damaged[0]}"
        warnings.warn(f'{message}; all are in attrs["damaged"]', stacklevel=3)
    return frame
