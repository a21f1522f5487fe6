"""The first steps of a run, before anything is learned: random actions, or a learned policy's.

SOK (Fig. 3 and App. D) fills the replay buffer with samples of a learned policy instead of a purely
exploratory one. The noise on its actions is `prefill_noise`: SOK does not say if there was any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.frozen import FrozenNetworks


class WarmUp:
    """Acts for P members up to `learning_starts`; members may differ in what acts for them.

    Args:
        configs: of the members.
        action_size: entries of an action.
        device: torch device.
    """

    def __init__(self, configs: Sequence[RunConfig], action_size: int, device: str) -> None:
        seeds = [config.seed for config in configs]
        self.random = streams.uniform(seeds, "warm_up", (action_size,), device)
        taught = [m for m, config in enumerate(configs) if config.prefill_from is not None]
        self.policies: FrozenNetworks | None = None
        if taught:
            own = [configs[member] for member in taught]
            self.taught = torch.tensor(taught, device=device)
            self.policies = FrozenNetworks.of(own, "prefill", ["actor"], action_size, device)
            self.noise = streams.normal(
                [config.seed for config in own], "prefill", (action_size,), device
            )
            self.scale = torch.tensor([[config.prefill_noise] for config in own], device=device)

    def act(self, observation: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the actions to take and the noise-free ones, both [P, act] in [-1, 1].

        Args:
            observation: [P, obs].
            step: environment steps so far.
        """
        action = self.random.at(step) * 2 - 1
        if self.policies is None:
            return action, action
        of_policy = self.policies(observation.float()[self.taught].unsqueeze(1))
        clean = of_policy.flatten(1).tanh_().nan_to_num_()  # [taught, act]
        noisy = (clean + self.noise.at(step) * self.scale).clamp_(-1, 1)
        return (
            action.index_copy(0, self.taught, noisy),
            action.index_copy(0, self.taught, clean),
        )
