"""Tables: runs gathered into cells, rows and sections (`table`); `render` prints them.

What one cell averages is in `cells`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath

from dstrl_cli.config.labels import parse_sparsity_label
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.report import critics, notes
from dstrl_cli.report.cells import Key, Member, make_cell
from dstrl_cli.report.comparing import Asked
from dstrl_cli.report.comparing import compare as compare_methods
from dstrl_cli.report.extra import EXTRA_COLUMNS, NEURONS
from dstrl_cli.report.labels import MethodLabel, method_label
from dstrl_cli.report.metrics import Metric, common_metric, parse, stored_metric
from dstrl_cli.report.overall import with_improvements, with_overall
from dstrl_cli.report.papers import Published, published
from dstrl_cli.report.realised import one_network
from dstrl_cli.report.runs import Damage, LoggedRun, Results, load, problems
from dstrl_cli.report.scaling import NORMALIZED, normalize
from dstrl_cli.report.statistics import CENTERS
from dstrl_cli.report.table import DENSE, OWN, Cell, Look, Row, Section, Table, task_env
from dstrl_cli.report.words import counted

METRIC_FILES = ("eval.csv", "episodes.csv")
"""The files that metrics read."""

SPREADS = ("std", "sem", "interval")
BOLD = ("best", "within")
NOTHING = "none"
"""Says that nothing is normalised, or no column added, though the published table has it."""

PLAIN = Look()


def table(
    results: Path | str,
    *,
    metric: str | None = None,
    center: str = "mean",
    spread: str | None = None,
    normalize: str | None = None,
    bold: str | None = None,
    against: str | None = None,
    compare: str | None = None,
    columns: Sequence[str] | None = None,
    by_task: bool = False,
    test: Asked | None = None,
    only: Collection[Path] | None = None,
) -> Table:
    """Read the runs of a results folder and gather them into a table.

    Args:
        results: the folder; also a single run, or any folder between the two.
        metric: such as `last-steps:125000`, `last-evals:10`, `all-episodes`, `lca`, `final`. None
            takes the one that the runs' own `config.yaml` names, if all name the same. If none
            names any, it takes that of the published table; otherwise the default, which a note
            then says.
        center: `mean`, `median` or `iqm`.
        spread: `std`, `sem` or `interval`; None takes `std` for a mean, else `interval`.
        normalize: `dense`, `random-dense` or `none`; None normalises where `compare` does.
        bold: `best` or `within`.
        against: the method over which the probability of improvement is shown.
        compare: a published table to show beside, such as `xu2024:I`.
        columns: `params`, `flops` and `neurons` add their columns, `none` adds nothing; None adds
            those that the published table has.
        by_task: whether the tasks of an environment are shown beside their average.
        test: compares the methods.
        only: the run folders to show; None shows all.

    Only files that the table needs are opened, so that damage in others is not told. Raises
    InputError where a name is unknown or nothing in `results` is usable.
    """
    chosen = None if metric is None else parse(metric)
    paper = published(compare) if compare else None
    if paper is not None and columns is None:
        columns = [name for name in EXTRA_COLUMNS if paper.has_cost(name)]
    extra = tuple(dict.fromkeys(columns or ()))
    if extra == (NOTHING,):
        extra = ()
    if NOTHING in extra:
        raise InputError(f"columns: {','.join(extra)}: {NOTHING} stands alone")
    for column in extra:
        if column not in EXTRA_COLUMNS:
            raise InputError(suggest("column", column, [*EXTRA_COLUMNS, NOTHING]))
    own = None if normalize == NOTHING else normalize
    look = _look(center, spread, own, bold, against, by_task)
    found = load(results, only)
    if paper is not None:
        if chosen is None and not any(map(stored_metric, found.runs)):
            chosen = parse(paper.metric)
        if normalize is None and paper.unit == "%" and _can_be_normalized(found):
            look = replace(look, normalize="dense")
    return build(found, chosen, look, paper, extra, test)


def _can_be_normalized(results: Results) -> bool:
    """Whether there are finished dense runs to show the others in percent of."""
    return any(run.finished and run.identity.sparsity == DENSE for run in results.runs)


def _look(
    center: str,
    spread: str | None,
    normalize: str | None,
    bold: str | None,
    against: str | None,
    by_task: bool,
) -> Look:
    """Return what is shown of cells; raises InputError where a name is unknown."""
    spread = spread or ("std" if center == "mean" else "interval")
    for kind, name, valid in (
        ("center", center, CENTERS),
        ("spread", spread, SPREADS),
        ("normalisation", normalize, NORMALIZED),
        ("bold", bold, BOLD),
    ):
        if name is not None and name not in valid:
            raise InputError(suggest(kind, name, valid))
    if spread == "sem" and center != "mean":
        raise InputError(
            f"--spread sem and --center {center}: it is the standard error of the mean; give "
            "--center mean, or --spread interval"
        )
    return Look(center, spread, normalize, bold, against, by_task)


def build(
    results: Results,
    metric: Metric | None = None,
    look: Look = PLAIN,
    paper: Published | None = None,
    extra: tuple[str, ...] = (),
    test: Asked | None = None,
) -> Table:
    """Gather runs that are already read; raises InputError where the metric is nowhere defined."""
    chosen, why = (metric, None) if metric else common_metric(results.runs)
    shown, empty = _gather(results.runs, chosen)
    if not shown:
        raise InputError(_no_value(chosen, results))
    tasks = _by_task(shown) if look.by_task else {}
    both = {**shown, **tasks}
    every = {key: make_cell(key, members, look, paper) for key, members in both.items()}
    used = {key: _shown(members, every[key]) for key, members in both.items()}
    inside = critics.of_runs(chain(*used.values())) if NEURONS in extra else {}
    every = critics.with_neurons(every, used, inside) if inside else every
    logged = {key: every[key] for key in shown}
    labels = method_labels(results.runs)
    methods = {method for _, _, method, _ in logged}
    if look.against is not None and look.against not in methods:
        raise InputError(suggest("method of --against", look.against, methods))
    every, not_scaled = normalize(every, results.runs, look, chosen)
    cells = {key: cell for key, cell in every.items() if key in shown}
    with_tasks = {(*key[:3], key[3].rpartition(".task")[0]) for key in tasks}
    of_tasks = {key: cell for key, cell in every.items() if key in tasks or key in with_tasks}
    sections = tuple(with_overall(each, look) for each in arrange(cells, labels))
    return Table(
        metric=chosen,
        look=look,
        extra=extra,
        sections=sections,
        paper=paper,
        unfinished=tuple(run for run in results.runs if not run.finished),
        damaged=(*results.damaged, *_without_value(empty, chosen, results.damaged)),
        notes=(
            *([] if why is None else [why]),
            *not_scaled,
            *(["no environment here has several tasks"] if look.by_task and not tasks else []),
            *notes.differences(cells),
            *notes.comparability({key: used[key] for key in cells}),
            *notes.missing_seeds(sections),
            *one_network(shown),
            *notes.cost_notes(extra, cells.values()),
            *critics.notes(inside),
            *notes.paper_notes(chosen, paper, cells.values()),
            *notes.file_notes(results.runs),
        ),
        unchecked=len(notes.unchecked(results.runs)),
        tests=compare_methods(arrange(logged, labels), test) if test else None,
        by_task=tuple(with_improvements(each, look) for each in arrange(of_tasks, labels)),
    )


def _gather(
    runs: Iterable[LoggedRun], metric: Metric
) -> tuple[dict[Key, list[Member]], list[LoggedRun]]:
    """Return the runs of each cell that has a value, and finished runs that logged nothing."""
    gathered: dict[Key, list[Member]] = defaultdict(list)
    empty: list[LoggedRun] = []
    for run in runs:
        value, who = metric.compute(run), run.identity
        if value is None and run.finished:
            empty.append(run)
        else:
            gathered[who.algo, who.sparsity, who.method, who.env].append((run, value))
    return {
        key: each for key, each in gathered.items() if any(v is not None for _, v in each)
    }, empty


def _by_task(shown: Mapping[Key, list[Member]]) -> dict[Key, list[Member]]:
    """Return the runs of each task, as those of an environment, where there are several tasks."""
    found: dict[Key, list[Member]] = defaultdict(list)
    tasks: dict[tuple[str, str], set[int]] = defaultdict(set)
    for (algo, _, _, env), members in shown.items():
        tasks[algo, env] |= {run.identity.task for run, _ in members}
    for (algo, sparsity, method, env), members in shown.items():
        for run, value in members if len(tasks[algo, env]) > 1 else ():
            found[algo, sparsity, method, task_env(env, run.identity.task)].append((run, value))
    return {key: each for key, each in found.items() if any(value for _, value in each)}


def _shown(members: Iterable[Member], cell: Cell) -> list[LoggedRun]:
    """Return the runs whose values a cell shows."""
    return [run for run, value in members if value and run.identity.seed in cell.values]


def _no_value(metric: Metric, results: Results) -> str:
    """Return the message for runs of which none has a value."""
    counts = Counter(run.status for run in results.runs)
    several = len(results.runs) > 1
    statuses = ", ".join(f"{n} {status}" if several else status for status, n in counts.items())
    which = ", the first" if several else ""
    damage = f"; {problems(results.damaged)}" if results.damaged else ""
    return (
        f"metric '{metric.name}' takes at least one {metric.needs}, and no run has one that can be "
        f"used: {counted(len(results.runs), 'run')} ({statuses}){which}: "
        f"{results.runs[0].path}{damage}"
    )


def _without_value(
    runs: Iterable[LoggedRun], metric: Metric, damaged: Iterable[Damage]
) -> Iterator[Damage]:
    """Yield the finished runs that logged nothing, but for those whose log is known as damaged."""
    known = {item.path for item in damaged}
    for run in runs:
        if not any(PurePosixPath(run.path, name).as_posix() in known for name in METRIC_FILES):
            yield Damage(run.path, f"finished, but nothing is logged for {metric.name}")


# --- sections and rows ----------------------------------------------------------------------------


Labels = Mapping[str, MethodLabel]


def method_labels(runs: Iterable[LoggedRun]) -> dict[str, MethodLabel]:
    """Return the label of every method, in the order of rows.

    Where runs of one method have different labels, it is that of the first.
    """
    firsts: dict[str, LoggedRun] = {}
    for run in runs:
        firsts.setdefault(run.identity.method, run)
    labels = told_apart({name: method_label(name, run.config) for name, run in firsts.items()})
    return dict(sorted(labels.items(), key=lambda item: (item[1].order, item[0])))


def told_apart(labels: Labels) -> Labels:
    """Return the labels of methods, with the name of the method where several have the same."""
    counts = Counter(each.label for each in labels.values())
    return {
        method: replace(each, label=f"{each.label} ({method})") if counts[each.label] > 1 else each
        for method, each in labels.items()
    }


def arrange(cells: Mapping[Key, Cell], labels: Labels) -> tuple[Section, ...]:
    """Return a section per algorithm and sparsity, each with the algorithm's dense rows."""
    return tuple(
        Section(algo, sparsity, _rows(cells, labels, algo, sparsity, own), own)
        for algo, sparsity, own in divided((algo, each, env) for algo, each, _, env in cells)
    )


def divided(found: Iterable[tuple[str, str, str]]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the algorithm and sparsity of each section, and the sparsities of its environments.

    `found` has algorithms, sparsities and environments of runs. Where every environment has a
    sparsity of its own, an algorithm has one section of all, `OWN`; elsewhere no environment has.
    """
    by_algo: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for algo, sparsity, env in found:
        by_algo[algo].add((sparsity, env))
    for algo, each in sorted(by_algo.items(), key=lambda item: (item[0] != "td3", item[0])):
        if own := _own_sparsities(each):
            yield algo, OWN, own
            continue
        sparse = {sparsity for sparsity, _ in each} - {DENSE}
        for sparsity in sorted(sparse, key=parse_sparsity_label) or [DENSE]:
            yield algo, sparsity, {}


def _own_sparsities(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the one sparsity of each environment, from the sparsities and environments of runs.

    Nothing where an environment has several, or all have the same.
    """
    by_env: dict[str, set[str]] = defaultdict(set)
    for sparsity, env in found:
        if sparsity != DENSE:
            by_env[env].add(sparsity)
    if any(len(labels) > 1 for labels in by_env.values()):
        return {}
    own = {env: labels.pop() for env, labels in by_env.items()}
    return own if len(set(own.values())) > 1 else {}


def row_label(label: MethodLabel, sparsity: str, sparsities: Collection[str]) -> str:
    """Return the text of a method's row at one of the sparsities that it has in a section.

    A method that also ran without sparsity has two rows, which must be told apart.
    """
    return f"{label.label} (dense)" if sparsity == DENSE and len(sparsities) > 1 else label.label


def _rows(
    cells: Mapping[Key, Cell],
    labels: Labels,
    algo: str,
    sparsity: str,
    sparsities: Mapping[str, str],
) -> tuple[Row, ...]:
    found: dict[tuple[str, str], dict[str, Cell]] = defaultdict(dict)
    for (name, own, method, env), cell in sorted(cells.items(), key=lambda item: item[0]):
        own = sparsity if own == sparsities.get(env) else own
        if name == algo and own in (sparsity, DENSE):
            found[method, own][env] = cell
    rows = []
    for (method, own), by_env in found.items():
        label = labels[method]
        text = row_label(label, own, {each for name, each in found if name == method})
        rows.append(
            (label.order, method, own != DENSE, Row(method, text, by_env, dense=own == DENSE))
        )
    return tuple(row for *_, row in sorted(rows, key=lambda item: item[:3]))
