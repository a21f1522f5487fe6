"""A sweep that adds seeds until its comparisons are decided: which runs come next.

Seeds come in rounds. After each one all open comparisons are looked at together
(`report.permutation`), and only the methods of those that stay open get the seeds of the next. The
plan is fixed before the first look and kept in the results folder (`study_file`): what is decided
follows from it and from the runs, so that a study that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from dstrl_cli.config.identity import env_name
from dstrl_cli.config.keys import flatten
from dstrl_cli.config.metrics import DEFAULT_METRIC
from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.presets import SweepPreset
from dstrl_cli.errors import DstrlError, InputError, suggest
from dstrl_cli.report import comparing, rounds
from dstrl_cli.report.comparing import Asked, CellName
from dstrl_cli.report.labels import MethodLabel, method_label
from dstrl_cli.report.metrics import Metric, parse
from dstrl_cli.report.table import Comparison, Comparisons
from dstrl_cli.report.words import counted
from dstrl_cli.runs.status import DIVERGED
from dstrl_cli.sweep.request import RunRequest, wanted_runs
from dstrl_cli.sweep.study_file import Record, StudyFile
from dstrl_cli.training.run import Outcome, Run

Train = Callable[[Sequence[Run], str], tuple[Sequence[Outcome], bool]]
"""Trains what is left to do of some runs, under a heading; returns how runs ended, and whether
there was anything to do."""


@dataclass(frozen=True)
class Study:
    """The runs of a sweep with rounds.

    Attributes:
        test: the plan and the pairs.
        metric: of the scores.
        others: the runs of all other methods, which keep the seeds of the sweep.
        members: the runs of each cell by seed, of all rounds.
        labels: of the methods.
        file: what is kept of the study.
    """

    test: Asked
    metric: Metric
    others: tuple[Run, ...]
    members: Mapping[CellName, Mapping[int, Sequence[Run]]]
    labels: Mapping[str, MethodLabel]
    file: StudyFile

    @cached_property
    def closed(self) -> set[CellName]:
        """The cells that get no more seeds, since a run of theirs diverged."""
        return self.file.given_up()

    def look(self) -> Comparisons:
        """Return what the finished runs decide.

        Raises InputError where they are not those by which comparisons were decided before.
        """
        names = {
            name: {seed: [run.label for run in runs] for seed, runs in seeds.items()}
            for name, seeds in self.members.items()
        }
        scores = rounds.read_scores(self.file.results, names, self.metric)
        found = rounds.look(scores, self.labels, self.test, self.closed)
        self.file.check_decisions(self._record(found))
        return found

    def keep(self, found: Comparisons) -> None:
        """Write down what was found."""
        self.file.write(self._record(found), self.closed)

    def _record(self, found: Comparisons) -> list[Record]:
        return [
            Record(
                *_cells(each),
                sign=each.decision.sign,
                difference=each.decision.difference,
                seeds=min(each.decision.seeds),
            )
            for each in found.found
        ]

    def runs(self, found: Comparisons) -> list[Run]:
        """Return the runs that were looked at, and those that the next look needs."""
        counts: dict[CellName, int] = {}
        size = self.test.plan.seeds or 0
        for each in found.found:
            waits = each in found.waiting
            for name, looked_at in zip(_cells(each), each.decision.seeds, strict=True):
                wanted = (found.looks + 1) * size if waits else looked_at
                counts[name] = max(counts.get(name, 0), wanted)
        return [
            run
            for name, count in counts.items()
            for runs in list(self.members[name].values())[:count]
            for run in runs
        ]

    def first_round(self) -> list[Run]:
        """Return the runs that the first look needs."""
        size = self.test.plan.seeds or 0
        cells = self.members.values()
        return [run for cell in cells for runs in list(cell.values())[:size] for run in runs]

    def cell_of(self, run: Run) -> CellName | None:
        """Return the cell of a run; None where its method is compared with nothing."""
        name = cell_name(run)
        return name if name in self.members else None

    @property
    def count(self) -> int:
        """How many comparisons share the error."""
        return len(self.file.comparisons)


# --- planning -------------------------------------------------------------------------------------


def plan_study(request: RunRequest, preset: SweepPreset | None, test: Asked) -> Study:
    """Return the study that a sweep asks for; nothing is written.

    Raises InputError where a pair names no method of the sweep, where flags contradict a study,
    or where the results folder holds another one of the same comparisons.
    """
    if request.overwrite:
        raise InputError(
            "--overwrite and --until-decided: seeds that are drawn again until they decide would "
            "decide anything; choose another --out for another study"
        )
    if request.given.get("seed") is not None:
        raise InputError(
            f"--seed {request.given['seed']} and --until-decided: a round has several seeds; leave "
            "--seed out, or give --seeds, the smallest of which is then the first"
        )
    if preset is not None and preset.stages:
        raise InputError(
            f"preset '{preset.name}' and --until-decided: seeds come in rounds, and its runs in "
            f"stages ({', '.join(preset.stages)}); give all seeds with --seeds, and compare the "
            "methods with dstrl table --test"
        )
    own = wanted_runs(request, preset)
    plan, first = test.plan, min(run.config.seed for run in own)
    if plan.seeds is None:
        raise ValueError("a study needs a number of seeds per round")
    seeds = range(first, first + plan.rounds * plan.seeds)
    wider = replace(request, axes=replace(request.axes, seeds=tuple(seeds)))
    methods = _named_methods(test, {cell_name(run)[2] for run in own})
    members: dict[CellName, dict[int, list[Run]]] = {}
    for run in wanted_runs(wider, preset):
        if cell_name(run)[2] in methods:
            by_seed = members.setdefault(cell_name(run), {})
            by_seed.setdefault(run.config.seed, []).append(run)
    labels = {
        method: method_label(method, flatten(to_dict(run.config)))
        for (_, _, method, _), by_seed in members.items()
        for run in by_seed[first][:1]
    }
    metric = parse(own[0].config.metric or DEFAULT_METRIC)
    nothing = rounds.look({name: {} for name in members}, labels, test)
    if absent := nothing.absent:
        raise InputError(
            f"{test.flag} {absent[0]}: the sweep has no environment and sparsity with both methods"
        )
    design = {
        "metric": metric.name,
        "alpha": plan.alpha,
        "seeds_per_round": plan.seeds,
        "max_seeds": plan.rounds * plan.seeds,
        "first_seed": first,
        "permutations": plan.permutations,
        "tasks": sorted({run.config.env.task for runs in members.values() for run in runs[first]}),
    }
    compared = [_cells(each) for each in nothing.found]
    others = tuple(run for run in own if cell_name(run)[2] not in methods)
    file = StudyFile.find(Path(own[0].config.out), design, compared)
    return Study(test, metric, others, members, labels, file)


def _cells(each: Comparison) -> tuple[CellName, CellName]:
    return comparing.cell_names(each.section, each.env, each.first, each.second)


def _named_methods(test: Asked, valid: set[str]) -> set[str]:
    """Return the methods that the pairs name, checked; how a pair looks is checked later."""
    named = {name for pair in test.pairs for name in pair.split(":") if name}
    for name in sorted(named):
        if name not in valid:
            raise InputError(suggest(f"method of {test.flag}", name, valid))
    return named


def cell_name(run: Run) -> CellName:
    """Return the cell of a table in which a run is; tasks of an environment share one."""
    env, method, sparsity, _ = Path(run.label).parts
    algo, _, name = method.partition("-")
    return algo, sparsity, name, env.removesuffix(f".task{run.config.env.task}")


# --- carrying out ---------------------------------------------------------------------------------


def carry_out(
    study: Study, train: Train, say: Callable[[Iterable[str]], None], fail_fast: bool = False
) -> tuple[list[Run], list[Outcome], Comparisons]:
    """Train round after round until everything is decided, or the seeds are spent.

    Returns the runs that took part, or those of the first round where all comparisons were given up
    before it, how those ended that were trained now, and what was decided. It
    also ends where a run failed: what it needs is not there. A run that diverged would do so again,
    so that its comparisons are given up. Raises DstrlError where finished runs have no score.
    """
    found = study.look()
    known: dict[str, Run] = {}
    outcomes: list[Outcome] = []
    while True:
        wanted = [*([] if known else study.others), *study.runs(found)]
        new = [run for run in wanted if run.label not in known]
        known |= {run.label: run for run in new}
        study.keep(found)
        ended, trained = train(new, heading(study, found)) if new else ((), False)
        outcomes += ended
        bad = [each for each in ended if not each.finished]
        diverged = {study.cell_of(each.run) for each in bad if each.summary["status"] == DIVERGED}
        study.closed.update(name for name in diverged if name is not None)
        before, found = found, study.look()
        study.keep(found)
        say(look_lines(study, found))
        stops = [each for each in bad if study.cell_of(each.run) not in (None, *diverged)]
        if not found.waiting or stops or (bad and fail_fast):
            return list(known.values()) or study.first_round(), outcomes, found
        if not trained and found.looks == before.looks:
            raise DstrlError(
                f"look {found.looks + 1} waits for runs that are finished, but whose logs have no "
                f"{study.metric.name}; dstrl table says why. Remove their folders to train them "
                "again"
            )


# --- in words -------------------------------------------------------------------------------------


def heading(study: Study, found: Comparisons) -> str:
    """Return what the next round is."""
    plan = study.test.plan
    if not found.waiting:
        return "until decided: nothing is left to decide"
    methods = dict.fromkeys(
        row.method for each in found.waiting for row in (each.first, each.second)
    )
    size, first = plan.seeds or 0, study.file.design["first_seed"]
    start = first + found.looks * size
    seeds = f"seeds {start}-{start + size - 1}" if size > 1 else f"seed {start}"
    return f"round {found.looks + 1} of {plan.rounds}: {seeds} of {', '.join(methods)}"


def look_lines(study: Study, found: Comparisons) -> list[str]:
    """Return what is decided by now, and what is not."""
    decided = [each for each in found.found if each.decision.sign]
    lines = [
        f"{_where(study, each)}: {each.first.label} {comparing.sign(each.decision)} "
        f"{each.second.label}, difference {each.decision.difference:+.4g}, "
        f"{counted(each.decision.seeds[0], 'seed')} of each"
        for each in decided
    ]
    looks = f"after {counted(found.looks, 'look')} of {found.plan.rounds}"
    return [f"{looks}: {len(decided)} of {counted(len(found.found), 'comparison')} decided", *lines]


def _where(study: Study, each: Comparison) -> str:
    algos = {name[0] for name in study.members}
    sparsities = {name[1] for name in study.members}
    parts = [env_name(each.env), *([each.section.algo] if len(algos) > 1 else [])]
    return ", ".join([*parts, *([each.section.sparsity] if len(sparsities) > 1 else [])])


def as_json(study: Study, found: Comparisons) -> dict[str, Any]:
    """Return the plan of a study and how far it is, for programs."""
    return {
        "comparisons": [
            {"first": list(first), "second": list(second)}
            for first, second in study.file.comparisons
        ],
        **study.file.design,
        "rounds": found.plan.rounds,
        "looks": found.looks,
        "decided": sum(each.decision.sign != 0 for each in found.found),
        "file": str(study.file.path),
    }
