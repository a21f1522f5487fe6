"""A deterministic policy: tanh of the actor's output, explored with Gaussian noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm


class DeterministicPolicy(Algorithm):
    """What TD3 and behaviour cloning share: how they act, and the noise of `exploration_noise`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        size, device = self.action_size, self.device
        self.exploration = streams.normal(self.seeds, "exploration", (size,), device)
        self.noise_scale = torch.tensor(
            [[c.exploration_noise * (c.collect == "stochastic")] for c in self.configs],
            device=device,
        )

    @override
    def act(self, observation: Tensor) -> Tensor:
        return self.actor.predict(observation).squeeze(1).tanh_()

    def explored(self, action: Tensor, noise: Tensor) -> Tensor:
        """Return the actions [P, act] to take instead of `action`, clipped to [-1, 1]."""
        return (action + noise * self.noise_scale).clamp_(-1, 1)
