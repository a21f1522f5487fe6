"""SAC (Haarnoja et al. 2018) for a population: tanh-Gaussian policy, twin critics, temperature.

The temperature is learned (RLX's variant) or fixed, targets move softly or by hard copies, and the
standard deviation is squashed or clamped (the code that SOK builds on): keys, not code paths.
Actions are in [-1, 1]; the environment's side scales them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, linalg
from torch.nn import functional
from typing_extensions import override

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm, Due
from dstrl_cli.nets.adam import Adam
from dstrl_cli.replay.batch import Batch


@dataclass(frozen=True)
class Sampled:
    """Reparameterised actions with what their gradient needs, each [P, B, act]."""

    action: Tensor
    log_prob: Tensor  # [P, B]
    std: Tensor
    noise: Tensor
    source: Tensor  # what the log std was clamped or scaled from (`SAC.gaussian`)


class SAC(Algorithm):
    """SAC; n-step targets include the entropy of every step (RLX eq. 11)."""

    METRICS: ClassVar[dict[str, str]] = Algorithm.METRICS | {"alpha": "actor"}
    STATE: ClassVar[tuple[str, ...]] = ("log_alpha", "temperature")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config, device = self.config, self.device
        rows = (config.batch_size, self.action_size)
        self.exploration = streams.normal(self.seeds, "exploration", (self.action_size,), device)
        self.policy_noise = streams.normal(self.seeds, "policy_noise", rows, device)
        self.target_noise = [
            streams.normal(self.seeds, f"target_noise{k}", rows, device)
            for k in range(max(c.nstep for c in self.configs))
        ]
        self.noise_scale = torch.tensor(
            [[float(c.collect == "stochastic")] for c in self.configs], device=device
        )
        self.log_alpha = torch.full((len(self.configs), 1), math.log(config.alpha), device=device)
        self.temperature = Adam(self.log_alpha, config.learning_rate_at(0))
        given = config.target_entropy
        self.target_entropy = -float(self.action_size) if given is None else given

    @override
    def set_learning_rate(self, rate: float) -> None:
        super().set_learning_rate(rate)
        self.temperature.set_learning_rate(rate)

    @override
    def act(self, observation: Tensor) -> Tensor:
        return self.actor.predict(observation).squeeze(1)[..., : self.action_size].tanh()

    @override
    def sample_action(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        output = self.actor.predict(observation.unsqueeze(1)).flatten(1)  # [P, 2 act]
        mean, log_std, _ = self.gaussian(output)
        spread = noise * self.noise_scale
        return torch.addcmul(mean, log_std.exp(), spread).tanh_(), mean.tanh()

    @override
    def noise(self, max_nstep: int) -> tuple[Tensor, ...]:
        of_targets = [stream.at(self.updates - 1) for stream in self.target_noise[:max_nstep]]
        return (self.policy_noise.at(self.updates), *of_targets)

    @override
    def train_step(self, batch: Batch, noise: Sequence[Tensor], due: Due) -> None:
        policy_noise, *target_noise = noise
        self.update_critic(batch, self.soft_target(batch, target_noise))
        if due.actor:
            self.update_actor(batch, policy_noise)
        if due.targets:
            self.critic.update_target(self.config.tau)

    def alpha(self) -> Tensor:
        """Return the temperature of each member [P, 1]."""
        return self.log_alpha.exp()

    def gaussian(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean, log std, and what the log std is clamped or scaled from, each [..., act]."""
        mean, raw = output.chunk(2, dim=-1)
        low, high = self.config.log_std_bounds
        if self.config.log_std_squash == "clamp":
            return mean, raw.clamp(low, high), raw
        half, squashed = (high - low) / 2, raw.tanh()
        return mean, squashed.mul(half).add_(low + half), squashed

    def slope(self, source: Tensor) -> Tensor:
        """Return the derivative of the log std with respect to the network's output."""
        low, high = self.config.log_std_bounds
        if self.config.log_std_squash == "clamp":
            return ((source >= low) & (source <= high)).to(source.dtype)
        half = (high - low) / 2
        return (source * source).mul_(-half).add_(half)

    def sample(self, output: Tensor, noise: Tensor) -> Sampled:
        """Return a = tanh(u), u = mean + std noise, and log pi(a) for outputs [P, B, 2 act]."""
        mean, log_std, source = self.gaussian(output)
        std = log_std.exp()
        u = torch.addcmul(mean, std, noise)
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), without the cancellation;
        # softplus(u, beta=-2) is -softplus(-2 u) / 2
        squash = functional.softplus(u, beta=-2).mul_(4).sub_(u, alpha=2).add_(log_std)
        constant = (0.5 * math.log(2 * math.pi) + 2 * math.log(2.0)) * self.action_size
        log_prob = squash.sum(-1).add_(linalg.vecdot(noise, noise), alpha=0.5).add_(constant).neg_()
        return Sampled(u.tanh(), log_prob, std, noise, source)

    def soft_target(self, batch: Batch, noise: Sequence[Tensor]) -> Tensor:
        """Return the n-step soft target [P, B] (RLX eq. 11).

        Actions come from the current policy at every step of the path; the bootstrap uses the
        action of the last step taken.
        """
        target, bootstrap, alpha = batch.reward, batch.action, self.alpha()
        for k, (observation, discount) in enumerate(
            zip(batch.path, batch.path_discount, strict=True)
        ):
            drawn = self.sample(self.actor.predict(observation).squeeze(1), noise[k])
            target = torch.addcmul(target, alpha * discount, drawn.log_prob, value=-1)
            chosen = (batch.last == k).unsqueeze(-1)
            bootstrap = drawn.action if k == 0 else torch.where(chosen, drawn.action, bootstrap)
        q = self.critic.target(self.state_action(batch.next_observation, bootstrap))
        return torch.addcmul(target, batch.discount, q.squeeze(-1).amin(1))

    def update_actor(self, batch: Batch, noise: Tensor) -> None:
        """Minimise alpha log pi - min Q over reparameterised actions, then the temperature."""
        output = self.actor.forward(batch.observation).squeeze(1)
        drawn = self.sample(output, noise)
        q = self.critic.forward(self.state_action(batch.observation, drawn.action)).squeeze(-1)
        smallest, head = q.min(1)  # [P, B]
        alpha, rows = self.alpha(), q.shape[-1]
        loss = (alpha * drawn.log_prob - smallest).sum(-1) / rows
        self.freeze_unless_finite(loss)

        grad_q = torch.zeros_like(q).scatter_(1, head.unsqueeze(1), -1.0 / rows)
        grad_input = self.critic.backward(grad_q.unsqueeze(-1), weights=False, inputs=True)
        grad_action = grad_input[..., -self.action_size :]
        share = (alpha / rows).unsqueeze(-1)  # d loss / d log pi
        # da / du = 1 - a^2; d log pi / du = 2 a (from the squash); d log pi / d log_std = -1
        a = drawn.action
        grad_u = torch.addcmul(grad_action, a, 2 * share - grad_action * a)
        grad_log_std = (grad_u * drawn.std * drawn.noise - share) * self.slope(drawn.source)
        self.actor.backward(torch.cat((grad_u, grad_log_std), dim=-1).unsqueeze(1))
        self.actor.apply_update(self.alive, None, rows)

        if self.config.temperature == "learned":
            # d/d log_alpha of mean(alpha (-log pi - target entropy))
            excess = -drawn.log_prob.mean(-1, keepdim=True) - self.target_entropy
            self.temperature.step(alpha * excess, self.alive)
        self.record(actor_loss=loss, alpha=alpha.squeeze(1))
