"""Tables turned around: a row for each environment or task, and the methods as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dstrl_cli.config.printable import printable
from dstrl_cli.report.bold import ALL as OVERALL
from dstrl_cli.report.bold import bold_cells
from dstrl_cli.report.columns import (
    MISSING,
    Column,
    Entry,
    Grid,
    env_columns,
    ordered_envs,
    overall_columns,
)
from dstrl_cli.report.table import Row, Section, Table

Line = tuple[str, str, list[Column]]
"""A row: an environment, its label, and its columns of one method."""


def turned_grids(table: Table, costs: bool) -> Iterator[Grid]:
    """Yield the sections as RLX's tables are: a row for each environment, methods as columns.

    With `costs` instead the sizes and FLOPs, of the methods for which they are published.
    """
    for section in table.sections:
        methods = sorted(section.rows, key=lambda row: _published_position(table, row))
        envs = ordered_envs(table, section)
        lines = [(env, printable(env), env_columns(table, section, env)) for env in envs]
        if costs:
            methods = [row for row in methods if _has_published_cost(table, row)]
        elif any(row.overall for row in section.rows):
            lines.append((OVERALL, OVERALL, overall_columns(table, section)))
        if methods:
            yield _turned(table, section, methods, lines, costs)


def _turned(
    table: Table, section: Section, methods: Sequence[Row], lines: Sequence[Line], costs: bool
) -> Grid:
    """Return a grid of methods beside one another: their values, or with `costs` these."""
    bold = bold_cells(section, table.look)
    kinds = [_kind(column) for column in lines[0][2] if column.cost == costs]
    groups = []
    for row in methods:
        names = [kind or row.label for kind in kinds]
        names[0] = f"{row.label} {kinds[0]}" if costs else names[0]
        groups.append(tuple(map(printable, names)))
    rows = []
    for env, label, columns in lines:
        by_kind = {_kind(column): column for column in columns}
        entries = []
        for row in methods:
            for kind in kinds:
                parts = by_kind[kind].parts(row) if kind in by_kind else None
                entries.append(Entry(parts or [MISSING], not kind and (row.label, env) in bold))
        rows.append((label, tuple(entries)))
    return Grid(printable(section.title), "environment", tuple(groups), tuple(rows))


def _kind(column: Column) -> str:
    """Return what a column shows of any environment; nothing stands for the metric itself."""
    return "" if column.bold_of is not None else column.heading


def _published_position(table: Table, row: Row) -> int:
    """Return the place of a method in the published table; one that is not there comes first."""
    entries = table.paper.entries if table.paper else ()
    names = list(dict.fromkeys(entry.method for entry in entries))
    found = [names.index(cell.paper.entry.method) for cell in row.cells.values() if cell.paper]
    return min(found, default=-1)


def _has_published_cost(table: Table, row: Row) -> bool:
    paper, matches = table.paper, [cell.paper for cell in row.cells.values() if cell.paper]
    return paper is not None and any(
        paper.cost(match, name) for match in matches for name in table.extra
    )


def task_grids(table: Table) -> Iterator[Grid]:
    """Yield a grid for each section and environment with several tasks: a row for each task."""
    for section in table.by_task:
        for env in section.envs:
            if env not in table.envs:  # a task
                continue
            tasks = [each for each in section.envs if each.startswith(f"{env}.task")]
            tasks.sort(key=_task_number)
            lines = [(env, "all tasks", env_columns(table, section, env))]
            lines += [
                (each, f"task {_task_number(each)}", env_columns(table, section, each))
                for each in tasks
            ]
            methods = [row for row in section.rows if env in row.cells]
            grid = _turned(table, section, methods, lines, costs=False)
            yield replace(grid, title=printable(f"{env}: {section.title}"), corner="task")


def _task_number(env: str) -> int:
    return int(env.rpartition(".task")[2])
