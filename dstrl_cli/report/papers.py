"""The papers' published numbers, to be shown beside ours; nothing is compared or judged here.

The data are transcribed tables in long format (`data/paper_results.csv`) and the names that the
papers give to methods (`data/published_methods.yaml`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import yaml

from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report.marks import Mark

METRICS: dict[str, tuple[str, str]] = {
    "return_last125k_steps": ("last-steps:125000", ""),
    "avg_return_all_episodes": ("all-episodes", ""),
    "return_last10_evals": ("last-evals:10", ""),
    "LCA_x5000": ("lca", ""),
    "perf_pct_of_dense": ("last-evals:30", "%"),
}
"""Published metric -> the metric of ours that it is, and its unit: RLX prints percent of Dense."""

FIGURE = "fig"
"""How the names of tables begin whose numbers were read off a figure by eye."""

COSTS: dict[str, tuple[str, str]] = {
    "size_ratio": ("params", "RLX"),
    "train_flops_ratio": ("flops", "train"),
    "test_flops_ratio": ("flops", "test"),
}
"""Published ratio to the dense network -> the further column beside it, and its name there."""

AVERAGE = "Average"
"""What stands for all environments in published tables."""

DENSE = "s0"

_VERSION = re.compile(r"-v\d+(?=$|\.noise)")


@dataclass(frozen=True)
class Entry:
    """One published number; `std` is None where the paper gives none."""

    algo: str
    env: str
    method: str
    sparsity: str
    mean: float
    std: float | None


@dataclass(frozen=True)
class Match:
    """A published number beside one of ours, and how their settings differ."""

    entry: Entry
    marks: frozenset[Mark]


@dataclass(frozen=True)
class Published:
    """One table of one paper."""

    source: str
    table: str
    metric: str
    unit: str
    entries: tuple[Entry, ...]
    costs: tuple[tuple[str, Entry], ...] = ()  # a key of COSTS, and its number

    @property
    def name(self) -> str:
        """How `--compare` names it."""
        return f"{self.source}:{self.table}"

    def find(self, algo: str, method: str, env: str, sparsity: str) -> Match | None:
        """Return the number published for a run's algorithm, method, environment and sparsity.

        Environments match by task: another version is marked, and so is another sparsity where
        the method has one. `sparsity` is a folder's label, such as `s0.95` or `a0.96-c0.88`.
        """
        names = _method_patterns().get(self.source, {})
        candidates = [
            entry
            for entry in self.entries
            if entry.algo.lower() == algo.lower()
            and task_name(entry.env) == task_name(env)
            and any(fnmatchcase(method, pattern) for pattern in names.get(entry.method, ()))
        ]
        if not candidates:
            return None
        # A table over several versions of a task: the one asked for, else the first.
        entry = min(candidates, key=lambda entry: entry.env != env)
        differing = {
            Mark.VERSION: entry.env != env,
            Mark.READ_OFF: self.table.startswith(FIGURE),
            Mark.SPARSITY: parse_sparsity_label(entry.sparsity) != parse_sparsity_label(sparsity),
        }
        return Match(entry, frozenset(mark for mark, differs in differing.items() if differs))

    def average(self, algo: str, method: str) -> Match | None:
        """Return the published average over the environments of the table."""
        found = self.find(algo, method, AVERAGE, DENSE)
        return None if found is None else replace(found, marks=frozenset())

    @property
    def has_average(self) -> bool:
        """Whether the table has averages over its environments."""
        return any(entry.env == AVERAGE for entry in self.entries)

    @property
    def methods_are_columns(self) -> bool:
        """Whether the table has a row for each environment: those of RLX do."""
        return self.unit == "%"

    def position(self, env: str) -> tuple[int, str]:
        """Return what sorts environments as the table does, others after them by name."""
        names = list(dict.fromkeys(task_name(entry.env) for entry in self.entries))
        name = task_name(env)
        return (names.index(name) if name in names else len(names), env)

    def cost(self, match: Match, column: str) -> list[str]:
        """Return the sizes or FLOPs, by the name of their column, published with a number."""
        mine = match.entry
        return [
            f"{COSTS[metric][1]} {entry.mean:.3f}x"
            for metric, entry in self.costs
            if COSTS[metric][0] == column
            and (entry.algo, entry.env, entry.method) == (mine.algo, mine.env, mine.method)
        ]

    def has_cost(self, column: str) -> bool:
        """Whether the table has sizes or FLOPs, by the name of their column."""
        return any(COSTS[metric][0] == column for metric, _ in self.costs)


def task_name(env: str) -> str:
    """Return an environment's name without its version: `Ant` of `Ant-v2`.

    The two 2-D navigation tasks are different tasks, not versions of one.
    """
    return env if env.startswith("2DNav") else _VERSION.sub("", env)


def published(name: str) -> Published:
    """Return a published table by `SOURCE:TABLE`, such as `xu2024:I`.

    Raises InputError where there is none of that name.
    """
    tables = _tables()
    if name not in tables:
        raise InputError(suggest("published table", name, tables))
    return tables[name]


@cache
def _tables() -> dict[str, Published]:
    """Return the tables of returns, with the sizes and FLOPs that stand in them."""
    tables: dict[str, Published] = {}
    text = files("dstrl_cli.report").joinpath("data/paper_results.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    for row in (row for row in rows if row["metric"] in METRICS):
        name = f"{row['source']}:{row['table']}"
        metric, unit = METRICS[row["metric"]]
        known = tables[name].entries if name in tables else ()
        tables[name] = Published(row["source"], row["table"], metric, unit, (*known, _entry(row)))
    for row in (row for row in rows if row["metric"] in COSTS):
        name = f"{row['source']}:{row['table']}"
        if name in tables:
            costs = (*tables[name].costs, (row["metric"], _entry(row)))
            tables[name] = replace(tables[name], costs=costs)
    return tables


def _entry(row: dict[str, str]) -> Entry:
    return Entry(
        algo=row["algo"],
        env=row["env"],
        method=row["method"],
        sparsity=row["sparsity"],
        mean=float(row["mean"]),
        std=float(row["std"]) if row["std"] else None,
    )


@cache
def _method_patterns() -> dict[str, dict[str, Iterable[str]]]:
    text = files("dstrl_cli.report").joinpath("data/published_methods.yaml").read_text("utf-8")
    patterns: dict[str, dict[str, Iterable[str]]] = yaml.safe_load(text)
    return patterns
