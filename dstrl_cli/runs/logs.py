"""The CSV files of a run: they only grow, by whole rows.

Rows are written whole or not at all: where the disk is full, a file ends with the rows that it had.
A process that is killed in the middle of a write may leave a last line without its newline; readers
ignore it, and a resumed run cuts it off (`cut`).
"""

from __future__ import annotations

import csv
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dstrl_cli.config.readfile import MAX_TABLE, check_file
from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import NEVER_A_LINK, not_written, write

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
    "eval.csv": ("step", "episode", "return", "length", "success"),
    "episodes.csv": ("step", "episode", "return", "length", "terminated", "success"),
    "topology.csv": ("step", "network", "layer", "active", "dropped", "grown", "fraction"),
    "hashes.csv": ("step", "network", "weights", "masks"),
    "neurons.csv": (
        "step",
        "network",
        "layer",
        "units",
        "dormant",
        "no_input",
        "no_output",
        "max_fan_in",
        "paths",
        "rank",
        "saturated",
    ),
}


def create(folder: Path) -> None:
    """Write the header of every CSV file."""
    for name in COLUMNS:
        _create(folder / name)


def append(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows, all of them or none.

    Raises DstrlError, with the file as it was before, where they cannot be written.
    """
    columns = COLUMNS[name]
    data = b"".join(_csv_line([row.get(column) for column in columns]) for row in rows)
    if not data:
        return
    path = folder / name
    try:
        # Opened anew each time: a population of hundreds would run out of file handles.
        with _opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
            _write_whole(descriptor, data)
    except OSError as error:
        raise not_written(path, error) from error


def positions(folder: Path) -> dict[str, int]:
    """Return the length in bytes of every CSV file that the run has, for `cut`."""
    return {name: (folder / name).stat().st_size for name in COLUMNS if (folder / name).is_file()}


def sync(folder: Path) -> None:
    """Bring every CSV file to the disk. Raises DstrlError where that fails."""
    for name in positions(folder):
        try:
            with _opened(folder / name, os.O_WRONLY) as descriptor:
                os.fsync(descriptor)
        except OSError as error:
            raise not_written(folder / name, error) from error


def checksums(folder: Path, positions: Mapping[str, int]) -> dict[str, int]:
    """Return the CRC-32 of every CSV file up to its position."""
    return {name: _checksum(folder / name, position) for name, position in positions.items()}


def check(folder: Path, positions: Mapping[str, int], known: Mapping[str, int]) -> None:
    """Raise InputError where a CSV file is not what it was up to its position.

    That is where it is missing, is shorter, has no row that ends there, or has other rows.

    Args:
        folder: of the run.
        positions: what `positions` returned.
        known: what `checksums` returned then; of files that it lacks, the rows are not compared.
    """
    for name, position in positions.items():
        path = folder / name
        if cause := _lacking(path, position):
            raise InputError(
                f"{path} is damaged, the run cannot go on: {cause}. --overwrite starts it over"
            )
        if name in known and _checksum(path, position) != known[name]:
            raise InputError(
                f"{path} was altered, the run cannot go on: its rows are not those that it had at "
                "its checkpoint. --overwrite starts it over"
            )


def _checksum(path: Path, position: int) -> int:
    with path.open("rb") as file:
        return zlib.crc32(file.read(position))


def cut(folder: Path, positions: Mapping[str, int]) -> None:
    """Cut every CSV file to the length that it had at `positions`, after `check`.

    A file that `positions` does not know is one that the dstrl of then did not write: it starts
    here, with its header.
    """
    for name, position in positions.items():
        try:
            with _opened(folder / name, os.O_WRONLY) as descriptor:
                os.ftruncate(descriptor, position)
        except OSError as error:
            raise not_written(folder / name, error) from error
    for name in COLUMNS.keys() - positions.keys():
        _create(folder / name)


def _lacking(path: Path, position: int) -> str | None:
    """Return what a file lacks of its first `position` bytes, of whole rows; None: nothing."""
    try:
        check_file(path, MAX_TABLE)
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < position:
                return f"it has {size:,} bytes, its checkpoint was made at {position:,}"
            file.seek(max(position - 1, 0))
            return None if file.read(1) == b"\n" else f"no row ends at byte {position:,}"
    except OSError as error:
        return str(error.strerror)


def _create(path: Path) -> None:
    """Write a CSV file that holds its header."""
    write(path, _csv_line(COLUMNS[path.name]))


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file that is there, and is no link to a file elsewhere; give its descriptor."""
    descriptor = os.open(path, flags | NEVER_A_LINK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, data: bytes) -> None:
    """Append data to an open file; cut the file back to its former length where that fails."""
    before = os.fstat(descriptor).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except BaseException:
        os.ftruncate(descriptor, before)
        raise


def _csv_line(values: Iterable[Any]) -> bytes:
    """Return one CSV row; None is an empty cell, a truth value 0 or 1."""
    buffer = io.StringIO()
    cells = [int(value) if isinstance(value, bool) else value for value in values]
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()
