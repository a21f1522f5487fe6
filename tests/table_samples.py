"""Run folders with hand-worked numbers for tables, and what is read from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from report_samples import write_run

from dstrl_cli.report import tables
from dstrl_cli.report.table import Cell, Table

SUMMARY = {
    "parameters": {"sok_active": 20, "sok_dense": 200, "rlx_active": 30, "rlx_dense": 400},
    "flops": {"train_total": 5e9, "train_ratio": 0.25, "test": 40, "test_ratio": 0.125},
}


def seeds(root: Path, path: str, finals: list[float], **kwargs: Any) -> None:
    """Write runs `root/path/seed<k>` whose last evaluation is `finals[k]`."""
    for seed, final in enumerate(finals):
        write_run(root, f"{path}/seed{seed}", {0: [-99.0], 1000: [final]}, **kwargs)


def cell(table: Table, method: str, env: str, section: int = 0) -> Cell:
    (row,) = [row for row in table.sections[section].rows if row.method == method]
    return row.cells[env]


def final(root: Path, **kwargs: Any) -> Table:
    return tables.table(root, metric="final", **kwargs)
