"""What is said below a table: how runs differ that stand side by side, and what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dstrl_cli.report.cells import Key
from dstrl_cli.report.metrics import Metric
from dstrl_cli.report.papers import Published
from dstrl_cli.report.runs import LoggedRun
from dstrl_cli.report.table import Cell, Section
from dstrl_cli.report.words import counted
from dstrl_cli.runs.repair import REPAIRED

MAX_VALUES = 5
"""Values of a differing key that a note lists."""

MAX_COUNTED = 4
"""Different versions, commits or numbers of steps that a note counts."""

ORIGINS = {
    "versions.dstrl": "versions of dstrl",
    "git_commit": "commits of dstrl",
    "versions.mujoco": "versions of MuJoCo",
    "versions.gymnasium": "versions of Gymnasium",
    "versions.torch": "versions of PyTorch",
}
"""Keys of a run's origin that are compared, and what they are called."""


def differences(cells: Mapping[Key, Cell]) -> Iterator[str]:
    """Yield in which keys the runs of one cell differ."""
    for (algo, sparsity, method, env), cell in sorted(cells.items(), key=lambda item: item[0]):
        if cell.differing:
            keys = ", ".join(f"{key} ({_some(found)})" for key, found in cell.differing.items())
            yield f"{env}/{algo}-{method}/{sparsity}: runs differ in {keys}"


def _some(values: Sequence[Any]) -> str:
    shown = [str(value) for value in values[:MAX_VALUES]]
    return ", ".join([*shown, "..."] if len(values) > MAX_VALUES else shown)


def cost_notes(extra: Collection[str], cells: Iterable[Cell]) -> Iterator[str]:
    """Yield what is to be known of the sizes and FLOPs, where they are shown."""
    if "params" in extra and any(cell.cost for cell in cells):
        yield (
            "parameters: active weights of the actor and two critics (SOK: Sokar et al. 2022), and "
            "of their targets too (RLX: Tan et al. 2023); in brackets their share of dense ones"
        )
    if "flops" in extra and any(cell.cost and cell.cost.notably_more for cell in cells):
        yield (
            "FLOPs: 'full' adds the gradients of inactive connections that growing by gradient "
            "needs; the papers' formulas ('train') leave them out"
        )


def paper_notes(metric: Metric, paper: Published | None, cells: Iterable[Cell]) -> Iterator[str]:
    """Yield how the published numbers differ in kind from those beside them."""
    if paper is None:
        return
    if not any(cell.paper for cell in cells):
        yield f"{paper.name} has no number for any of these runs"
    elif paper.metric != metric.name:
        yield f"{paper.name} publishes {paper.metric}, this table shows {metric.name}"
    if paper.unit == "%":
        yield f"{paper.name} publishes percent of the dense return"


def unchecked(runs: Iterable[LoggedRun]) -> list[LoggedRun]:
    """Return the finished runs whose files cannot be compared with what the runs wrote."""
    return [run for run in runs if run.finished and not run.has_checksums]


def file_notes(runs: Sequence[LoggedRun]) -> Iterator[str]:
    """Yield what is to be known of the runs' files, where not all runs are alike in it.

    Results that are old as a whole have no checksums; that is not said of every table of them.
    """
    finished = sum(run.finished for run in runs)
    without = len(unchecked(runs))
    if 0 < without < finished:
        yield f"unchecked: {without} of {counted(finished, 'finished run')} (no checksums)"
    if repaired := sum(REPAIRED in run.summary for run in runs):
        yield (
            f"{counted(repaired, 'run')} lost summary.json; the other files show that training "
            "finished"
        )


def comparability(runs: Mapping[Key, Sequence[LoggedRun]]) -> Iterator[str]:
    """Yield in what the runs of a table differ that should not: steps, versions, commits.

    Args:
        runs: those that each cell shows. Differences within a cell are told by `differences`.
    """
    shown = [run for each in runs.values() for run in each]
    budgets = {frozenset(_budget(run) for run in each) for each in runs.values()}
    if len(budgets) > 1:
        yield f"runs of different length: {_counts(map(_budget, shown))}"
    for key, words in ORIGINS.items():
        found = [str(run.origin[key])[:12] for run in shown if run.origin.get(key)]
        if len(set(found)) > 1:
            yield f"runs of different {words}: {_counts(found)}"


def _budget(run: LoggedRun) -> str:
    steps, episodes = run.config.get("steps"), run.config.get("episodes")
    text = f"{steps:,} steps" if isinstance(steps, int) else "unknown steps"
    return f"{text} or {episodes:,} episodes" if isinstance(episodes, int) else text


def _counts(found: Iterable[str]) -> str:
    ordered = Counter(found).most_common()
    shown = [f"{name} ({counted(count, 'run')})" for name, count in ordered[:MAX_COUNTED]]
    return ", ".join([*shown, "..."] if len(ordered) > MAX_COUNTED else shown)


def missing_seeds(sections: Iterable[Section]) -> Iterator[str]:
    """Yield which seeds and tasks rows lack that others of their section have.

    Unfinished ones are marked already.
    """
    lacking = dict.fromkeys(line for section in sections for line in lacking_seeds(section))
    yield from list(lacking)[:MAX_VALUES]
    if len(lacking) > MAX_VALUES:
        yield f"{len(lacking) - MAX_VALUES} more lack seeds that others have"


def lacking_seeds(section: Section) -> Iterator[str]:
    """Yield which seeds and which tasks each row of a section lacks."""
    for env in section.envs:
        cells = {row.label: row.cells[env] for row in section.rows if env in row.cells}
        seeds = {seed for cell in cells.values() for seed in cell.seeds}
        for label, cell in cells.items():
            if missing := sorted(seeds - set(cell.seeds) - set(cell.left_out)):
                yield f"{env}: {label} has no seed {_some(missing)}, others have"
        tasks = {task for cell in cells.values() for task in cell.tasks}
        for label, cell in cells.items():
            if missing := sorted(tasks - set(cell.tasks)):
                yield (
                    f"{env}: {label} has no task {_some(missing)}, others have: their values and "
                    "their comparisons are of different tasks"
                )
