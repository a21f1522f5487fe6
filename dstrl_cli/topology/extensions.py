"""Whether scores, schedules and initial masks of somebody else's fit, checked before a run starts.

Their modules are imported here, so this is for runs that are about to start or are planned, never
for reading results. Names and keys that are dstrl's own are checked by `config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.parse import explain
from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.errors import InputError, described, suggest
from dstrl_cli.registry import BUDGETS, INITIAL_MASKS, SCHEDULES, SCORES, is_outside, load
from dstrl_cli.topology.moves import SAMPLES, Budget
from dstrl_cli.topology.rule import Score
from dstrl_cli.topology.schedules import Schedule


def check_extensions(config: RunConfig) -> None:
    """Check what a run names outside of dstrl, and the parameters of its scores.

    Keys that have no effect are not checked: those of a rule that never acts, and the initial mask
    of a dense network.

    Raises InputError, naming the key, where something cannot be imported or is of the wrong kind,
    where a score does not fit the network, and for a parameter that no score knows or accepts.
    """
    for role in ("actor", "critic"):
        network: NetworkConfig = getattr(config, role)
        if not network.all_active:
            _check_initial_mask(f"{role}.initial_mask", network.initial_mask)
        if network.changes_topology:
            _check_rule(role, network.topology)


def _check_initial_mask(key: str, name: str) -> None:
    if is_outside(name) and not callable(_load(INITIAL_MASKS, key, name)):
        raise InputError(
            f"{key} = '{name}': must be a function (weight, density, budget, generator) -> mask"
        )


def _check_rule(role: str, rule: TopologyConfig) -> None:
    prefix = f"{role}.topology"
    if is_outside(rule.schedule):
        schedule = _load(SCHEDULES, f"{prefix}.schedule", rule.schedule)
        _check_class(f"{prefix}.schedule = '{rule.schedule}'", schedule, Schedule)
    if is_outside(rule.budget):
        _check_budget(f"{prefix}.budget = '{rule.budget}'", rule)
    scores = [_score(prefix, key, getattr(rule, key), role) for key in ("drop", "grow")]
    _check_params(f"{prefix}.params", rule, scores)


def _check_budget(setting: str, rule: TopologyConfig) -> None:
    """Refuse a way of moving that does not arrive, or goes back where nothing may grow."""
    budget = _load(BUDGETS, setting.partition(" = ")[0], rule.budget)
    _check_class(setting, budget, Budget)
    try:
        way = [float(budget(rule).moved(sample / SAMPLES)) for sample in range(SAMPLES + 1)]
    except Exception as error:
        raise InputError(f"{setting} failed ({described(error)})") from error
    if not all(0 <= share <= 1 for share in way):
        raise InputError(f"{setting}: `moved` must return shares in [0, 1]")
    if way[-1] != 1:
        raise InputError(
            f"{setting}: would not reach the final sparsity: moved(1) must be 1, not {way[-1]:g}"
        )
    if rule.grow == "none" and any(later < sooner for sooner, later in pairwise(way)):
        raise InputError(
            f"{setting}: goes back on its way, so that connections would have to grow, and "
            "topology.grow is none; set a grow score, such as random"
        )


def _score(prefix: str, key: str, name: str, role: str) -> type[Score]:
    """Return the class of a score, which can do what `key` (drop or grow) asks of it."""
    score: type[Score] = _load(SCORES, f"{prefix}.{key}", name)
    setting = f"{prefix}.{key} = '{name}'"
    _check_class(setting, score, Score)
    if getattr(score, key) is getattr(Score, key):
        raise InputError(f"{setting}: {score.__name__} has no method `{key}`")
    if score.needs_td_error and role == "actor":
        raise InputError(
            f"{setting}: it needs the TD error of a critic; set critic.topology.{key} instead"
        )
    return score


def _check_class(setting: str, found: object, base: type) -> None:
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(f"{setting}: must be a subclass of {base.__module__}.{base.__name__}")


def _check_params(prefix: str, rule: TopologyConfig, scores: list[type[Score]]) -> None:
    known = [f"{prefix}.{name}" for score in scores for name in score.Params.model_fields]
    for name in rule.params:
        if f"{prefix}.{name}" not in known:
            if known:
                raise InputError(suggest("key", f"{prefix}.{name}", set(known)))
            raise InputError(
                f"unknown key '{prefix}.{name}': neither {rule.drop} nor {rule.grow} has parameters"
            )
    for score in scores:
        try:
            score.Params.model_validate(score.own_params(rule))
        except ValidationError as error:
            lines = explain(error).splitlines()
            raise InputError("\n".join(f"{prefix}.{line}" for line in lines)) from None


def _load(table: Mapping[str, Any], key: str, name: str) -> Any:
    """Return what a name stands for. Raises InputError, naming the key, where it cannot be had."""
    try:
        return load(table, name)
    except InputError as error:
        raise InputError(f"{key} = {error}") from None
