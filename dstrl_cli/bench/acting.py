"""Times one action of a stored policy, which NumPy computes as in `dstrl eval`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dstrl_cli.bench.plan import Work
from dstrl_cli.bench.timing import Timing, repeat
from dstrl_cli.runs.policy import Policy


class Acting:
    """A stored policy that chooses one action at a time."""

    def __init__(self, work: Work, folder: Path) -> None:
        assert work.policy is not None
        self.policy = Policy.load(work.policy)
        size = (1, self.policy.observation_size)
        self.observation = np.random.default_rng(0).standard_normal(size).astype(np.float32)

    def run(self, seconds: float) -> Timing:
        """Repeat one action."""
        return repeat(lambda: self.policy.unit_action(self.observation), seconds)
