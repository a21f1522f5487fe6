"""The folder of one run: what is written while it trains, and who may write it.

Whole files are replaced atomically, CSV files only grow, by whole rows, and a lock lets one process
at a time write to a folder. It imports neither training nor torch; `report` reads the results.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dstrl_cli.config.identity import differences
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.config.stored import FORMAT, check_whole, parse_document, seems_cut_off, up_to_date
from dstrl_cli.errors import InputError
from dstrl_cli.runs.policy import BEST_FILE, INITIAL_FILE, POLICY_FILE, dump

try:
    import fcntl
except ImportError:  # Windows: folders are then not locked
    fcntl = None  # type: ignore[assignment]

CONFIG_FILE = "config.yaml"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
CHECKPOINT_FOLDER = "checkpoint"
COLUMNS: dict[str, tuple[str, ...]] = {
    "progress.csv": (
        "step",
        "time_s",
        "steps_per_s",
        "eval_return_mean",
        "eval_return_std",
        "eval_length_mean",
        "train_return_mean",
        "critic_loss",
        "actor_loss",
        "q_mean",
        "alpha",
        "nstep",
        "buffer_size",
        "policy_distance",
        "actor_active",
        "critic_active",
    ),
    "eval.csv": ("step", "episode", "return", "length"),
    "episodes.csv": ("step", "episode", "return", "length", "terminated"),
    "topology.csv": ("step", "network", "layer", "active", "dropped", "grown", "fraction"),
}
RUN_FILES = (
    *(CONFIG_FILE, SUMMARY_FILE, INITIAL_FILE, POLICY_FILE, BEST_FILE),
    *COLUMNS,
    CHECKPOINT_FOLDER,
)


class RunFolder:
    """The open folder of one run; a context manager that releases the folder at its end."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    def create(self, config: Mapping[str, Any], overwrite: bool = False) -> RunFolder:
        """Make the folder with `config.yaml` and the headers of every CSV file, and lock it.

        config: the whole resolved configuration, with where it runs under `run:` (`provenance`);
        the number of the format is written before it.
        Raises InputError, having changed nothing, where the folder is in use, holds files that are
        not a run's, or holds a run and `overwrite` is not set.
        """
        _make_folder(self.path)
        self.lock()
        try:
            _check_content(self.path, from_dict(config), overwrite)
        except InputError:
            self.close()
            raise
        _remove_run_files(self.path)
        _write(self.path / CONFIG_FILE, _yaml({"format": FORMAT, **config}).encode())
        for name, columns in COLUMNS.items():
            _write(self.path / name, _csv_line(columns))
        return self

    def progress(self, row: Mapping[str, Any]) -> None:
        """Append one evaluation's row; columns that `row` leaves out stay empty."""
        self._append("progress.csv", [row])

    def evaluation(self, step: int, returns: Sequence[float], lengths: Sequence[int]) -> None:
        """Append the episodes of one evaluation, numbered from 0."""
        rows = [
            {"step": step, "episode": episode, "return": value, "length": length}
            for episode, (value, length) in enumerate(zip(returns, lengths, strict=True))
        ]
        self._append("eval.csv", rows)

    def episodes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append finished training episodes."""
        self._append("episodes.csv", rows)

    def topology(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append the layers of one or several topology updates."""
        self._append("topology.csv", rows)

    def policy(
        self, filename: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        """Write the policy file `filename` at once (arrays by name; see `runs.policy`)."""
        _write(self.path / filename, dump(tensors, metadata))

    def summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`."""
        write_summary(self.path, summary)

    def lock(self) -> RunFolder:
        """Lock the folder, which must exist. Raises InputError where another process holds it."""
        self._lock = _lock(self.path)
        return self

    def close(self) -> None:
        """Release the folder; closing twice is harmless."""
        if self._lock is None:
            return
        (self.path / LOCK_FILE).unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows in one write, so that a reader or a kill never sees half a line."""
        columns = COLUMNS[name]
        data = b"".join(_csv_line([row.get(column) for column in columns]) for row in rows)
        if data:
            # Opened anew each time: a population of hundreds would run out of file handles.
            with (self.path / name).open("ab", buffering=0) as file:
                file.write(data)


def check_free(path: Path, config: RunConfig, overwrite: bool) -> None:
    """Raise InputError where the run `config` may not start in the folder `path`."""
    check_unused(path)
    check_writable(path)
    _check_content(path, config, overwrite)


def check_unused(path: Path) -> None:
    """Raise InputError where another process holds the folder."""
    if in_use(path):
        raise InputError(_IN_USE.format(path))


def check_writable(path: Path) -> None:
    """Raise InputError unless the folder is there to be read and written, or could be made."""
    there = path.absolute()
    while not os.path.exists(there):  # noqa: PTH110  # Path.exists may raise: no permission
        there = there.parent
    if not there.is_dir():
        cause = f"{there} is not a folder"
    elif not os.access(there, os.R_OK | os.W_OK | os.X_OK):
        cause = f"no permission for {there}"
    else:
        return
    raise InputError(f"folder {path} cannot be written ({cause}): choose another --out")


_IN_USE = "folder {} is in use by another dstrl: wait for it, or choose another --out"


def _check_content(path: Path, config: RunConfig, overwrite: bool) -> None:
    """Raise InputError where the folder holds what may not be replaced."""
    present = {item.name for item in path.iterdir()} - {LOCK_FILE} if path.is_dir() else set()
    if not present:
        return
    if CONFIG_FILE not in present:
        raise InputError(
            f"folder {path} holds files that are no run of dstrl ({_some(present)}): "
            "choose another --out"
        )
    if overwrite:
        return
    differing = differences(read_config(path), config)
    if differing:
        raise InputError(
            f"folder {path} holds another configuration; theirs -> yours: {'; '.join(differing)}. "
            "Choose another --out, or replace it with --overwrite"
        )
    raise InputError(
        f"folder {path} already holds this run ({_last_status(path)}): --overwrite starts it over"
    )


def read_config(path: Path) -> RunConfig:
    """Return the configuration that a run folder holds, also one that an older dstrl wrote.

    Raises InputError where it cannot be read.
    """
    try:
        return _parse_config((path / CONFIG_FILE).read_text(encoding="utf-8"))
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


def read_summary(path: Path) -> dict[str, Any] | None:
    """Return the summary that the run in `path` left, or None where it left none to read."""
    try:
        summary = json.loads((path / SUMMARY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def read_status(path: Path) -> str | None:
    """Return the status of the run in `path`: that of its summary, else `running` or `unfinished`.

    None where `path` holds no run.
    """
    if not _is_file(path / CONFIG_FILE):
        return None
    return "running" if in_use(path) else _last_status(path)


def _last_status(path: Path) -> str:
    return str((read_summary(path) or {}).get("status", "unfinished"))


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json` of the run folder `path`; numbers that JSON cannot hold become null."""
    text = json.dumps(_finite(summary), indent=2, default=_plain) + "\n"
    _write(path / SUMMARY_FILE, text.encode())


def mark_ended(path: Path, status: str, error: str | None) -> dict[str, Any]:
    """Return the summary of a run that ended without finishing; write it if the run did not.

    A summary that the run itself wrote with this status is kept. Nothing is written where there is
    no run, or where another process holds the folder.
    """
    written = read_summary(path)
    if written is not None and written.get("status") == status:
        return written
    summary = {"status": status, "error": error}
    if (path / CONFIG_FILE).is_file():
        with suppress(InputError), RunFolder(path).lock() as folder:
            folder.summary(summary)
    return summary


def in_use(path: Path) -> bool:
    """Whether a live process holds the folder; never creates the lock."""
    if fcntl is None or not _is_file(path / LOCK_FILE):
        return False
    try:
        descriptor = os.open(path / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_file(path: Path) -> bool:
    """Whether there is such a file that can be seen: `Path.is_file` may raise."""
    return os.path.isfile(path)  # noqa: PTH113


def _make_folder(path: Path) -> None:
    """Make the folder and its parents. Raises InputError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"folder {path} cannot be made ({error.strerror}): choose another --out"
        ) from error


def _lock(path: Path) -> int:
    """Return a descriptor that holds the folder's lock. Raises InputError where it is taken."""
    file = path / LOCK_FILE
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise InputError(
                f"folder {path} cannot be written ({error.strerror}): choose another --out"
            ) from error
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have removed the file between our opening and locking it.
            if os.fstat(descriptor).st_ino == file.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise InputError(_IN_USE.format(path)) from error
        os.close(descriptor)


def _remove_run_files(path: Path) -> None:
    """Remove what a former run wrote.

    `config.yaml` goes last: a folder in which this was interrupted still counts as that of a run.
    """
    for name in reversed(RUN_FILES):
        target = path / name
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Put a whole file in place at once."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)


def _csv_line(values: Iterable[Any]) -> bytes:
    """Return one CSV row; None is an empty cell, a truth value 0 or 1."""
    buffer = io.StringIO()
    cells = [int(value) if isinstance(value, bool) else value for value in values]
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()


def _yaml(document: Mapping[str, Any]) -> str:
    """Return YAML in the order given, tuples as lists."""
    return yaml.safe_dump(_lists(document), sort_keys=False, allow_unicode=True, width=100)


def _lists(value: Any) -> Any:
    """Return `value` with plain dictionaries and lists throughout."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_lists(item) for item in value]
    return value


def _finite(value: Any) -> Any:
    """Return `value` with None in place of NaN and infinities: JSON has neither."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


def _plain(value: Any) -> Any:
    """Return a NumPy scalar as a plain number, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


def _some(names: Iterable[str]) -> str:
    """Return a few names, and that there are more."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
