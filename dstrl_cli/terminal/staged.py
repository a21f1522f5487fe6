"""A sweep of several stages on the screen: their plans and the cost of all, then each stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from dstrl_cli.sweep import stages
from dstrl_cli.sweep.launcher import OnFailure
from dstrl_cli.sweep.place import Placement
from dstrl_cli.sweep.stages import Staged
from dstrl_cli.sweep.states import Planned, resumed
from dstrl_cli.terminal import describe, plan
from dstrl_cli.terminal.streams import emit
from dstrl_cli.training.run import Outcome, Run


def show_plan(
    asked: Staged,
    place: Callable[[Sequence[Planned]], Placement],
    console: Console,
    as_json: bool,
    show: Callable[[Sequence[Planned], Placement, Console], None],
) -> None:
    """Print the plan of every stage and the cost of all, by `show` or as JSON; train nothing.

    `place` says where runs would train.
    """
    runs = asked.plan()
    planned = {name: _planned(each, asked.request.overwrite) for name, each in runs.items()}
    placed = {name: place(each) for name, each in planned.items()}
    if as_json:
        parts = [
            {"stage": name} | plan.plan_json(each, placed[name]) for name, each in planned.items()
        ]
        to_do = sum(part["to_do"] for part in parts)
        emit(json.dumps({**stages.as_json(runs), "to_do": to_do, "stages": parts}, indent=2))
        return
    for number, (name, each) in enumerate(planned.items(), start=1):
        describe.print_lines(console, [f"stage {number} of {len(planned)}: {name}"])
        show(each, placed[name], console)
        describe.print_lines(console, [""])
    describe.print_lines(console, [stages.cost_line(runs)])


def _planned(runs: Sequence[Run], overwrite: bool) -> list[Planned]:
    """Return what is to do; a run that waits for another one is not held against its folder."""
    able, _ = stages.ready(runs)
    found = {each.run.label: each for each in resumed(able, overwrite)}
    return [found.get(run.label) or Planned(run, "new") for run in runs]


def carry_out(
    asked: Staged,
    train_planned: Callable[[Sequence[Planned]], tuple[list[Outcome], bool]],
    console: Console,
    on_failure: OnFailure,
) -> tuple[list[Run], list[Outcome]]:
    """Train stage after stage; return all runs, and how those ended that were to be trained."""

    def train(runs: Sequence[Run]) -> Sequence[Outcome]:
        return train_planned(resumed(runs, asked.request.overwrite))[0]

    def say(lines: Iterable[str]) -> None:
        describe.print_lines(console, lines)

    say([stages.cost_line(asked.plan())])
    return stages.carry_out(asked, train, say, on_failure.fail_fast)
