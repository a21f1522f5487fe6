"""Reads run folders: finds them, names them, loads their files, and says what is damaged.

It never writes and never raises for one bad run: what cannot be used becomes a `Damage`, and the
rest is returned. What the numbers mean is not decided here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from dstrl_cli.config.identity import NOT_IDENTITY, env_name
from dstrl_cli.config.keys import flatten
from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import CONFIG_FILE, SUMMARY_FILE

FINISHED = "finished"
UNFINISHED = "unfinished"
MARKER_FILES = (CONFIG_FILE, SUMMARY_FILE, "eval.csv")
"""A folder with any of these is taken for a run's."""

EPISODE_COLUMNS = ("step", "episode", "return", "length")
PROGRESS_COLUMNS = ("step",)
"""Columns that must hold numbers; further ones may be there, and may be empty."""

_LAYOUT = re.compile(
    r"(?P<env>[^/]+?)(?:\.task(?P<task>\d+))?/"
    r"(?P<algo>[^/-]+)-(?P<method>[^/]+)/"
    r"(?P<sparsity>s[\d.e-]+|a[\d.e-]+-c[\d.e-]+)/"
    r"seed(?P<seed>\d+)$"
)
Report = Callable[[str, str], None]
"""Is told of damage: (name of the file, cause)."""

_PER_RUN = NOT_IDENTITY | {"seed", "env.task", "env.id"}


@dataclass(frozen=True, order=True)
class Identity:
    """What a run's folder says it is: `<env>[.task<k>]/<algo>-<method>/<sparsity>/seed<k>`."""

    env: str
    algo: str
    method: str
    sparsity: str
    seed: int
    task: int = 0


@dataclass(frozen=True)
class Damage:
    """Something that could not be used: where, and why."""

    path: str
    cause: str


@dataclass(frozen=True)
class Run:
    """One run as its folder tells it.

    Attributes:
        path: the folder, relative to the results folder.
        identity: environment, algorithm, method, sparsity, seed and task.
        status: `finished`, `failed`, `diverged`, `interrupted`, or `unfinished` without a summary.
        config: dotted keys of config.yaml without its block `run`; empty where it is unreadable.
        summary: summary.json; empty where there is none.
        evaluations: rows of eval.csv: step, episode, return, length.
        episodes: rows of episodes.csv: step, episode, return, length, terminated.
        progress: rows of progress.csv; cells may be empty (NaN).
    """

    path: str
    identity: Identity
    status: str
    config: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    evaluations: pd.DataFrame = field(repr=False)
    episodes: pd.DataFrame = field(repr=False)
    progress: pd.DataFrame = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether the run trained to its end."""
        return self.status == FINISHED

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that the seeds and tasks of one table cell share."""
        return {key: value for key, value in self.config.items() if key not in _PER_RUN}


@dataclass(frozen=True)
class Results:
    """The runs under a results folder, in the order of their identities, and the damage found."""

    runs: tuple[Run, ...]
    damaged: tuple[Damage, ...]


def load(results: Path | str, only: Collection[Path] | None = None) -> Results:
    """Read every run under `results`, at any depth; of these `only` the given folders, if any.

    Raises InputError where the folder does not exist, holds no run, or no run of it is usable.
    """
    root = Path(results)
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise InputError(f"results folder {root} {kind}: give the --out folder of earlier runs")
    damaged: list[Damage] = []
    if only is None:
        found = discover(root, lambda path, cause: damaged.append(_damage(root, path, cause)))
    else:
        found = (path for path in only if path.is_dir())
    folders = tuple(found)
    if not folders and not damaged:
        raise InputError(
            f"results folder {root} holds no runs (no {CONFIG_FILE} at any depth): "
            "give the --out folder of earlier runs"
        )
    read = [run for folder in folders if (run := _read_run(root, folder, damaged)) is not None]
    if not read:
        first = damaged[0]
        raise InputError(
            f"results folder {root} holds no usable run; {len(damaged)} problems, the first: "
            f"{first.path}: {first.cause}"
        )
    return Results(tuple(_without_duplicates(read, damaged)), tuple(damaged))


def discover(
    folder: Path, report: Callable[[Path, str], None], above: tuple[Path, ...] = ()
) -> Iterator[Path]:
    """Yield the run folders under `folder` in a fixed order; nothing inside a run is searched.

    `report` is told of folders that cannot be read. A link to one of the folders `above` it is not
    followed.
    """
    try:
        real = folder.resolve(strict=True)
        if real in above:
            return
        content = sorted(folder.iterdir())
        is_run = any((folder / name).is_file() for name in MARKER_FILES)
        inside = [] if is_run else [path for path in content if path.is_dir()]
    except OSError as error:
        report(folder, f"unreadable: {_first_line(error)}")
        return
    if is_run:
        yield folder
    for child in inside:
        yield from discover(child, report, (*above, real))


def identify(folder: Path, config: Mapping[str, Any]) -> Identity | None:
    """Return what a run is: by its path where that has the layout of runs, else by its config."""
    match = _LAYOUT.search(folder.resolve().as_posix())
    if match:
        parts = match.groupdict()
        return Identity(
            env=parts["env"],
            algo=parts["algo"],
            method=parts["method"],
            sparsity=parts["sparsity"],
            seed=int(parts["seed"]),
            task=int(parts["task"] or _configured_task(config)),
        )
    try:
        return Identity(
            env=env_name(str(config.get("env.id") or config["env"])),
            algo=str(config["algo"]),
            method=str(config["method"]),
            sparsity=_sparsity_label(config),
            seed=int(config["seed"]),
            task=_configured_task(config),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _configured_task(config: Mapping[str, Any]) -> int:
    task = config.get("env.task", 0)
    return task if isinstance(task, int) else 0


def _sparsity_label(config: Mapping[str, Any]) -> str:
    actor, critic = (
        f"{0.0 if config.get(f'{net}.dense') else float(config[f'{net}.sparsity']):.10g}"
        for net in ("actor", "critic")
    )
    return f"s{actor}" if actor == critic else f"a{actor}-c{critic}"


def _read_run(root: Path, folder: Path, damaged: list[Damage]) -> Run | None:
    def report(name: str, cause: str) -> None:
        damaged.append(_damage(root, folder / name, cause))

    config = _read_mapping(folder / CONFIG_FILE, yaml.safe_load, report, required=True)
    config.pop("run", None)
    config = flatten(config)
    identity = identify(folder, config)
    if identity is None:
        report("", f"not a run of dstrl: neither its path nor its {CONFIG_FILE} names one")
        return None
    summary = _read_mapping(folder / SUMMARY_FILE, json.loads, report, required=False)
    evaluations = read_csv(folder / "eval.csv", report, EPISODE_COLUMNS)
    episodes = read_csv(folder / "episodes.csv", report, EPISODE_COLUMNS)
    progress = read_csv(folder / "progress.csv", report, PROGRESS_COLUMNS)
    if evaluations is None and episodes is None:
        return None
    return Run(
        path=folder.relative_to(root).as_posix(),
        identity=identity,
        status=str(summary.get("status", UNFINISHED)),
        config=config,
        summary=summary,
        evaluations=_empty(evaluations),
        episodes=_empty(episodes),
        progress=_empty(progress),
    )


def _damage(root: Path, path: Path, cause: str) -> Damage:
    return Damage(path.relative_to(root).as_posix(), cause)


def _empty(table: pd.DataFrame | None) -> pd.DataFrame:
    """Return the table, or one with no rows, so that a metric finds nothing to average."""
    return pd.DataFrame({"step": [], "return": []}, dtype=float) if table is None else table


def _read_mapping(
    path: Path, parse: Callable[[str], Any], report: Report, *, required: bool
) -> dict[str, Any]:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            report(path.name, "missing")
        return {}
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        report(path.name, f"unreadable: {_first_line(error)}")
        return {}
    if not isinstance(content, dict):
        report(path.name, "holds no keys")
        return {}
    return {str(key): value for key, value in content.items()}


def read_csv(path: Path, report: Report, columns: Iterable[str]) -> pd.DataFrame | None:
    """Return the usable rows of a CSV file as numbers, or None where it cannot be used at all.

    A row is usable if every one of `columns` holds a finite number; a last line without its
    newline was cut off and is left out. Of rows with the same step and episode the last one
    counts. `report(name, cause)` is told of everything left out.
    """
    wanted = list(columns)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        table, causes = _parse_csv(text)
    except FileNotFoundError:
        report(path.name, "missing")
        return None
    except (OSError, ValueError, pd.errors.ParserError) as error:
        report(path.name, f"unreadable: {_first_line(error)}")
        return None
    absent = [name for name in wanted if name not in table.columns]
    if absent:
        found = ",".join(str(name) for name in table.columns)[:60]
        report(path.name, f"foreign header '{found}': no column {', '.join(absent)}")
        return None
    # Of a table without rows, pandas would keep the text columns of the header.
    numbers = table.apply(pd.to_numeric, errors="coerce").astype(float)
    usable = np.isfinite(numbers[wanted].to_numpy(dtype=float)).all(axis=1)
    if not usable.all():
        line = int(np.argmin(usable)) + 2
        causes.append(f"unusable rows left out: {(~usable).sum()}, the first near line {line}")
    for cause in causes:
        report(path.name, cause)
    keys = [name for name in ("step", "episode") if name in wanted]
    return numbers[usable].drop_duplicates(keys, keep="last").reset_index(drop=True)


def _parse_csv(text: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the cells as text, and what had to be left out to read them."""
    causes = []
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        causes.append("last line cut off, left out")
    if not text:
        raise ValueError("empty file")
    try:
        return pd.read_csv(StringIO(text), dtype=str, index_col=False), causes
    except pd.errors.ParserError as error:
        causes.append(f"rows of another length left out: {_first_line(error)}")
        table = pd.read_csv(StringIO(text), dtype=str, index_col=False, on_bad_lines="skip")
        return table, causes


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _without_duplicates(runs: Iterable[Run], damaged: list[Damage]) -> Iterator[Run]:
    """Yield each identity once, finished runs before others, and note the rest as damage."""
    kept: dict[Identity, Run] = {}
    for run in sorted(runs, key=lambda run: (run.identity, not run.finished, run.path)):
        first = kept.setdefault(run.identity, run)
        if first is run:
            yield run
        else:
            damaged.append(Damage(run.path, f"the same run as {first.path}; left out"))
