"""Every run of a chapter: how it ended, its settings, and the versions it ran with.

What all runs share stands once, what the runs of one method share once for it, and beside a run
only what it has of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dstrl_cli.page.gather import Chapter
from dstrl_cli.page.html import Markup, element, joined
from dstrl_cli.page.tables import pairs, scrolling
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.tables import method_labels
from dstrl_cli.report.words import counted

LONGEST = 400
"""Characters of a value; a longer one is cut."""

SHOWN_APART = frozenset({"seed", "env.task"})
"""Keys that have a column of their own."""

Keys = Mapping[str, str]


def keys(run: LoggedRun) -> dict[str, str]:
    """Return the settings of a run and, under `run.`, where and with what it ran."""
    every = {**run.config, **{f"run.{name}": value for name, value in run.origin.items()}}
    return {key: _shown(value) for key, value in every.items() if key not in SHOWN_APART}


def _shown(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def common(every: Sequence[Keys]) -> dict[str, str]:
    """Return the keys, with their values, that all runs have alike."""
    first = every[0]
    return {k: v for k, v in first.items() if all(other.get(k) == v for other in every[1:])}


def without(own: Keys, others: Keys) -> dict[str, str]:
    """Return the keys that others do not have with the same value."""
    return {key: value for key, value in own.items() if others.get(key) != value}


def settings_and_runs(chapter: Chapter) -> Markup:
    """Return the settings of a chapter's runs, and a table of the runs."""
    labels = method_labels(chapter.runs)
    of_run = {run.path: keys(run) for run in chapter.runs}
    shared = common(list(of_run.values()))
    groups: dict[tuple[str, str, str, str], list[LoggedRun]] = defaultdict(list)
    for run in chapter.runs:
        who = run.identity
        groups[who.env, who.algo, who.method, who.sparsity].append(run)
    several = len(chapter.runs) > 1
    name = f"what all {len(chapter.runs)} runs have alike" if several else "settings of the run"
    parts = [_details(f"{name} ({counted(len(shared), 'key')})", shared)]
    rows = []
    for (env, algo, method, sparsity), runs in groups.items():
        alike = common([of_run[run.path] for run in runs])
        own = without(alike, shared)
        if several and own:
            title = f"{env}, {algo.upper()} {labels[method].label} {sparsity}"
            parts.append(_details(f"only of {title} ({counted(len(runs), 'run')})", own))
        rows += [_row(run, labels[method].label, without(of_run[run.path], alike)) for run in runs]
    heads = ("environment", "algorithm", "method", "sparsity", "seed", "status", "steps")
    more = ("last return", "time", "folder and own settings")
    columns = (*heads, *more)
    table = element(
        "table",
        element("thead", element("tr", *(element("th", each, scope="col") for each in columns))),
        element("tbody", *rows),
        class_="runs",
    )
    search = element(
        "label",
        "filter runs ",
        element("input", type="search", class_="filter", placeholder="rlx2 seed3 failed"),
        class_="search",
    )
    return joined(
        [search, scrolling(table, "runs"), element("h4", "Settings and versions"), *parts]
    )


def _details(title: str, found: Keys) -> Markup:
    return element("details", element("summary", title), pairs(iter(sorted(found.items()))))


def _row(run: LoggedRun, label: str, own: Keys) -> Markup:
    """Return the row of a run."""
    who, summary = run.identity, run.summary
    result = summary.get("final_return")
    mean = result.get("mean") if isinstance(result, Mapping) else None
    task = f", task {who.task}" if who.task else ""
    folder = _details(run.path, own) if own else run.path
    cells: Iterable[Any] = (
        who.env + task,
        who.algo.upper(),
        label,
        who.sparsity,
        who.seed,
        element("span", run.status, class_="" if run.finished else "bad"),
        _number(summary.get("steps"), ","),
        _number(mean, ",.5g"),
        _time(summary.get("wall_time_s")),
        folder,
    )
    return element("tr", *(element("td", cell) for cell in cells))


def _number(value: Any, form: str) -> str:
    there = isinstance(value, int | float) and not isinstance(value, bool)
    return format(value, form) if there else "–"


def _time(seconds: Any) -> str:
    """Return seconds as hours, minutes and seconds."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
