"""Writes an archive of runs: their logs, without weights, in one file that is the same every time.

`topology.csv`, the largest log, is reduced to its last row of each network and layer.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report.archive import TOPOLOGY_LAST, check_sizes, is_plain
from dstrl_cli.report.csvfile import first_line
from dstrl_cli.report.identity import LAYOUT
from dstrl_cli.report.sources import find_runs, nothing_found
from dstrl_cli.runs.files import check_output, create, not_written, replacing
from dstrl_cli.runs.logs import COLUMNS
from dstrl_cli.runs.status import SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE

TOPOLOGY = "topology.csv"

KEPT = (CONFIG_FILE, SUMMARY_FILE, *(name for name in COLUMNS if name != TOPOLOGY))
"""The files that are archived as they are."""

_NO_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX, _MODE = 3, 0o644 << 16


@dataclass(frozen=True)
class Archived:
    """What was archived: the number of runs, bytes of the archive, folders and files left out."""

    runs: int
    size: int
    unreadable: Sequence[str]


def archive(results: Path, out: Path, overwrite: bool = False) -> Archived:
    """Write the runs of a results folder to the archive `out`.

    Raises:
        InputError: before anything is written, where there is no run, `out` exists and is not to
            be replaced, or the logs are larger than an archive's may be.
        DstrlError: a log cannot be read, or the archive cannot be written.
    """
    check_output(out, "--out")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out} exists already: choose another, or replace it: --overwrite")
    unreadable: list[str] = []
    folders = find_runs(
        results, lambda path, error: unreadable.append(f"{path}: {first_line(error)}")
    )
    if not folders:
        raise nothing_found(results)
    found = _once(results, folders, unreadable)
    unreadable += [f"{file}: not a plain file" for _, file in _others(found)]
    sizes = {f"{name}/{file.name}": file.stat().st_size for name, file in _files(found)}
    if odd := next((name for name in sizes if not is_plain(name)), None):
        raise InputError(f"results {results}: {odd!r} cannot be a name in an archive: rename it")
    check_sizes({name: size for name, size in sizes.items() if not name.endswith(TOPOLOGY)}, out)
    try:
        with replacing(out) as temporary, create(temporary) as file:
            _write(file, found)
    except OSError as error:
        raise not_written(out, error) from error
    return Archived(len(found), out.stat().st_size, unreadable)


def last_rows(text: str) -> str:
    """Return the header of a `topology.csv` and its last whole row of each network and layer."""
    header, *lines = text.split("\n")[:-1] or [""]  # what follows the last newline is no whole row
    names = header.split(",")
    last = {}
    for line in lines:
        row = dict(zip(names, line.split(","), strict=False))
        if len(row) == len(names):
            last[row.get("network"), row.get("layer")] = line
    return "".join(f"{line}\n" for line in (header, *last.values()))


def _once(results: Path, folders: Iterable[Path], refused: list[str]) -> list[tuple[str, Path]]:
    """Return the folders with their names in the archive, by name.

    Of several with one name the first stays, one that is no link if there is any.
    """
    found: dict[str, Path] = {}
    for folder in sorted(folders, key=lambda each: (each != each.resolve(), each)):
        name = _name(results, folder)
        if name in found:
            refused.append(f"{folder}: it leads to {found[name]}, which is in the archive")
        else:
            found[name] = folder
    return sorted(found.items())


def _name(results: Path, folder: Path) -> str:
    """Return the path of a run in the archive: by itself it says what the run is, if it can."""
    if match := LAYOUT.search(folder.resolve().as_posix()):
        return match.group()
    return folder.name if folder == results else folder.relative_to(results).as_posix()


def _files(found: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield every file to be archived, with the name of its run."""
    return ((name, file) for name, file in _logs(found) if _is_plain_file(file))


def _others(found: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Yield what has the name of a file to be archived and is none.

    A link is not followed: it may lead to a file that nobody means to publish.
    """
    return ((name, file) for name, file in _logs(found) if not _is_plain_file(file))


def _logs(found: Sequence[tuple[str, Path]]) -> Iterator[tuple[str, Path]]:
    for name, folder in found:
        for file in sorted(folder / each for each in (*KEPT, TOPOLOGY)):
            if file.exists() or file.is_symlink():
                yield name, file


def _is_plain_file(file: Path) -> bool:
    return file.is_file() and not file.is_symlink()


def _write(opened: BinaryIO, found: Sequence[tuple[str, Path]]) -> None:
    """Write the archive; times, rights and order do not depend on where it is written."""
    with zipfile.ZipFile(opened, "w") as target:
        for name, file in _files(found):
            content, own = _content(file), file.name
            if own == TOPOLOGY:
                content, own = last_rows(content.decode(errors="replace")).encode(), TOPOLOGY_LAST
            info = zipfile.ZipInfo(f"{name}/{own}", _NO_TIME)
            info.create_system, info.external_attr = _UNIX, _MODE
            info.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(info, content, compresslevel=9)


def _content(file: Path) -> bytes:
    """Return what a log holds. Raises DstrlError where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DstrlError(f"{file} cannot be read: {first_line(error)}") from error
