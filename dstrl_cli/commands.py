"""What the commands do, between the command line (`cli`) and the work (`sweep`, `report`, ...).

A command plans, shows its plan, carries it out and shows the outcome. Input errors are raised
before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from dstrl_cli.config.ranges import parse_names
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report import archiving, papers, tables
from dstrl_cli.report.comparing import Asked, asked_test
from dstrl_cli.report.render import render
from dstrl_cli.report.table import Comparisons
from dstrl_cli.report.words import counted
from dstrl_cli.runs.summary import CONFIG_FILE
from dstrl_cli.sweep import launcher, local, stages, study
from dstrl_cli.sweep.again import stored_config
from dstrl_cli.sweep.launcher import OnFailure
from dstrl_cli.sweep.launchers import Site, ThisMachine, Where
from dstrl_cli.sweep.memory import format_bytes
from dstrl_cli.sweep.place import Limits, Placement
from dstrl_cli.sweep.plan import Axes, prepare
from dstrl_cli.sweep.request import Rounds, RunRequest, plan_training, wanted_runs
from dstrl_cli.sweep.states import Planned, ended, repaired, resumed
from dstrl_cli.sweep.status import look
from dstrl_cli.terminal import deciding, describe, exported, listing, plan, staged, status, verified
from dstrl_cli.terminal.display import make_display
from dstrl_cli.terminal.flags import limits, run_flags, sweep_axes, train_flags
from dstrl_cli.terminal.screen import screen
from dstrl_cli.terminal.streams import emit
from dstrl_cli.training.run import Outcome, Run

__all__ = [
    "Axes",
    "Limits",
    "OnFailure",
    "Rounds",
    "RunOptions",
    "RunRequest",
    "Where",
    "archive",
    "asked_test",
    "export",
    "limits",
    "list_names",
    "run_flags",
    "sweep",
    "sweep_axes",
    "sweep_status",
    "table",
    "train",
    "train_flags",
    "verify",
]


@dataclass(frozen=True)
class RunOptions:
    """How runs are carried out and shown, and where; `site` is open while they are."""

    limits: Limits
    dry_run: bool
    as_json: bool
    on_failure: OnFailure = field(default_factory=OnFailure)
    where: Where = field(default_factory=Where)
    site: Site = field(default_factory=ThisMachine)

    @property
    def console(self) -> Console:
        """Where a person reads: with JSON on standard output, standard error."""
        return screen(stderr=self.as_json)


# --- train and sweep ----------------------------------------------------------------------------


def train(request: RunRequest, options: RunOptions) -> None:
    """Train one run here, or several seeds side by side. Raises DstrlError where one fails."""
    planned = plan_training(request)
    placement = options.site.place(planned, options.limits, options.dry_run)
    if not (options.dry_run and options.as_json):
        if placement.runs:
            options.console.print(describe.run_overview(placement.runs, placement))
        lines = plan.going_on_lines(planned) if request.resume else []
        lines += plan.damage_lines(planned)
        describe.print_lines(options.console, [*plan.note_lines(planned), *lines])
    here = len(planned) == len(placement.runs) == 1
    outcomes = _carry_out(planned, placement, options, here)
    if outcomes is None:
        return
    if options.as_json:
        every = {each.run.label: each for each in [*map(ended, planned), *outcomes]}
        _print_json({"runs": [describe.outcome_json(each) for each in every.values()]})
    else:
        for outcome in outcomes:
            options.console.print()
            options.console.print(describe.outcome_overview(outcome))
    _raise_failures(outcomes)


def sweep(request: RunRequest, options: RunOptions, compare: str | None, rounds: Rounds) -> None:
    """Train what a sweep has left to do, and print the table. Raises DstrlError where one fails."""
    preset = request.load_preset()
    compare = compare or (preset.compare if preset else None)
    if compare is not None:
        papers.published(compare)
    test = rounds.test(preset)
    if test is not None:
        asked = study.plan_study(request, preset, test)
        runs = [*asked.others, *asked.first_round()]
        with options.where.open(runs, options.dry_run) as site:
            _sweep_until_decided(asked, replace(options, site=site), compare)
        return
    if preset is not None and preset.stages:
        _sweep_stages(stages.Staged(request, preset), options, compare)
        return
    runs = wanted_runs(request, preset)
    with options.where.open(runs, options.dry_run) as site:
        planned = resumed(runs, request.overwrite)
        outcomes, _ = _train_planned(planned, replace(options, site=site))
    if not options.dry_run:
        _show_swept(runs, outcomes, compare, options)


def _sweep_stages(asked: stages.Staged, options: RunOptions, compare: str | None) -> None:
    """Train stage after stage; a dry run shows them all."""
    with options.where.open(asked.runs(), options.dry_run) as site:
        if options.dry_run:
            place = partial(site.place, limits=options.limits, dry_run=True)
            staged.show_plan(asked, place, options.console, options.as_json, _print_plan)
            return
        train = partial(_train_planned, options=replace(options, site=site))
        runs, outcomes = staged.carry_out(asked, train, options.console, options.on_failure)
        _show_swept(runs, outcomes, compare, options)


def _sweep_until_decided(asked: study.Study, options: RunOptions, compare: str | None) -> None:
    """Train round after round; a dry run shows what is next, and what the plan can find."""
    if options.dry_run:
        found = asked.look()
        also = deciding.as_json(asked, found)
        if runs := [*asked.others, *asked.runs(found)]:
            _train_planned(resumed(runs, False), options, also)
        elif options.as_json:
            _print_json(also)
        if not options.as_json:
            describe.print_lines(options.console, deciding.lines(asked, found, also))
        return

    def train(runs: Sequence[Run], heading: str) -> tuple[Sequence[Outcome], bool]:
        describe.print_lines(options.console, [heading])
        return _train_planned(resumed(runs, overwrite=False), options)

    runs, outcomes, found = study.carry_out(
        asked,
        train,
        lambda lines: describe.print_lines(options.console, lines),
        options.on_failure.fail_fast,
    )
    _show_swept(runs, outcomes, compare, options, found)


def _train_planned(
    planned: Sequence[Planned], options: RunOptions, also: Mapping[str, Any] | None = None
) -> tuple[list[Outcome], bool]:
    """Print the plan of runs and carry it out; return how runs ended, and whether any was to do.

    A dry run trains none, and adds `also` to its JSON.
    """
    placement = options.site.place(planned, options.limits, options.dry_run)
    if not (options.dry_run and options.as_json):
        _print_plan(planned, placement, options.console)
    outcomes = _carry_out(planned, placement, options, here=False, also=also) or []
    return outcomes, any(each.to_do for each in planned)


def _show_swept(
    runs: Sequence[Run],
    outcomes: Sequence[Outcome],
    compare: str | None,
    options: RunOptions,
    tests: Comparisons | None = None,
) -> None:
    """Print the table of a sweep's runs, and raise DstrlError where one failed."""
    metrics = {run.config.metric for run in runs}
    metric = metrics.pop() if len(metrics) == 1 else None  # else the table chooses, and says so
    style = "json" if options.as_json else "rich"
    only = [run.path for run in runs]
    shown = _table_text(runs[0].config.out, only, metric, compare, style, tests)
    if options.as_json:
        ended = [describe.outcome_json(each) for each in outcomes]
        _print_json({"runs": ended, "table": json.loads(shown or "null")})
    elif shown is not None:
        print(shown.rstrip("\n"))
    _raise_failures(outcomes)


def sweep_status(request: RunRequest, as_json: bool, rounds: Rounds) -> None:
    """Print the state of every run of a sweep; nothing is trained."""
    preset = request.load_preset()
    test = rounds.test(preset)
    if test is not None:
        asked = study.plan_study(request, preset, test)
        runs = [*asked.others, *asked.runs(asked.look())]
    elif preset is not None and preset.stages:
        runs = stages.Staged(request, preset).runs()
    else:
        runs = wanted_runs(request, preset)
    found = look(runs)
    if as_json:
        _print_json(status.status_json(found))
        return
    console = screen()
    console.print(status.status_table(found, console.width))
    describe.print_lines(console, [status.status_line(found)])


def _print_plan(planned: Sequence[Planned], placement: Placement, console: Console) -> None:
    """Print the plan of a sweep."""
    console.print(plan.plan_table(planned, console.width))
    if not placement.on_cpu and placement.populations:
        console.print(plan.packing_table(placement, console.width))
        describe.print_lines(console, plan.packing_lines(placement))
    describe.print_lines(console, plan.length_lines(planned))
    describe.print_lines(console, plan.topology_lines(planned))
    describe.print_lines(console, plan.note_lines(planned))
    describe.print_lines(console, plan.resuming_lines(planned))
    describe.print_lines(console, plan.damage_lines(planned))
    describe.print_lines(console, [plan.plan_line(planned, placement)])


def _carry_out(
    planned: Sequence[Planned],
    placement: Placement,
    options: RunOptions,
    here: bool,
    also: Mapping[str, Any] | None = None,
) -> list[Outcome] | None:
    """Train what is to do, in this process if `here`; None after a dry run, which prints `also`.

    Environments that are neither Gymnasium's nor dstrl's always run in a process of their own: they
    may crash it, and somebody must be left to say so.
    """
    cautions = [f"warning: {text}" for text in describe.warnings(placement.runs)]
    errors = screen(stderr=True)
    describe.print_lines(errors, cautions)
    if options.dry_run:
        if options.as_json:
            _print_json(plan.plan_json(planned, placement) | dict(also or {}))
        return None
    describe.print_lines(errors, repaired(planned))
    with make_display(options.console, errors, placement, evaluations=here) as display:
        if here and not any(run.spec.foreign for run in placement.runs):
            return [local.train_here(placement, display)]
        return launcher.execute(placement, options.site.launcher(), display, options.on_failure)


def _raise_failures(outcomes: Sequence[Outcome]) -> None:
    if failures := describe.failures(outcomes):
        raise DstrlError(failures)


def _table_text(
    out: str,
    only: Sequence[Path],
    metric: str | None,
    compare: str | None,
    style: str,
    tests: Comparisons | None,
) -> str | None:
    """Return the table of a sweep's own runs; where there is none, say why."""
    try:
        shown = tables.table(out, metric=metric, compare=compare, only=only)
        shown = replace(shown, tests=tests)
        return render(shown, style, screen())
    except InputError as error:
        describe.print_lines(screen(stderr=True), [f"no table: {error}"])
        return None


# --- table, archive, export, verify --------------------------------------------------------------


def table(
    results: Path,
    style: str | None,
    as_json: bool,
    options: Mapping[str, Any],
    test: Asked | None = None,
) -> None:
    """Print the table of the runs in a folder, for a person unless `style` or `as_json` says else.

    Raises InputError where these two contradict each other.
    """
    if as_json and style not in (None, "json"):
        raise InputError(f"--format {style} and --json: give one of them")
    style = "json" if as_json else style or "rich"
    chosen = {key: value for key, value in options.items() if value is not None}
    if "columns" in chosen:
        chosen["columns"] = parse_names(chosen["columns"], "--columns")
    print(render(tables.table(results, test=test, **chosen), style, screen()).rstrip("\n"))


def archive(results: Path, out: Path, overwrite: bool, as_json: bool) -> None:
    """Write an archive of the runs in a folder, and say what is in it."""
    done = archiving.archive(results, out, overwrite)
    warnings = [f"warning: left out, unreadable: {text}" for text in done.unreadable]
    describe.print_lines(screen(stderr=True), warnings)
    if as_json:
        _print_json({"archive": str(out), "runs": done.runs, "bytes": done.size})
    else:
        said = f"{counted(done.runs, 'run')} of {results} in {out} ({format_bytes(done.size)})"
        describe.print_lines(screen(), [said])


def export(run: Path, format_: str, out: Path, overwrite: bool, as_json: bool) -> None:
    """Write the policy of a run in another format, and print what an action of it costs."""
    from dstrl_cli.export import exporting

    done = exporting.export(run, format_, out, overwrite)
    if as_json:
        _print_json({"run": str(run)} | done.as_json())
        return
    describe.print_lines(screen(), exported.lines(done))
    screen().print(exported.table(done))
    describe.print_lines(screen(), exported.notes(done))


def verify(folder: Path, updates: int | None, as_json: bool) -> None:
    """Repeat the first updates of a stored run and print whether all is equal.

    Raises InputError where the folder holds no run, or none that can be repeated here, and
    DstrlError where something differs.
    """
    from dstrl_cli.training import verify as verification

    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"run '{folder}' holds no {CONFIG_FILE}: give the folder of one run")
    run = replace(prepare(stored_config(folder), folder), path=folder)
    errors = screen(stderr=True)
    wanted = verification.UPDATES if updates is None else updates
    found = verification.verify(run, wanted, lambda line: describe.print_lines(errors, [line]))
    if as_json:
        _print_json(verified.as_json(folder, found))
    else:
        describe.print_lines(screen(), verified.lines(found))
    if found.difference is not None:
        raise DstrlError(f"run {folder} and its repetition here are not equal")


def list_names(what: str, as_json: bool) -> None:
    """Print what may be chosen. Raises InputError for a kind that there is not."""
    found = listing.items(what)
    if as_json:
        _print_json({what: found})
    else:
        screen().print(listing.table(found, screen().width))
        if what in listing.FOOTNOTES:
            describe.print_lines(screen(), [listing.FOOTNOTES[what]])


def _print_json(document: Mapping[str, Any]) -> None:
    emit(json.dumps(document, indent=2))
