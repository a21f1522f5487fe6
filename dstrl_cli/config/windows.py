"""From shares of training to a network's own updates: when budgets move and swaps happen.

Plain arithmetic, shared by what is said before a run and by the rules that act in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.rulekeys import TopologyConfig


def update_at(share: float, total: int) -> int:
    """Return the first of `total` updates (from 1) at which `share` of them is done; 0 for none."""
    return math.ceil(round(share * total, 6))


def updates_apart(config: RunConfig, role: str) -> int:
    """Return the updates of the critics from one update of a network to the next."""
    return config.policy_delay if role == "actor" else 1


def updates(config: RunConfig, role: str) -> int:
    """Return how many updates a network has in the whole run, if steps end it."""
    return max(0, config.updates_until(config.steps)) // updates_apart(config, role)


def last_changing_step(config: RunConfig, role: str) -> int:
    """Return the environment step at which `stop_before_end` begins; it may be negative."""
    network: NetworkConfig = getattr(config, role)
    return config.steps - network.topology.stop_before_end


def end_of_changes(config: RunConfig, role: str) -> int:
    """Return the update of a network at which `stop_before_end` begins; it may be negative."""
    until = config.updates_until(last_changing_step(config, role))
    return int(until / updates_apart(config, role))


def windows(config: RunConfig, role: str) -> Windows:
    """Return the updates of a network at which its topology may change."""
    network: NetworkConfig = getattr(config, role)
    return Windows(network.topology, updates(config, role), end_of_changes(config, role))


@dataclass(frozen=True)
class Windows:
    """The updates of a network at which its topology may change, where steps end the run.

    Attributes:
        rule: the keys.
        total: the network's updates in the run.
        end: those after which its topology stays as it is (`stop_before_end`).
    """

    rule: TopologyConfig
    total: int
    end: int

    @property
    def move(self) -> tuple[int, int]:
        """The updates at which the budget begins to move, and has arrived."""
        start, end = self.rule.budget_window
        return update_at(start, self.total), max(1, update_at(end, self.total))

    @property
    def swap(self) -> tuple[int, int]:
        """The updates after which, and before which, connections are swapped."""
        start, end = self.rule.swap_start, self.rule.swap_end
        return update_at(start, self.total), min(self.end, update_at(end, self.total))

    @property
    def origin(self) -> int:
        """The update from which `update_interval` is counted."""
        return self.move[0] if self.rule.moves_budget else self.rule.update_offset

    def planned(self, update: int) -> bool:
        """Whether a whole number of intervals lies between an update and their origin."""
        return (update - self.origin) % self.rule.update_interval == 0

    @property
    def first_swap(self) -> int:
        """The first update at which connections may be swapped, if it is a planned one."""
        return max(1, self.swap[0] + 1, 0 if self.rule.moves_budget else self.rule.update_offset)

    def drops_at_last(self) -> bool:
        """Whether `final_drop` adds a change: the first planned one at or after the last swap."""
        earliest = max(self.first_swap, self.swap[1])
        return self.rule.final_drop and self._planned_within(earliest, self.total) > 0

    def count(self) -> int:
        """Return how many updates change the topology, all in all; `final_drop` may add one."""
        acting = []
        if self.rule.schedule != "static":
            acting.append((self.first_swap, min(self.swap[1] - 1, self.total)))
        arrival = 0
        if self.rule.moves_budget:
            acting.append((max(1, self.move[0]), self.move[1]))
            arrival = not self.planned(self.move[1])
        found = sum(self._planned_within(*window) for window in acting)
        if len(acting) == 2:
            both = max(each[0] for each in acting), min(each[1] for each in acting)
            found -= self._planned_within(*both)
        return found + arrival

    def _planned_within(self, first: int, last: int) -> int:
        """Return how many planned updates lie between two, these included."""
        if last < first:
            return 0
        interval = self.rule.update_interval
        return (last - self.origin) // interval - (first - 1 - self.origin) // interval
