"""Lengths in episodes: which members have had theirs, and how far the rules of the others are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.models import RunConfig

NEVER = np.iinfo(np.int64).max


class EpisodeCount:
    """Follows the training episodes of members whose length is given in episodes.

    It keeps no state of its own: after `follow` with the episodes of every member, also of members
    that go on from a checkpoint, all rules know how far their runs are.

    Args:
        configs: of all members.
        algorithm: whose networks are told.

    Attributes:
        limits: episodes N of each member [P]; `NEVER` where only steps count.
        counts: whether any member counts episodes.
        done: episodes that each member has had [P].
    """

    def __init__(self, configs: Sequence[RunConfig], algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self.limits = np.array([NEVER if c.episodes is None else c.episodes for c in configs])
        self.counts = any(config.episodes is not None for config in configs)
        self.done = np.zeros(len(configs), dtype=np.int64)

    def follow(self, done: NDArray[np.int64]) -> None:
        """Note how many training episodes each member has had [P]; tell the rules what changed."""
        changed = (done != self.done) & (self.limits < NEVER)
        for member in np.flatnonzero(changed).tolist():
            share = min(1.0, int(done[member]) / int(self.limits[member]))
            for network in (self.algorithm.actor, self.algorithm.critic):
                network.set_episode_share(member, share)
        self.done = done.copy()

    def complete(self, members: Sequence[int]) -> list[int]:
        """Return those of `members` that have had all their episodes."""
        if not (self.done >= self.limits).any():
            return []
        return [member for member in members if self.done[member] >= self.limits[member]]

    def slowest(self, members: Sequence[int]) -> tuple[int, int]:
        """Return (episodes so far, all episodes) of the member that has the largest part to go."""
        last = min(members, key=lambda member: float(self.done[member] / self.limits[member]))
        return int(self.done[last]), int(self.limits[last])
