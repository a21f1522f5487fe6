"""Whether a finished run can be made longer: it must be what a longer run is after as many steps.

What follows from the number of steps must not have acted yet. The replay buffer does not hinder:
it holds `buffer_size` transitions, or as many as the run has steps, and then none was overwritten.
"""

from __future__ import annotations

from dstrl_cli.config import effects
from dstrl_cli.config.fields import LinearRate
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.windows import updates, windows
from dstrl_cli.registry import is_outside

UNMOVED = ("static", "constant")
"""Schedules that do not read how far the run is."""


def refusals(config: RunConfig) -> list[str]:
    """Return what keeps a finished run from being made longer, each as `key = value: why`."""
    found = []
    if config.episodes is not None:
        found.append(f"episodes = {config.episodes}: they end it, not its steps")
    if isinstance(config.learning_rate, LinearRate):
        found.append("learning_rate: it falls over the whole length of the run")
    for role in effects.roles_of(config):
        network: NetworkConfig = getattr(config, role)
        if network.changes_topology and updates(config, role):
            key = f"{role}.topology"
            found += [f"{key}.{reason}" for reason in _rule_refusals(config, role)]
    return found


def _rule_refusals(config: RunConfig, role: str) -> list[str]:
    """Return the reasons of one network's topology rule, without the group of their keys."""
    rule = getattr(config, role).topology
    found = []
    if rule.schedule not in UNMOVED:
        found.append(f"schedule = {rule.schedule}: it follows the whole length of the run")
    if rule.moves_budget:
        found.append(f"budget = {rule.budget}: it follows the whole length of the run")
    elif (rule.swap_start, rule.swap_end) != (0, 1):
        found.append("swap_start, swap_end: they are shares of the whole run")
    for key in ("drop", "grow"):
        if is_outside(getattr(rule, key)):
            score = getattr(rule, key)
            found.append(f"{key} = {score}: a score of one's own may read how far the run is")
    if rule.stop_before_end:
        found.append(f"stop_before_end = {rule.stop_before_end}: it is counted from the end")
    whole = windows(config, role)
    end = whole.end
    if whole.first_swap <= end and whole.planned(end):
        found.append(
            f"update_interval = {rule.update_interval}: the last update, number {end:,}, would "
            "have changed the topology in a longer run"
        )
    return found
