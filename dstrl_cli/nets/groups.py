"""Which members of a network share a topology rule, and what a topology update of theirs did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.config.windows import end_of_changes, last_changing_step, updates
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.topology.budgets import layer_moves
from dstrl_cli.topology.moves import LayerMove
from dstrl_cli.topology.rule import Rule


@dataclass(frozen=True)
class Group:
    """Members of a network that share a rule.

    Attributes:
        rule: their topology rule.
        members: their indices.
        index: the same indices on the network's device, so that indexing copies nothing there.
        instead_of_step: whether a topology update replaces the optimizer step.
    """

    rule: Rule
    members: list[int]
    index: Tensor
    instead_of_step: bool


def rule_groups(plan: NetworkPlan) -> list[Group]:
    """Group the members by their rule; members with a static topology are in no group.

    A member whose run is counted in episodes is a group of its own: its episodes end at steps of
    its own.
    """
    found: dict[tuple[TopologyConfig, int, float, int, str, int | None], list[int]] = {}
    for member, run in enumerate(plan.configs):
        config = plan.network_config(member)
        if not config.changes_topology:
            continue
        end, total = end_of_changes(run, plan.role), updates(run, plan.role)
        alone, end_share = None, 1.0
        if run.episodes is not None:
            alone, end_share = member, last_changing_step(run, plan.role) / run.steps
        shared = (config.topology, end, end_share, total, run.rewire, alone)
        found.setdefault(shared, []).append(member)
    key = f"{plan.role}.topology"
    return [
        Group(
            Rule(topology, end, end_share, total, budget_moves(plan, members), key),
            members,
            torch.tensor(members, device=plan.device),
            rewire == "instead_of_step",
        )
        for (topology, end, end_share, total, rewire, _), members in found.items()
    ]


def budget_moves(plan: NetworkPlan, members: list[int]) -> list[list[LayerMove]]:
    """Return how the budgets of members move, layer by layer; nothing where they do not."""
    configs = [plan.network_config(member) for member in members]
    return [layer_moves(each, plan.shapes) for each in configs if each.moves_budget]


Counts = list[list[int]]
"""Connections of one member per head and layer, [K][L]."""


@dataclass(frozen=True)
class TopologyChange:
    """One topology update of the members that share a rule.

    Attributes:
        members: their indices.
        counts: active, dropped and grown connections, and whether the last one of a layer was
            kept that was to be dropped (1 or 0), [4, M, K, L], on the network's device.
        fraction: of the active connections that was to be exchanged.
    """

    members: list[int]
    counts: Tensor
    fraction: float

    def by_member(self) -> Iterator[tuple[int, Counts, Counts, Counts, Counts]]:
        """Yield (member, active, dropped, grown, spared) on the host, after one transfer."""
        return zip(self.members, *self.counts.tolist(), strict=True)
