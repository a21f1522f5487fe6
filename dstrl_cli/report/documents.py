"""A table for programs: CSV with one row per cell (or per comparison), JSON with everything."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from dstrl_cli.config.printable import printable
from dstrl_cli.report.bold import ALL, bold_cells
from dstrl_cli.report.comparing import BETTER
from dstrl_cli.report.extra import EXTRA_COLUMNS, NEURONS
from dstrl_cli.report.improvement import Improvement
from dstrl_cli.report.intervals import Interval
from dstrl_cli.report.marks import ordered
from dstrl_cli.report.table import (
    DENSE,
    Cell,
    Comparison,
    Comparisons,
    Overall,
    Row,
    Section,
    Table,
)

FORMULA_SIGNS = ("=", "+", "-", "@")

# --- CSV ------------------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """Return one row per cell, dense ones once per section; of a test its comparisons instead.

    A method over all environments has a row whose environment is `all environments`.
    """
    if table.tests is not None:
        found = [_flat_comparison(each, table.tests) for each in table.tests.found]
    else:
        found = [row for section in table.sections for row in _flat_section(section, table)]
        tasks = [row for section in table.by_task for row in _flat_section(section, table)]
        found += [row for row in tasks if row["env"] not in table.envs]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: harmless(value) for name, value in row.items()} for row in found)
    return text.getvalue()


def _flat_section(section: Section, table: Table) -> Iterator[dict[str, Any]]:
    bold = bold_cells(section, table.look)
    for row in section.rows:
        for env, cell in row.cells.items():
            where = _where(section, row, section.sparsity_in(env))
            flat = where | {"label": row.label, "env": env} | _flat_cell(cell, table)
            yield flat | _flat_look(table, cell.improvement, (row.label, env) in bold)
    for row in section.rows:
        if row.overall is not None:
            where = _where(section, row, section.sparsity)
            flat = where | {"label": row.label, "env": ALL} | _flat_overall(row.overall, table)
            yield flat | _flat_look(table, row.overall.improvement, (row.label, ALL) in bold)


def _where(section: Section, row: Row, sparsity: str) -> dict[str, Any]:
    """Return which section a row stands in, and which method at which sparsity it has."""
    own = DENSE if row.dense else sparsity
    return {
        "algo": section.algo,
        "section": section.sparsity,
        "sparsity": own,
        "method": row.method,
    }


def harmless(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: text that looks like one is quoted."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA_SIGNS) else text


def _flat_interval(interval: Interval | None) -> dict[str, Any]:
    return {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "interval": interval.method if interval else None,
    }


def _flat_cell(cell: Cell, table: Table) -> dict[str, Any]:
    paper = cell.paper
    flat: dict[str, Any] = {
        "metric": table.metric.name,
        "center": cell.center,
        "mean": cell.mean,
        "std": cell.std,
        "sem": cell.sem,
        **_flat_interval(cell.interval),
        "n": cell.n,
        "seeds": " ".join(map(str, cell.seeds)),
        "marks": " ".join(ordered(cell.marks)),
    }
    if table.paper is not None:
        flat |= {
            "paper_mean": paper.entry.mean if paper else None,
            "paper_std": paper.entry.std if paper else None,
            "paper_marks": " ".join(ordered(paper.marks)) if paper else None,
        }
    for name in table.extra:
        flat |= EXTRA_COLUMNS[name].numbers(cell)
    return flat


def _flat_overall(overall: Overall, table: Table) -> dict[str, Any]:
    return {
        "metric": table.metric.name,
        "center": overall.center,
        **_flat_interval(overall.interval),
        "n": min(overall.counts),
    }


def _flat_look(table: Table, improvement: Improvement | None, bold: bool) -> dict[str, Any]:
    """Return the columns that only some tables have."""
    flat: dict[str, Any] = {}
    if table.look.against is not None:
        low, high = (improvement.interval if improvement else None) or (None, None)
        flat |= {
            "against": table.look.against,
            "improvement": improvement.value if improvement else None,
            "improvement_low": low,
            "improvement_high": high,
        }
    return flat | ({"bold": bold} if table.look.bold else {})


def _flat_comparison(comparison: Comparison, tests: Comparisons) -> dict[str, Any]:
    """Return the fields of a comparison, for CSV and JSON."""
    decision = comparison.decision
    return {
        "algo": comparison.section.algo,
        "sparsity": comparison.section.sparsity_in(comparison.env),
        "env": comparison.env,
        "first": comparison.first.method,
        "second": comparison.second.method,
        "better": BETTER[decision.sign],
        "difference": None if math.isnan(decision.difference) else decision.difference,
        "p": decision.p,
        "first_n": decision.seeds[0],
        "second_n": decision.seeds[1],
        "waiting": comparison in tests.waiting,
        "given_up": comparison in tests.given_up,
        "alpha": tests.plan.alpha,
    }


# --- JSON -----------------------------------------------------------------------------------------


def as_json(table: Table) -> str:
    """Return everything that is known of a table."""
    document = {
        "metric": table.metric.name,
        "description": table.metric.description,
        **asdict(table.look),
        "compare": table.paper.name if table.paper else None,
        "envs": list(table.envs),
        "sections": [_json_section(section, table) for section in table.sections],
        "by_task": [_json_section(section, table) for section in table.by_task],
        "marks": {mark.value: mark.meaning for mark in table.marks},
        "unfinished": [{"path": run.path, "status": run.status} for run in table.unfinished],
        "damaged": [asdict(damage) for damage in table.damaged],
        "unchecked": table.unchecked,
        "notes": list(table.notes),
    }
    if table.tests is not None:
        document["tests"] = _json_tests(table.tests)
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _json_section(section: Section, table: Table) -> Mapping[str, Any]:
    bold = bold_cells(section, table.look)
    return {
        "algo": section.algo,
        "sparsity": section.sparsity,
        "sparsities": {env: section.sparsity_in(env) for env in section.envs},
        "rows": [_json_row(row, bold, table.extra) for row in section.rows],
    }


def _json_row(row: Row, bold: set[tuple[str, str]], extra: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "method": row.method,
        "label": row.label,
        "dense": row.dense,
        "cells": {
            env: _json_cell(cell, extra) | {"bold": (row.label, env) in bold}
            for env, cell in row.cells.items()
        },
    }
    if row.overall is not None:
        found["overall"] = {
            "center": row.overall.center,
            **_json_interval(row.overall.interval),
            "n": list(row.overall.counts),
            "improvement": _json_improvement(row.overall.improvement),
            "bold": (row.label, ALL) in bold,
        }
    return found


def _json_cell(cell: Cell, extra: Collection[str]) -> dict[str, Any]:
    paper = cell.paper
    found = {
        "center": cell.center,
        "mean": cell.mean,
        "std": cell.std,
        "sem": cell.sem,
        **_json_interval(cell.interval),
        "n": cell.n,
        "seeds": list(cell.seeds),
        "values": list(cell.values.values()),
        "left_out": list(cell.left_out),
        "tasks": list(cell.tasks),
        "marks": list(ordered(cell.marks)),
        "differing": list(cell.differing),
        "improvement": _json_improvement(cell.improvement),
        "paper": asdict(paper.entry) | {"marks": list(ordered(paper.marks))} if paper else None,
        "cost": asdict(cell.cost) if cell.cost else None,
    }
    if NEURONS in extra:
        found["neurons"] = asdict(cell.neurons) if cell.neurons else None
    return found


def _json_interval(interval: Interval | None) -> dict[str, Any]:
    return {
        "interval": [interval.low, interval.high] if interval else None,
        "interval_method": interval.method if interval else None,
    }


def _json_improvement(found: Improvement | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "probability": found.value,
        "interval": list(found.interval) if found.interval else None,
    }


def _json_tests(tests: Comparisons) -> dict[str, Any]:
    return {
        **asdict(tests.plan),
        "looks": tests.looks,
        "absent": list(tests.absent),
        "comparisons": [_flat_comparison(each, tests) for each in tests.found],
    }
