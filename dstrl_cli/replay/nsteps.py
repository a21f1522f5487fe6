"""n of the n-step returns, which may differ between members and starts at 1 (RLX Alg. 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dstrl_cli.config.models import RunConfig


class NSteps:
    """n of each member at each critic update: 1 until update T_0, then the member's `nstep`.

    Attributes:
        tensor: the values in force [P, 1]; it changes in place when a member passes its T_0.
        values, max_nstep: the same on the host, and the largest of them.
    """

    def __init__(self, configs: Sequence[RunConfig], device: str) -> None:
        self.configs = configs
        self.changes = {config.nstep_delay for config in configs}
        self.nstep = torch.tensor([[c.nstep] for c in configs], device=device)  # [P, 1]
        self.delay = torch.tensor([[c.nstep_delay] for c in configs], device=device)  # T_0 [P, 1]
        self.tensor = torch.ones_like(self.nstep)
        self.set(1)

    def set(self, update: int) -> None:
        """Find the values in force at `update` (from 1)."""
        self.values = [c.nstep if update >= c.nstep_delay else 1 for c in self.configs]
        self.tensor.copy_(torch.where(self.delay <= update, self.nstep, 1))
        self.max_nstep = max(self.values)

    def at(self, update: int) -> tuple[Tensor, int]:
        """Return n of each member [P, 1] and the largest at `update` (from 1)."""
        if update in self.changes:
            self.set(update)
        return self.tensor, self.max_nstep
