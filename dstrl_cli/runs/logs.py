"""The CSV files of a run: they only grow, by whole rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dstrl_cli.runs import files

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


def create(folder: Path) -> None:
    """Write the header of every CSV file."""
    for name, columns in COLUMNS.items():
        files.write(folder / name, _csv_line(columns))


def append(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows in one write, so that a reader or a kill never sees half a line."""
    columns = COLUMNS[name]
    data = b"".join(_csv_line([row.get(column) for column in columns]) for row in rows)
    if data:
        files.append(folder / name, data)


def _csv_line(values: Iterable[Any]) -> bytes:
    """Return one CSV row; None is an empty cell, a truth value 0 or 1."""
    buffer = io.StringIO()
    cells = [int(value) if isinstance(value, bool) else value for value in values]
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()
