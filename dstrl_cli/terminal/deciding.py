"""What a dry run says of a sweep that adds seeds until its comparisons are decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dstrl_cli.report.power import power
from dstrl_cli.report.table import Comparisons
from dstrl_cli.report.words import counted
from dstrl_cli.sweep.study import Study, heading
from dstrl_cli.sweep.study import as_json as study_json


def as_json(study: Study, found: Comparisons) -> dict[str, Any]:
    """Return the plan of a study for programs, with its power at one standard deviation."""
    plan = study.test.plan
    size = plan.seeds or 0
    looks = {
        "one_look_after_a_round": replace(plan, rounds=1),
        "one_look_at_all": replace(plan, rounds=1, seeds=size * plan.rounds),
        "rounds": plan,
    }
    powers = {name: asdict(power(each, comparisons=study.count)) for name, each in looks.items()}
    return {"until_decided": study_json(study, found) | {"power": powers}}


def lines(study: Study, found: Comparisons, document: Mapping[str, Any]) -> list[str]:
    """Return the same for a person; `document` is what `as_json` returned."""
    plan, powers = study.test.plan, document["until_decided"]["power"]
    size = plan.seeds or 0
    each = "each of them has" if study.count > 1 else "it has"
    runs = sum(len(runs) for seeds in study.members.values() for runs in seeds.values())
    one, every, several = (
        powers[name] for name in ("one_look_after_a_round", "one_look_at_all", "rounds")
    )
    shown = [
        heading(study, found),
        f"to decide: {counted(study.count, 'comparison')}, a wrong decision of any has a "
        f"probability of {plan.alpha:g}; at most {counted(plan.rounds, 'look')} and "
        f"{counted(runs, 'run')} of the methods compared",
        f"power if {each} a difference of one standard deviation of the seeds "
        f"({several['studies']:,} simulated studies):",
        f"  one look at {size} seeds of each method: {one['found']:.0%}",
    ]
    if plan.rounds > 1:
        shown += [
            f"  one look at {size * plan.rounds}: {every['found']:.0%}",
            f"  {plan.rounds} looks of {size}: {several['found']:.0%}, with "
            f"{several['seeds']:.1f} seeds on average",
        ]
    return shown
