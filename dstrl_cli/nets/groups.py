"""Which members of a network share a topology rule, and what a topology update of theirs did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dstrl_cli.config.models import TopologyConfig
from dstrl_cli.topology.rule import Rule

if TYPE_CHECKING:
    from dstrl_cli.nets.network import Plan


@dataclass(frozen=True)
class Group:
    """Members of a network that share a rule, and whether it replaces their optimizer step.

    `index` holds the members once more, on the network's device: an index list would be copied
    there at every use.
    """

    rule: Rule
    members: list[int]
    index: Tensor
    instead_of_step: bool


def rule_groups(plan: Plan) -> list[Group]:
    """Group the members by their rule; members with a static topology are in no group."""
    found: dict[tuple[TopologyConfig, int, str], list[int]] = {}
    for member, run in enumerate(plan.configs):
        config = plan.network_config(member)
        if config.dense or config.match_parameters or config.topology.schedule == "static":
            continue
        training = run.steps - run.learning_starts
        end = int((training - config.topology.stop_before_end) / plan.steps_per_update)
        found.setdefault((config.topology, end, run.rewire), []).append(member)
    return [
        Group(
            Rule(topology, end),
            members,
            torch.tensor(members, device=plan.device),
            rewire == "instead_of_step",
        )
        for (topology, end, rewire), members in found.items()
    ]


@dataclass(frozen=True)
class TopologyEvent:
    """One topology update of one member: counts per layer, [K, L] on the host."""

    member: int
    active: list[list[int]]
    dropped: list[list[int]]
    grown: list[list[int]]
    fraction: float


@dataclass(frozen=True)
class TopologyChange:
    """One topology update of the members of a rule; its counts stay where the network is."""

    members: list[int]
    counts: Tensor  # [3, M, K, L]: active, dropped, grown
    fraction: float

    def events(self) -> list[TopologyEvent]:
        """Read the counts: one transfer to the host."""
        return [
            TopologyEvent(member, active, dropped, grown, self.fraction)
            for member, active, dropped, grown in zip(
                self.members, *self.counts.tolist(), strict=True
            )
        ]
