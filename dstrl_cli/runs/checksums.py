"""Checksums of a run's files: `files` of its summary, and whether the files are still the same.

Only files that are there are compared: archives leave the policies and `topology.csv` out, and runs
of older versions have no checksums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstrl_cli.config.readfile import MAX_POLICY, MAX_TABLE, read_bytes
from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import as_json
from dstrl_cli.runs.logs import COLUMNS
from dstrl_cli.runs.policy import POLICY_FILES
from dstrl_cli.runs.status import SUMMARY_FILE

KEY = "files"
"""Where a summary holds the checksums."""


ALWAYS_THERE = ("progress.csv", "eval.csv", "episodes.csv")
"""Logs that archives hold, too."""


def of_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return rows and SHA-256 of each CSV file in a run's folder, and SHA-256 of each policy."""
    found: dict[str, dict[str, Any]] = {}
    for name in (*COLUMNS, *POLICY_FILES):
        with suppress(OSError):
            data = _content(folder / name)
            rows = {"rows": _rows(data)} if name in COLUMNS else {}
            found[name] = rows | {"sha256": hashlib.sha256(data).hexdigest()}
    return found


def with_own(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary, which holds the checksums of the other files, with one of itself."""
    files = {**_known(summary), SUMMARY_FILE: {"sha256": _own(summary)}}
    return {**summary, KEY: files}


def own_difference(summary: Mapping[str, Any]) -> str | None:
    """Return in words that a summary is not what the run wrote; None where it is, or unchecked."""
    known = _known(summary).get(SUMMARY_FILE)
    if known is None or known.get("sha256") == _own(summary):
        return None
    return "not as the run wrote it: its checksum is not the one that it holds"


def _own(summary: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a summary without the checksum of itself."""
    files = {name: known for name, known in _known(summary).items() if name != SUMMARY_FILE}
    return hashlib.sha256(as_json({**summary, KEY: files})).hexdigest()


def difference(name: str, data: bytes, summary: Mapping[str, Any]) -> str | None:
    """Return in words how the content of a file is not what the run wrote.

    None where it is, or where the summary has no checksum of it.
    """
    known = _known(summary).get(name)
    if known is None or hashlib.sha256(data).hexdigest() == known.get("sha256"):
        return None
    wrote, rows = known.get("rows"), _rows(data)
    if isinstance(wrote, int) and rows != wrote:
        return f"not as the run wrote it: it has {rows:,} of {wrote:,} rows"
    return "not as the run wrote it: its checksum is not the one in summary.json"


def are_known(summary: Mapping[str, Any]) -> bool:
    """Whether a summary holds checksums; those of older versions hold none."""
    return bool(_known(summary))


def differing_logs(folder: Path, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (name, in words) of each CSV file that is not what the run wrote."""
    for name in [each for each in COLUMNS if each in _known(summary)]:
        try:
            cause = difference(name, _content(folder / name), summary)
        except FileNotFoundError:
            cause = "missing" if name in ALWAYS_THERE else None
        except OSError as error:
            cause = f"not as the run wrote it: it cannot be read ({error.strerror})"
        if cause is not None:
            yield name, cause


def check_policy(file: Path, summary: Mapping[str, Any]) -> None:
    """Raise InputError where a policy file is not the one that its run wrote."""
    if file.name not in _known(summary):
        return
    try:
        cause = difference(file.name, _content(file), summary)
    except OSError as error:
        raise InputError(f"policy file {file} cannot be read: {error.strerror}") from error
    if cause:
        raise InputError(
            f"policy file {file} is {cause}. Train the run again (--overwrite), or move the file "
            "out of the run's folder to use it as it is"
        )


def _content(file: Path) -> bytes:
    """Return what a file holds. Raises OSError, also for a pipe or a device."""
    return read_bytes(file, MAX_POLICY if file.name in POLICY_FILES else MAX_TABLE)


def _known(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the usable entries of a summary, which may come from others."""
    files = summary.get(KEY)
    if not isinstance(files, Mapping):
        return {}
    return {name: entry for name, entry in files.items() if isinstance(entry, Mapping)}


def _rows(data: bytes) -> int:
    """Return the rows of a CSV file below its header."""
    return max(data.count(b"\n") - 1, 0)
