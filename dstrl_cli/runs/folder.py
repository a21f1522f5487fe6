"""The folder of one run: what is written while it trains, and who may write it.

Whole files are replaced atomically, CSV files only grow, by whole rows, and a lock lets one process
at a time write to a folder. It imports neither training nor torch; `report` reads the results.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dstrl_cli.config.identity import differences
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.config.readfile import MAX_YAML, read_text
from dstrl_cli.config.stored import FORMAT, check_whole, parse_document, seems_cut_off, up_to_date
from dstrl_cli.errors import InputError
from dstrl_cli.runs import lock, logs
from dstrl_cli.runs.checkpoint import CHECKPOINT_FOLDER, State, has_state, read_state, write_state
from dstrl_cli.runs.files import as_yaml, refuse_link, sync_file, sync_folder, write
from dstrl_cli.runs.left import Left, left_in
from dstrl_cli.runs.output import OUTPUT_FILE
from dstrl_cli.runs.policy import POLICY_FILES, dump
from dstrl_cli.runs.provenance import origin
from dstrl_cli.runs.status import SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE, last_status, write_summary

TENSORBOARD_FOLDER, WANDB_FOLDER = "tensorboard", "wandb"
"""Folders of curves, which other packages write."""

RUN_FILES = (
    *(CONFIG_FILE, SUMMARY_FILE),
    *POLICY_FILES,
    *logs.COLUMNS,
    OUTPUT_FILE,
    CHECKPOINT_FOLDER,
    TENSORBOARD_FOLDER,
    WANDB_FOLDER,
)

_PARTS = {f".{name}.part" for name in RUN_FILES}
"""Names under which `files.write` writes before it puts a file in place."""


class RunFolder:
    """The open folder of one run; a context manager that releases the folder at its end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        self._run: Mapping[str, Any] = {}  # the block `run` of this process
        self._extended_from: int | None = None  # steps of the run before it was made longer

    def create(
        self, config: Mapping[str, Any], overwrite: bool = False, planned: Left | None = None
    ) -> RunFolder:
        """Make the folder with `config.yaml` and the headers of every CSV file, and lock it.

        config: the whole resolved configuration, with where it runs under `run:` (`provenance`);
        the number of the format is written before it.
        planned: what the folder held when the run was planned; None: that does not matter.
        Raises InputError, having changed nothing, where the folder is in use, holds files that are
        not a run's, holds a run and `overwrite` is not set, or was changed since it was planned.
        """
        wanted = from_dict(config)
        refuse_links(self.path, wanted.out)
        _make_folder(self.path)
        self.lock()
        try:
            _check_content(self.path, wanted, overwrite)
            _check_unchanged(self.path, planned, overwrite)
        except InputError:
            self.close()
            raise
        self._run = config.get("run", {})
        _remove_run_files(self.path)
        write(self.path / CONFIG_FILE, as_yaml({"format": FORMAT, **config}).encode())
        logs.create(self.path)
        return self

    def resume(self, config: Mapping[str, Any], planned: Left | None = None) -> dict[str, Any]:
        """Lock the folder and put its files back to where its checkpoint is; return the state.

        What was written after the checkpoint is removed. Nothing is lost if this is interrupted:
        it may be done again.

        config: as for `create`; more steps than the run had make it longer. Its block `run` is
        added to the stored one as an entry of the list `resumed`.
        planned: as for `create`.
        Raises InputError, having changed nothing, where the folder is in use or was changed since
        the run was planned, or its checkpoint or what belongs to it cannot be read.
        """
        self.lock()
        try:
            _check_unchanged(self.path, planned)
            state = read_state(self.path / CHECKPOINT_FOLDER)
            document = self._resumed_document(config, state["steps"])
            logs.check(self.path, state["logs"], state.get("log_checksums", {}))
        except InputError:
            self.close()
            raise
        (self.path / SUMMARY_FILE).unlink(missing_ok=True)  # its checksums are of the whole logs
        logs.cut(self.path, state["logs"])
        write(self.path / CONFIG_FILE, as_yaml(document).encode())
        for name in POLICY_FILES:
            if name in state["policies"]:
                write(self.path / name, state["policies"][name].tobytes())
            else:
                (self.path / name).unlink(missing_ok=True)
        self._run = config["run"]
        self._extended_from = document["run"].get("extended_from")
        return state

    def _resumed_document(self, config: Mapping[str, Any], step: int) -> dict[str, Any]:
        """Return the content of `config.yaml` of a run that goes on from `step`."""
        stored = read_config(self.path)
        longer = stored.model_copy(update={"steps": config["steps"]})
        check_same(self.path, longer, from_dict(config))
        before = origin(parse_document(read_text(self.path / CONFIG_FILE, MAX_YAML)))
        run = {**before, "resumed": [*before.get("resumed", ()), {"step": step, **config["run"]}]}
        if stored.steps != config["steps"]:
            run["extended_from"] = stored.steps
        return {"format": FORMAT, **config, "run": run}

    def checkpoint(self, state: State) -> None:
        """Store the state of the training, beside how long the CSV files are and the policies.

        Raises OSError or DstrlError where that fails; the former checkpoint is then still there.
        """
        logs.sync(self.path)
        policies = {
            name: np.frombuffer((self.path / name).read_bytes(), dtype=np.uint8)
            for name in POLICY_FILES
            if (self.path / name).is_file()
        }
        folder, lengths = self.path / CHECKPOINT_FOLDER, logs.positions(self.path)
        about = {
            "made_by": dict(self._run),
            "logs": lengths,
            "log_checksums": logs.checksums(self.path, lengths),
            "policies": policies,
        }
        write_state(folder, {**state, **about})

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint, if there is one, once the files that end the run are on the disk.

        Raises DstrlError or OSError where they cannot be brought there; it is then still there.
        """
        if not (self.path / CHECKPOINT_FOLDER).is_dir():
            return
        logs.sync(self.path)
        for name in (*POLICY_FILES, SUMMARY_FILE):
            if (self.path / name).is_file():
                sync_file(self.path / name)
        sync_folder(self.path)
        shutil.rmtree(self.path / CHECKPOINT_FOLDER)

    def progress(self, row: Mapping[str, Any]) -> None:
        """Append one evaluation's row; columns that `row` leaves out stay empty."""
        logs.append(self.path, "progress.csv", [row])

    def evaluation(
        self,
        step: int,
        returns: Sequence[float],
        lengths: Sequence[int],
        success: Sequence[float | None] | None = None,
    ) -> None:
        """Append the episodes of one evaluation, numbered from 0; what is None stays empty."""
        success = success or [None] * len(returns)
        names = ("return", "length", "success")
        rows = [
            {"step": step, "episode": episode, **dict(zip(names, cells, strict=True))}
            for episode, cells in enumerate(zip(returns, lengths, success, strict=True))
        ]
        logs.append(self.path, "eval.csv", rows)

    def episodes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append finished training episodes."""
        logs.append(self.path, "episodes.csv", rows)

    def topology(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the layers of one or several topology updates."""
        logs.append(self.path, "topology.csv", rows)

    def hashes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the digests of the networks at one evaluation."""
        logs.append(self.path, "hashes.csv", rows)

    def neurons(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append what the neurons of the networks do at one evaluation."""
        logs.append(self.path, "neurons.csv", rows)

    def policy(
        self, filename: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Write the policy file `filename` at once (arrays by name; see `runs.policy`)."""
        write(self.path / filename, dump(tensors, metadata))

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`; that of a run that was made longer says how long it was before."""
        if self._extended_from is not None:
            summary = {**summary, "extended_from": self._extended_from}
        write_summary(self.path, summary)

    def lock(self) -> RunFolder:
        """Lock the folder, which must exist. Raises InputError where another process holds it."""
        self._lock = lock.acquire(self.path)
        return self

    def close(self) -> None:
        """Release the folder; closing twice is harmless."""
        if self._lock is None:
            return
        lock.release(self.path, self._lock)
        self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_free(path: Path, config: RunConfig, overwrite: bool) -> None:
    """Raise InputError where the run `config` may not start in the folder `path`."""
    check_writable(path, config.out)
    lock.check_unused(path)
    _check_content(path, config, overwrite)


def refuse_links(path: Path, out: str | None) -> None:
    """Raise InputError where a link inside the results would lead the run elsewhere.

    The folder `out` itself, which the user names, may be one.
    """
    inside = [each for each in path.parents if out is not None and Path(out) in each.parents]
    for each in (*reversed(inside), path, path / lock.LOCK_FILE):
        refuse_link(each)


def check_writable(path: Path, out: str | None = None) -> None:
    """Raise InputError unless the folder is there to be read and written, or could be made.

    Nor may a link inside the results, `out`, lead it elsewhere.
    """
    there = path.absolute()
    try:
        refuse_links(path, out)
        while not _is_there(there):
            there = there.parent
    except (OSError, ValueError) as error:  # a name that is too long, links in a circle
        cause = getattr(error, "strerror", None) or error
        raise InputError(f"folder {path} cannot be made ({cause}): choose another --out") from None
    if not there.is_dir():
        cause = f"{there} is not a folder"
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        cause = f"no permission for {there}"
    else:
        return
    raise InputError(f"folder {path} cannot be written ({cause}): choose another --out")


def _is_there(path: Path) -> bool:
    """Whether there is such a file or folder. Raises OSError where its name alone is wrong."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    return True


def _check_content(path: Path, config: RunConfig, overwrite: bool) -> None:
    """Raise InputError where the folder holds what may not be replaced."""
    present = {item.name for item in path.iterdir()} if path.is_dir() else set()
    present -= {lock.LOCK_FILE} | _PARTS
    if not present:
        return
    if CONFIG_FILE not in present:
        raise InputError(
            f"folder {path} holds files that are no run of dstrl ({_some(present)}): "
            "choose another --out"
        )
    if overwrite:
        return
    check_same(path, read_config(path), config)
    resumable = has_state(path / CHECKPOINT_FOLDER)
    raise InputError(
        f"folder {path} already holds this run ({last_status(path)}): "
        f"{'--resume goes on with it, ' if resumable else ''}--overwrite starts it over"
    )


def _check_unchanged(path: Path, planned: Left | None, overwrite: bool = False) -> None:
    """Raise InputError where a locked folder does not hold what it did when its run was planned."""
    if planned is not None and left_in(path) != planned:
        remedy = "without --overwrite" if overwrite else "again"
        raise InputError(
            f"folder {path}: another dstrl has trained its run since it was planned; give the "
            f"command {remedy} to go on from there"
        )


def check_same(path: Path, stored: RunConfig, config: RunConfig) -> None:
    """Raise InputError where the run in the folder `path`, which is `stored`, is not `config`."""
    if differing := differences(stored, config):
        raise InputError(
            f"folder {path} holds another configuration; theirs -> yours: {'; '.join(differing)}. "
            "Choose another --out, or replace it with --overwrite"
        )


def read_config(path: Path) -> RunConfig:
    """Return the configuration that a run folder holds, also one that an older dstrl wrote.

    Raises InputError where it cannot be read.
    """
    try:
        return _parse_config(read_text(path / CONFIG_FILE, MAX_YAML))
    except (OSError, UnicodeDecodeError, InputError) as error:
        raise InputError(
            f"{path / CONFIG_FILE} cannot be read ({' '.join(str(error).split())}). "
            "Choose another --out, or replace the run with --overwrite"
        ) from error


def _parse_config(text: str) -> RunConfig:
    """Return the configuration in a `config.yaml`. Raises InputError, with the cause alone."""
    try:
        document = parse_document(text)
    except yaml.YAMLError as error:
        cause = "seems cut off" if seems_cut_off(text) else "is not valid YAML"
        raise InputError(f"{cause}: {error}") from error
    if not isinstance(document, dict):
        raise InputError("holds no keys" + (", seems cut off" if seems_cut_off(text) else ""))
    current = up_to_date(document)
    check_whole(current)
    return from_dict(current)


def _make_folder(path: Path) -> None:
    """Make the folder and its parents. Raises InputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"folder {path} cannot be made ({error.strerror}): choose another --out"
        ) from error


def _remove_run_files(path: Path) -> None:
    """Remove what a former run wrote.

    `config.yaml` goes last: a folder in which this was interrupted still counts as that of a run.
    """
    for name in (*_PARTS, *reversed(RUN_FILES)):
        target = path / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _some(names: Iterable[str]) -> str:
    """Return a few names, and that there are more."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
