"""When a run trains, how many updates it takes then, and when it looks at device and time."""

from __future__ import annotations

from collections.abc import Mapping

from dstrl_cli.config.models import RunConfig
from dstrl_cli.envs.base import Step

CHECK_EVERY = 100
"""Steps after which device and time are read: to write files, report progress, find members that
diverged, and write checkpoints that are due by time."""


class UpdateTiming:
    """Counts environment steps and episodes, and says when updates are due.

    As in Stable-Baselines3, periods of `train_freq` steps or episodes follow one another from step
    0 on. At the end of each that lies beyond `learning_starts`, the run takes `gradient_steps`
    updates, or with -1 as many as the period had steps. A period that the end of the run cuts off
    is not trained on.

    Args:
        config: of the run, or of the members of a population, which share these keys.

    Attributes:
        steps, episodes: since the current period began; with the run's keys they are its state.
    """

    def __init__(self, config: RunConfig) -> None:
        self.every, self.by_episodes = config.train_every, config.trains_after_episodes
        self.gradient_steps, self.learning_starts = config.gradient_steps, config.learning_starts
        self.steps = self.episodes = 0

    def count(self, step: Step) -> None:
        """Count an environment step; where episodes are counted, it is that of a single member."""
        self.steps += 1
        if self.by_episodes:
            ended = step.ended if step.host is None else step.host.ended
            self.episodes += int(ended.item())

    def one_update_after(self, step: int) -> bool:
        """Return whether one update is due after environment step `step`, whatever it brings."""
        if self.by_episodes or self.steps + 1 < self.every or step <= self.learning_starts:
            return False
        return (self.every if self.gradient_steps < 0 else self.gradient_steps) == 1

    def updates_after(self, step: int) -> int:
        """Return the updates that are due after environment step `step`, which was counted."""
        if (self.episodes if self.by_episodes else self.steps) < self.every:
            return 0
        updates = self.steps if self.gradient_steps < 0 else self.gradient_steps
        self.steps = self.episodes = 0
        return updates if step > self.learning_starts else 0

    def state(self) -> dict[str, int]:
        """Return the steps and episodes since the current period began."""
        return {"steps": self.steps, "episodes": self.episodes}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Go on where `state` was returned."""
        self.steps, self.episodes = state["steps"], state["episodes"]
