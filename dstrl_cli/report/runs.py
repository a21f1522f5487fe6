"""Run folders as logged: what their files say, and what of it is damaged.

Nothing is written. What cannot be used becomes a `Damage`, and the rest is returned, so that one
bad run does not stop a report. Metrics are computed in `metrics`.

The CSV files are read when a number of theirs is first asked for. Damage in files that nobody asks
for is therefore not found: a table of evaluation returns does not open `episodes.csv`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, cast

import numpy as np
import yaml
from numpy.typing import NDArray

from dstrl_cli.config.identity import NOT_IDENTITY, env_name, source_kind
from dstrl_cli.config.keys import flatten
from dstrl_cli.config.readfile import MAX_JSON, MAX_YAML, parse_json
from dstrl_cli.config.starts import SOURCES
from dstrl_cli.config.stored import check_whole, parse_document, seems_cut_off, up_to_date
from dstrl_cli.errors import InputError
from dstrl_cli.report.archive import read_bytes
from dstrl_cli.report.csvfile import LAST_LINE, Columns, Report, first_line, read_csv
from dstrl_cli.report.identity import Identity, identify, misplaced
from dstrl_cli.report.inside import Mask, read_masks
from dstrl_cli.report.layerfile import LayerRows, read_layers
from dstrl_cli.report.sources import Place, nothing_found, open_results, runs_at
from dstrl_cli.report.words import counted
from dstrl_cli.runs import checksums, lock, repair
from dstrl_cli.runs.files import is_file
from dstrl_cli.runs.policy import POLICY_FILE
from dstrl_cli.runs.policy import read as read_policy
from dstrl_cli.runs.status import FINISHED, SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE, missing_status

EPISODE_COLUMNS = ("step", "episode", "return", "length")
PROGRESS_COLUMNS = ("step",)
"""Columns that must hold numbers; further ones may be there, and may be empty."""

_PER_RUN = NOT_IDENTITY | {"seed", "env.task", "env.id"}


@dataclass(frozen=True)
class Damage:
    """Something that could not be used: where, and why."""

    path: str
    cause: str


@dataclass(frozen=True)
class LoggedRun:
    """One run as its folder tells it.

    Attributes:
        path: the folder, relative to the results folder.
        identity: environment, algorithm, method, sparsity, seed and task.
        status: `finished`, `failed`, `diverged`, `interrupted`; without a summary `unfinished`, and
            `damaged` where it cannot be read.
        config: dotted keys of config.yaml, without its block `run`.
        summary: summary.json; where there is none to read, what the files of a finished run show
            of it, or nothing.
        origin: dotted keys of the block `run` of config.yaml: versions, commit, device.
    """

    path: str
    identity: Identity
    status: str
    config: Mapping[str, Any] = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    origin: Mapping[str, Any] = field(repr=False)
    _folder: Place = field(repr=False)
    _damaged: list[Damage] = field(repr=False)

    @cached_property
    def evaluations(self) -> Columns:
        """Columns of eval.csv: step, episode, return, length.

        None of them has rows where a finished run's file does not reach the last evaluation.
        """
        columns = self._read("eval.csv", EPISODE_COLUMNS)
        cause = self._cut_off(columns["step"]) if self.finished and len(columns["step"]) else None
        if cause is None:
            return columns
        self._report("eval.csv", f"cut off, not used: {cause}")
        return {name: values[:0] for name, values in columns.items()}

    @cached_property
    def episodes(self) -> Columns:
        """Columns of episodes.csv: step, episode, return, length, terminated."""
        return self._read("episodes.csv", EPISODE_COLUMNS)

    @cached_property
    def progress(self) -> Columns:
        """Columns of progress.csv; cells may be empty (NaN)."""
        return self._read("progress.csv", PROGRESS_COLUMNS)

    def layers(self, name: str, *, last_step: bool = False) -> LayerRows:
        """Return the rows of a file with a row per layer: `topology.csv` or `neurons.csv`.

        With `last_step` only those of the last step.
        """
        check = functools.partial(checksums.difference, name, summary=self.summary)
        return read_layers(self._folder / name, self._report, check, last_step=last_step)

    def masks(self) -> Mapping[str, Sequence[Mask]]:
        """Return the masks [in, out] of each network's layers at the last evaluation.

        Nothing where the policy file is missing, as in archives, or damaged, which is reported.
        """
        file = self._folder / POLICY_FILE
        if not (isinstance(file, Path) and is_file(file)):
            return {}
        try:
            checksums.check_policy(file, self.summary)
            return read_masks(read_policy(file)[0], file)
        except InputError as error:
            self._report(POLICY_FILE, str(error))
            return {}

    @property
    def finished(self) -> bool:
        """Whether the run trained to its end."""
        return self.status == FINISHED

    @property
    def has_checksums(self) -> bool:
        """Whether its files can be compared with what the run wrote."""
        return checksums.are_known(self.summary)

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that the seeds and tasks of one table cell share."""
        return {
            key: source_kind(value) if key in SOURCES and isinstance(value, str) else value
            for key, value in self.config.items()
            if key not in _PER_RUN
        }

    def _cut_off(self, steps: NDArray[np.float64]) -> str | None:
        """Return what of its evaluations a finished run lacks; it evaluates at its last step."""
        wanted = self.summary.get("steps") or self.config.get("steps")
        last = steps.max()
        if isinstance(wanted, int) and last < wanted:
            return f"the run has {wanted:,} steps, its last evaluation here is that of {last:,.0f}"
        episodes, count = self.config.get("eval_episodes"), int((steps == last).sum())
        if isinstance(episodes, int) and count < episodes:
            return f"its last evaluation has {count} of {episodes} episodes"
        return None

    def _report(self, name: str, cause: str) -> None:
        if cause == LAST_LINE and lock.in_use(cast(Path, self._folder)):  # it is just being written
            return
        self._damaged.append(Damage(PurePosixPath(self.path, name).as_posix(), cause))

    def _read(self, name: str, columns: Iterable[str]) -> Columns:
        """Return a file's usable rows; of an unusable file none, so that no metric uses it."""
        check = functools.partial(checksums.difference, name, summary=self.summary)
        table = read_csv(self._folder / name, self._report, columns, check)
        return {name: np.empty(0) for name in columns} if table is None else table


@dataclass(frozen=True)
class Results:
    """The runs under a results folder, in the order of their identities.

    `damaged` grows when a damaged file is read for the first time.
    """

    runs: tuple[LoggedRun, ...]
    damaged: list[Damage]


def load(results: Path | str, only: Collection[Path] | None = None) -> Results:
    """Return the runs of a results folder; with `only`, those of the given folders in it.

    `results` may also be a run, any folder between the two, or an archive. Raises InputError where
    it does not exist, holds no run, or no run of it is usable.
    """
    root = open_results(Path(results))
    damaged: list[Damage] = []

    def unreadable(folder: Path, error: OSError) -> None:
        damaged.append(_damage(root, folder, f"unreadable: {first_line(error)}"))

    folders: Sequence[Place]
    if only is None:
        folders = runs_at(root, unreadable)
        if not folders and not damaged:
            raise nothing_found(root)
    else:
        folders = [path for path in only if path.is_dir()]
        if not folders:
            raise InputError(f"none of the runs asked for has a folder in {root}")
    absolute = root.resolve()
    read = [run for path in folders if (run := _read_run(root, absolute, path, damaged))]
    if not read:
        raise InputError(f"results folder {root} holds no usable run; {problems(damaged)}")
    return Results(tuple(_with_short_names(_without_duplicates(read, damaged))), damaged)


def problems(damaged: Sequence[Damage]) -> str:
    """Return how much damage there is, and the first of it: there must be some."""
    first = damaged[0]
    which = ", the first" if len(damaged) > 1 else ""
    return f"{counted(len(damaged), 'problem')}{which}: {first.path}: {first.cause}"


def _read_run(
    root: Place, absolute: PurePath, folder: Place, damaged: list[Damage]
) -> LoggedRun | None:
    """Return the run in a folder of `root`, whose absolute path is given, or None for damage.

    A run whose configuration is not there to the last key is of no use: nobody knows which metric
    it asks for, when its training began, or whether other runs may be averaged with it.
    """

    def report(name: str, cause: str) -> None:
        damaged.append(_damage(root, folder / name, cause))

    document = _read_mapping(folder / CONFIG_FILE, parse_document, MAX_YAML, report, required=True)
    path = folder.relative_to(root)
    identity = identify(absolute / path, flatten(document))
    if identity is None:
        report("", f"not a run of dstrl: neither its path nor its {CONFIG_FILE} names one")
        return None
    if not document:  # which is told already
        return None
    try:
        current = up_to_date(document)
        check_whole(current)
    except InputError as error:
        report(CONFIG_FILE, str(error))
        return None
    if cause := misplaced(absolute / path, flatten(current), document.get("format", 1)):
        report("", cause)
        return None
    summary = _read_mapping(folder / SUMMARY_FILE, parse_json, MAX_JSON, report, required=False)
    if cause := checksums.own_difference(summary):
        report(SUMMARY_FILE, f"{cause}; the run is not used")
        return None
    if "status" not in summary:
        place = cast(Path, folder)  # an archive's has all that is asked for here
        made = repair.summary_from_files(place, current)
        if made is None or lock.in_use(place):
            made = {"status": missing_status(place)}
        summary = made
    return LoggedRun(
        path=path.as_posix(),
        identity=identity,
        status=str(summary["status"]),
        config=flatten(_without_origin(current)),
        summary=summary,
        origin=_origin(document),
        _folder=folder,
        _damaged=damaged,
    )


def _without_origin(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the block that says where and with what it ran."""
    return {key: value for key, value in document.items() if key != "run"}


def _origin(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return that block, dotted; it is not checked, and may be missing."""
    block = document.get("run")
    return flatten(block) if isinstance(block, Mapping) else {}


def _damage(root: Place, path: Place, cause: str) -> Damage:
    return Damage(path.relative_to(root).as_posix(), cause)


def _read_mapping(
    path: Place, parse: Callable[[str], Any], limit: int, report: Report, *, required: bool
) -> dict[str, Any]:
    text = "\n"
    try:
        text = read_bytes(path, limit).decode("utf-8")
        content = parse(text)
    except FileNotFoundError:
        if required:
            report(path.name, "missing")
        return {}
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        cause = "seems cut off" if seems_cut_off(text) else "unreadable"
        report(path.name, f"{cause}: {first_line(error)}")
        return {}
    if not isinstance(content, dict) or not content:
        report(path.name, "holds no keys" + (", seems cut off" if seems_cut_off(text) else ""))
        return {}
    return {str(key): value for key, value in content.items()}


def _with_short_names(runs: Iterable[LoggedRun]) -> list[LoggedRun]:
    """Leave out the modules of environments, but of those that would then share a name."""
    runs = list(runs)
    named: dict[str, set[str]] = {}
    for run in runs:
        named.setdefault(env_name(run.identity.env), set()).add(run.identity.env)

    def short(run: LoggedRun) -> LoggedRun:
        name = env_name(run.identity.env)
        return replace(run, identity=replace(run.identity, env=name))

    return [short(run) if len(named[env_name(run.identity.env)]) == 1 else run for run in runs]


def _without_duplicates(runs: Iterable[LoggedRun], damaged: list[Damage]) -> Iterator[LoggedRun]:
    """Yield each identity once, finished runs before others, and note the rest as damage."""
    kept: dict[Identity, LoggedRun] = {}
    for run in sorted(runs, key=lambda run: (run.identity, not run.finished, run.path)):
        first = kept.setdefault(run.identity, run)
        if first is run:
            yield run
        else:
            damaged.append(Damage(run.path, f"the same run as {first.path}; left out"))
