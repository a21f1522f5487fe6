"""What an engine needs to know to build one network: `NetworkPlan`, plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.topology.budgets import Shape


@dataclass(frozen=True)
class NetworkPlan:
    """The network of one role for P members: its layers, its heads, and the members' keys.

    Attributes:
        role: "actor" or "critic".
        sizes: input, hidden and output sizes.
        heads: stacked networks K per member.
        configs: the members' configurations.
        device: torch device.
    """

    role: str
    sizes: tuple[int, ...]
    heads: int
    configs: Sequence[RunConfig]
    device: str

    @property
    def shapes(self) -> list[Shape]:
        """(inputs, outputs) per layer."""
        return list(pairwise(self.sizes))

    @property
    def members(self) -> int:
        """Number of members P."""
        return len(self.configs)

    @property
    def head_names(self) -> list[str]:
        """What the heads are called in files and messages: actor; critic1, critic2, ..."""
        if self.role == "actor":
            return [self.role]
        return [f"{self.role}{head + 1}" for head in range(self.heads)]

    def network_config(self, member: int) -> NetworkConfig:
        """The member's keys for this role."""
        config: NetworkConfig = getattr(self.configs[member], self.role)
        return config
