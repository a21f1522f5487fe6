"""Reads a CSV file of numbers that may be damaged, and says what had to be left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.config.readfile import MAX_TABLE
from dstrl_cli.report.archive import ArchivedPath, read_bytes

Report = Callable[[str, str], None]
"""Called with every damage: name of the file, cause."""

Columns = Mapping[str, NDArray[np.float64]]
"""The columns of a CSV file by name, each [rows]. No DataFrame: building one takes longer than
reading the file."""

LAST_LINE = "last line cut off, left out"
"""What is reported of a last line without its newline."""

LARGEST = 1e150
"""A larger number is damage: the sum of its square with others would be infinite."""

Check = Callable[[bytes], str | None]
"""Called with what a file holds; returns why it may not be used, None where it may."""


def read_csv(
    path: Path | ArchivedPath,
    report: Report,
    columns: Iterable[str],
    check: Check = lambda _: None,
) -> Columns | None:
    """Return the usable rows of a CSV file as numbers, or None where it cannot be used at all.

    A row is usable if every one of `columns` holds a number of at most `LARGEST`; a last line
    without its newline was cut off and is left out. Of rows with the same step and episode the last
    one counts. `report(name, cause)` is told of everything left out. Of a file that `check` objects
    to nothing is used.
    """
    wanted = list(columns)
    causes: list[str] = []
    try:
        content = read_bytes(path, MAX_TABLE)
        if cause := check(content):
            report(path.name, f"{cause}; not used")
            return None
        text = content.decode("utf-8", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        table = _parse_undamaged(text)
        if table is None:
            table, causes = _parse_damaged(text)
    except FileNotFoundError:
        report(path.name, "missing")
        return None
    except (OSError, ValueError) as error:  # pandas' ParserError is a ValueError
        report(path.name, f"unreadable: {first_line(error)}")
        return None
    absent = [name for name in wanted if name not in table]
    if absent:
        report(path.name, f"foreign header '{','.join(table)[:60]}': no column {', '.join(absent)}")
        return None
    usable = (np.abs([table[name] for name in wanted]) <= LARGEST).all(axis=0)  # NaN is not
    if not usable.all():
        first = int(np.argmin(usable))
        where = f"the first near line {first + 2}"
        if "return" in wanted and not np.isfinite(table["return"][first]):
            where += ", whose return is no finite number"
        causes.append(f"unusable rows left out: {(~usable).sum()}, {where}")
        table = {name: values[usable] for name, values in table.items()}
    for cause in causes:
        report(path.name, cause)
    return _without_repeated(table, [name for name in ("step", "episode") if name in wanted])


def _parse_undamaged(text: str) -> Columns | None:
    """Return the columns of a text in which every cell is a number, or None for any other text.

    Most files are like this, and NumPy reads them much faster than pandas.
    """
    header, newline, body = text.partition("\n")
    names = header.split(",")
    if not (newline and text.endswith("\n")) or "\n\n" in text or body.isspace():
        return None
    if len(set(names)) < len(names):
        return None
    if names[-1] == "success":  # empty where it is not known
        body = body.replace(",\n", ",nan\n")
    if not body:  # of which NumPy would warn
        return {name: np.empty(0) for name in names}
    try:
        table = np.loadtxt(body.split("\n")[:-1], delimiter=",", comments=None, ndmin=2)
    except ValueError:
        return None
    return dict(zip(names, table.T, strict=True)) if table.shape[1] == len(names) else None


def _parse_damaged(text: str) -> tuple[Columns, list[str]]:
    """Return the cells as numbers, NaN where they are none, and what had to be left out."""
    import pandas as pd  # only damaged files and files with empty cells need it

    causes = []
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        causes.append(LAST_LINE)
    if not text:
        raise ValueError("empty file")
    try:
        table = pd.read_csv(StringIO(text), dtype=str, index_col=False)
    except pd.errors.ParserError as error:
        causes.append(f"rows of another length left out: {first_line(error)}")
        table = pd.read_csv(StringIO(text), dtype=str, index_col=False, on_bad_lines="skip")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    return {str(name): numbers[name].to_numpy(dtype=float) for name in numbers}, causes


def _without_repeated(table: Columns, keys: Iterable[str]) -> Columns:
    """Return the columns with only the last of the rows that have the same values in `keys`."""
    chosen = [table[name] for name in keys]
    if _ascend(chosen):  # as a run writes them
        return table
    rows = list(zip(*(values.tolist() for values in chosen), strict=True))
    last = {row: number for number, row in enumerate(rows)}
    if len(last) == len(rows):
        return table
    kept = sorted(last.values())
    return {name: values[kept] for name, values in table.items()}


def _ascend(columns: Sequence[NDArray[np.float64]]) -> bool:
    """Return whether rows stand in strictly ascending order, the first column counting most."""
    rises = np.zeros(max(len(columns[0]) - 1, 0), dtype=bool)
    equal = ~rises
    for values in columns:
        steps = np.diff(values)
        rises |= equal & (steps > 0)
        equal &= steps == 0
    return bool(rises.all())


def first_line(error: Exception) -> str:
    """Return the message of an error as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
