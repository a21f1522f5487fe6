"""Reads the CSV files that have a row per layer: `topology.csv`, `neurons.csv`.

They name networks in words, where the other logs hold numbers alone.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.config.readfile import MAX_TABLE
from dstrl_cli.report.archive import ArchivedPath, read_bytes
from dstrl_cli.report.csvfile import LARGEST, LAST_LINE, Check, Report, first_line

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LayerRows:
    """The rows of one file, in its order.

    Attributes:
        network: the network that each row is about (`actor`, `critic1`, ...).
        columns: the other columns by name, [rows] each; NaN in empty cells.
    """

    network: NDArray[np.str_]
    columns: Mapping[str, Array]

    def __len__(self) -> int:
        return len(self.network)

    def __getitem__(self, name: str) -> Array:
        """Return a column; NaN throughout where the file has none of this name."""
        return self.columns.get(name, np.full(len(self), np.nan))

    def where(self, chosen: NDArray[np.bool_]) -> LayerRows:
        """Return some of the rows."""
        return LayerRows(
            self.network[chosen], {name: values[chosen] for name, values in self.columns.items()}
        )


NO_ROWS = LayerRows(np.empty(0, dtype=np.str_), {})


def read_layers(
    path: Path | ArchivedPath,
    report: Report,
    check: Check = lambda _: None,
    *,
    last_step: bool = False,
) -> LayerRows:
    """Return the usable rows of a file: those whose step and layer are numbers.

    With `last_step` only the rows that have the step of the last one, which is much faster.
    `report(name, cause)` is told of everything left out; of a missing file nothing is said, since
    older runs and archives do not have them. Of a file that `check` objects to nothing is used.
    """
    try:
        content = read_bytes(path, MAX_TABLE)
    except FileNotFoundError:
        return NO_ROWS
    except OSError as error:
        report(path.name, f"unreadable: {first_line(error)}")
        return NO_ROWS
    if cause := check(content):
        report(path.name, f"{cause}; not used")
        return NO_ROWS
    text = content.decode("utf-8", errors="replace")
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        report(path.name, LAST_LINE)
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        report(path.name, f"unreadable: {first_line(error)}")
        return NO_ROWS
    header, body = (rows[0], rows[1:]) if rows else ([], [])
    if not {"step", "network", "layer"} <= set(header):
        report(path.name, f"foreign header '{','.join(header)[:60]}': no column network")
        return NO_ROWS
    if last_step:
        body = _with_last_step(body, header.index("step"))
    return _usable(path.name, header, body, report)


def _with_last_step(body: Sequence[list[str]], at: int) -> list[list[str]]:
    """Return the last rows that have the same step, which is in column `at`."""
    steps = [row[at] if at < len(row) else "" for row in body]
    return [row for row, step in zip(body, steps, strict=True) if step == steps[-1]]


def _usable(
    name: str, header: Sequence[str], body: Sequence[Sequence[str]], report: Report
) -> LayerRows:
    at = header.index("network")
    numbers = [column for column in header if column != "network"]
    whole = [row for row in body if len(row) == len(header)]
    cells = [[_number(cell) for k, cell in enumerate(row) if k != at] for row in whole]
    table = np.array(cells, dtype=float).reshape(len(whole), len(numbers))
    keys = table[:, [numbers.index("step"), numbers.index("layer")]]
    usable = np.isfinite(keys).all(axis=1) & ~(np.abs(table) > LARGEST).any(axis=1)
    if lost := len(body) - int(usable.sum()):
        report(name, f"unusable rows left out: {lost}")
    networks = np.array([row[at] for row in whole], dtype=np.str_).reshape(len(whole))
    rows = LayerRows(networks, dict(zip(numbers, table.T, strict=True)))
    return rows.where(usable)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
