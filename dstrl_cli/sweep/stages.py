"""A sweep of several stages: which runs each has, and what they wait for.

Every stage is planned like a preset of its own. A key that names a run of an earlier stage gets its
folder when that run has finished. Before, the run is planned with what it will leave (`Promised`),
and waits for it (`Run.needs`). So a plan shows all stages, and a sweep that was stopped goes on
where it was: what is there is found by its folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.presets import SweepPreset
from dstrl_cli.config.shrink import at_scale
from dstrl_cli.config.stages import Reference, is_meant, reference
from dstrl_cli.config.starts import STARTS
from dstrl_cli.errors import InputError
from dstrl_cli.report.words import counted
from dstrl_cli.runs.starting import FILES
from dstrl_cli.runs.status import FINISHED
from dstrl_cli.runs.summary import read_status
from dstrl_cli.sweep.request import RunRequest, wanted_runs
from dstrl_cli.sweep.starting import Promised
from dstrl_cli.training.run import Outcome, Run

Train = Callable[[Sequence[Run]], Sequence[Outcome]]
"""Trains what is left to do of some runs, and returns how those ended that were trained now."""

MAX_NAMED = 5
"""Runs that are named when they cannot start."""


@dataclass(frozen=True)
class Earlier:
    """The runs of the stages before one, by the name of their stage; at a `scale` if not None."""

    runs: Mapping[str, Sequence[Run]]
    scale: float | None = None

    def completed(self, config: RunConfig) -> tuple[RunConfig, dict[str, Promised]]:
        """Return a configuration with the places of earlier runs, and what these promise.

        A run that has finished promises nothing: it is there. Raises InputError where no run, or
        more than one, is meant.
        """
        update: dict[str, str] = {}
        promised: dict[str, Promised] = {}
        for what, row in STARTS.items():
            wanted = reference(getattr(config, row.key))
            if wanted is None:
                continue
            run = self.find(row.key, wanted, config)
            update[row.key] = str(run.path)
            if run.needs or read_status(run.path) != FINISHED:
                promised[what] = Promised(run.config, run.spec, run.label, FILES[what])
        return config.model_copy(update=update), promised

    def find(self, key: str, wanted: Reference, by: RunConfig) -> Run:
        """Return the run that a reference means. Raises InputError unless there is exactly one."""
        if wanted.stage not in self.runs:
            known = ", ".join(self.runs) or "none"
            raise InputError(
                f"{key}: {wanted}: there is no stage '{wanted.stage}' before this one; stages "
                f"before it: {known}"
            )
        scaled = at_scale({name: [each] for name, each in wanted.where.items()}, self.scale)
        narrowed = wanted.model_copy(update={"where": {k: v[0] for k, v in scaled.items()}})
        found = [r for r in self.runs[wanted.stage] if is_meant(r.config, narrowed, by)]
        if len(found) == 1:
            return found[0]
        if not found:
            raise InputError(
                f"{key}: {wanted}: stage '{wanted.stage}' has no such run; it has "
                f"{_some(self.runs[wanted.stage])}"
            )
        raise InputError(
            f"{key}: {wanted}: means {len(found)} runs of stage '{wanted.stage}' "
            f"({_some(found)}); add what tells them apart, as in same: [env, seed]"
        )


@dataclass(frozen=True)
class Staged:
    """A sweep of a preset with stages."""

    request: RunRequest
    preset: SweepPreset

    def plan(self) -> dict[str, list[Run]]:
        """Return the runs of every stage, in order, as things are now. Raises InputError."""
        _refuse_axes(self.request, self.preset)
        planned: dict[str, list[Run]] = {}
        parts = {name: self.preset.of_stage(name) for name in self.preset.stages}
        algos = {algo for part in parts.values() for algo in part.sweep.algo}
        for name, part in parts.items():
            earlier = Earlier(planned, self.request.scale)
            try:
                planned[name] = wanted_runs(self.request, part, earlier, algos)
            except InputError as error:
                raise InputError(
                    f"stage '{name}' of preset '{self.preset.name}': {error}"
                ) from None
        labels = [run.label for runs in planned.values() for run in runs]
        if twice := {label for label in labels if labels.count(label) > 1}:
            raise InputError(
                f"preset '{self.preset.name}': several stages have the run {min(twice)}; leave it "
                "out of one, or let a stage name that of the other"
            )
        return planned

    def runs(self) -> list[Run]:
        """Return the runs of all stages, as things are now. Raises InputError."""
        return [run for runs in self.plan().values() for run in runs]


def _refuse_axes(request: RunRequest, preset: SweepPreset) -> None:
    """Raise InputError where a flag would give all stages one algorithm or method."""
    for flag, value in (("--algo", request.axes.algos), ("--dst", request.axes.methods)):
        if value:
            raise InputError(
                f"{flag}: not with preset '{preset.name}', whose stages say it: "
                f"{', '.join(preset.stages)}; copy the preset to change it"
            )


def _some(runs: Sequence[Run]) -> str:
    more = len(runs) - MAX_NAMED
    named = ", ".join(run.label for run in runs[:MAX_NAMED])
    return f"{named} and {counted(more, 'more run')}" if more > 0 else named or "none"


def ready(runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
    """Return the runs that can start now, and those that wait for runs that did not finish."""
    able: list[Run] = []
    waiting: list[Run] = []
    for run in runs:
        (waiting if run.needs else able).append(run)
    return able, waiting


def carry_out(
    staged: Staged, train: Train, say: Callable[[Iterable[str]], None], fail_fast: bool = False
) -> tuple[list[Run], list[Outcome]]:
    """Train stage after stage; return all runs and how those ended that were to be trained.

    A run that needs one which did not finish is left out and named; the others go on. Each stage is
    planned again when its turn comes, since what the earlier ones left is there only then.
    """
    outcomes: list[Outcome] = []
    ended: set[str] = set()
    for number, name in enumerate(staged.preset.stages, start=1):
        runs = [run for run in staged.plan()[name] if run.label not in ended]
        able, waiting = ready(runs)
        say([f"stage {number} of {len(staged.preset.stages)}: {name}"])
        say(waiting_lines(waiting))
        outcomes += train(able) if able else []
        outcomes += [_left_out(run) for run in waiting]
        ended |= {run.label for run in runs}
        if fail_fast and any(not each.finished for each in outcomes):
            break
    return staged.runs(), outcomes


def waiting_lines(waiting: Sequence[Run]) -> list[str]:
    """Return which runs cannot start, by the run that they need."""
    by_need: dict[str, list[Run]] = {}
    for run in waiting:
        by_need.setdefault(run.needs[0], []).append(run)
    return [
        f"{need} did not finish: {counted(len(runs), 'run')} of this stage that "
        f"need{'s' * (len(runs) == 1)} it {'is' if len(runs) == 1 else 'are'} left out: "
        f"{_some(runs)}"
        for need, runs in by_need.items()
    ]


def _left_out(run: Run) -> Outcome:
    cause = f"it needs {run.needs[0]}, which did not finish"
    return Outcome(run, {"status": "not started", "error": cause})


def cost_line(plan: Mapping[str, Sequence[Run]]) -> str:
    """Return what all stages together cost."""
    runs = [run for stage in plan.values() for run in stage]
    steps = sum(run.config.steps for run in runs)
    return f"{counted(len(plan), 'stage')}: {counted(len(runs), 'run')}, {steps:.4g} steps in all"


def as_json(plan: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return the cost of all stages, for programs."""
    runs = [run for stage in plan.values() for run in stage]
    return {"total": len(runs), "steps": sum(run.config.steps for run in runs)}
