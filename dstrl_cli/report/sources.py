"""Finds the runs of a results folder or of an archive.

Runs lie at a fixed depth, `<env>/<algo>-<method>/<sparsity>/seed<k>`; what lies deeper belongs to
another results folder and is not mixed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from dstrl_cli.errors import InputError
from dstrl_cli.report.archive import ArchivedPath, open_archive, runs_in
from dstrl_cli.report.identity import LAYOUT, LEVELS
from dstrl_cli.runs.status import SUMMARY_FILE
from dstrl_cli.runs.summary import CONFIG_FILE

MARKER_FILES = (CONFIG_FILE, SUMMARY_FILE, "eval.csv")
"""A folder with any of these is taken for a run's."""

ARCHIVE = "runs.zip"
"""The archive of a folder that keeps a study."""

MAX_NAMED = 5
"""Folders that a message names."""

Place = Path | ArchivedPath
"""A file or folder, on disk or in an archive."""

Unreadable = Callable[[Path, OSError], None]
"""Called with a folder that cannot be read, and why."""


def open_results(path: Path) -> Place:
    """Return the results folder, or the root of the archive, that lies at `path`.

    A folder without runs that holds an archive named `runs.zip` stands for this archive.

    Raises InputError for an archive that cannot be read or is refused.
    """
    there = os.path.isfile(path)  # noqa: PTH113  # Path.is_file may raise: a name too long
    if there:
        return open_archive(path)
    kept = path / ARCHIVE
    alone = os.path.isfile(kept) and not find_runs(path, lambda *_: None)  # noqa: PTH113
    return open_archive(kept) if alone else path


def runs_at(root: Place, unreadable: Unreadable) -> Sequence[Place]:
    """Return the run folders of a results folder, as `find_runs` does, or of an archive: all."""
    if isinstance(root, ArchivedPath):
        return runs_in(root, MARKER_FILES)
    return find_runs(root, unreadable)


def find_runs(root: Path, unreadable: Unreadable) -> list[Path]:
    """Return the run folders of the results folder `root`, in a fixed order.

    `root` may also be a run, or any of the folders between results and a run: its path says which.

    Raises InputError where there is no such folder.
    """
    if not os.path.isdir(root):  # noqa: PTH112  # Path.is_dir may raise: a name too long
        kind = "is not a folder" if os.path.exists(root) else "does not exist"  # noqa: PTH110
        raise InputError(f"results folder {root} {kind}: give the --out folder of earlier runs")
    if _is_run(root):
        return [root]
    above = root.resolve()
    return [
        folder
        for depth, folder in _walk(root, LEVELS, unreadable)
        if depth == LEVELS or LAYOUT.search((above / folder.relative_to(root)).as_posix())
    ]


def nothing_found(root: Place) -> InputError:
    """Return the error for a place without runs; it names those below it that have some."""
    if isinstance(root, ArchivedPath):
        return InputError(f"archive {root} holds no runs: give one that dstrl archive wrote")
    deeper = [*_results_folders_below(root), *archives_below(root)]
    if not deeper:
        return InputError(
            f"results folder {root} holds no runs (no {CONFIG_FILE} in "
            "ENV/ALGO-METHOD/SPARSITY/SEED below it): give the --out folder of earlier runs"
        )
    named = ", ".join(str(folder) for folder in deeper[:MAX_NAMED])
    more = f" and {len(deeper) - MAX_NAMED} more" if len(deeper) > MAX_NAMED else ""
    return InputError(
        f"results folder {root} holds no runs in ENV/ALGO-METHOD/SPARSITY/SEED below it, but runs "
        f"lie elsewhere below it: give one of these instead: {named}{more}"
    )


def deeper_results(root: Path) -> list[Path]:
    """Return the results folders below another one whose runs that one does not count as its own.

    Their runs lie deeper than `LEVELS`, or by their paths belong to such a folder.
    """
    own = set(find_runs(root, lambda *_: None))
    found: dict[Path, None] = {}
    for depth, run in _walk(root, None, lambda *_: None):
        if run not in own and depth > LEVELS and LAYOUT.search(run.as_posix()):
            found[run.parents[LEVELS - 1]] = None
    return list(found)


def archives_below(root: Path) -> list[Path]:
    """Return the files below a folder that are named like archives, but for those in runs."""
    found: list[Path] = []
    for folder, inside, names in os.walk(root):
        if not set(MARKER_FILES).isdisjoint(names):
            inside.clear()  # a run
            continue
        found += [Path(folder, name) for name in names if name.endswith(".zip")]
    return sorted(found)


def _results_folders_below(root: Path) -> list[Path]:
    """Return the folders below `root` that could be given instead, each once."""
    found: dict[Path, None] = {}
    for depth, run in _walk(root, None, lambda *_: None):
        in_layout = depth > LEVELS and LAYOUT.search(run.as_posix())
        found[run.parents[LEVELS - 1] if in_layout else run] = None
    return list(found)


def _walk(root: Path, levels: int | None, unreadable: Unreadable) -> Iterator[tuple[int, Path]]:
    """Yield depth and path of the run folders below `root`, at most `levels` deep.

    Nothing inside a run is searched. A link to a folder above itself is not followed.
    """
    stack: list[tuple[int, Path, tuple[Path, ...]]] = [(0, root, ())]
    while stack:
        depth, folder, above = stack.pop()
        try:
            with os.scandir(folder) as entries:
                content = {entry.name: entry for entry in entries}
            if depth and any(name in content for name in MARKER_FILES):
                yield depth, folder
                continue
            if depth == levels:
                continue
            inside = sorted(name for name, entry in content.items() if entry.is_dir())
            linked = [name for name in inside if content[name].is_symlink()]
            real = folder.resolve(strict=True)
            loops = {name for name in linked if (folder / name).resolve() in (*above, real)}
        except OSError as error:
            unreadable(folder, error)
            continue
        children = [folder / name for name in inside if name not in loops]
        stack += [(depth + 1, child, (*above, real)) for child in reversed(children)]


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKER_FILES)
