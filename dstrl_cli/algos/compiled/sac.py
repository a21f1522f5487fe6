"""The update of `algos.sac` in compiled code; see there."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numba import boolean, float32, int64
from numpy.typing import NDArray
from typing_extensions import override

from dstrl_cli.algos.base import Due
from dstrl_cli.algos.compiled import numbers, shared
from dstrl_cli.algos.compiled.update import SOURCES as SHARED_SOURCES
from dstrl_cli.algos.compiled.update import CompiledUpdate
from dstrl_cli.algos.sac import SAC
from dstrl_cli.compiler import discard_stale, jit
from dstrl_cli.nets.adam import BETA1, BETA2, EPSILON
from dstrl_cli.nets.sparse import passes, tables
from dstrl_cli.nets.sparse.passes import NetworkTable

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars

LOW, HIGH, CLAMPS, LEARNS, TARGET_ENTROPY, EXPLORATION = range(shared.OWN, shared.OWN + 6)
POLICY_NOISE, TARGET_NOISE = 0, 1  # numbers of the noises: of the actor's loss, of each step

_LOG_CONSTANT = np.float32(0.5 * math.log(2 * math.pi) + 2 * math.log(2.0))
"""What -log pi of one dimension holds besides noise, u and std."""


@jit
def update(
    batch: int, actor: int, critic: int, actor_due: bool, targets_due: bool, nstep: int,
    drawn: int, policy_noise: int, target_noise: int,
) -> None:  # fmt: skip
    """Sample a batch and take one update.

    Args:
        batch, actor, critic: addresses of tables.
        actor_due, targets_due: what the update includes.
        nstep: steps of the target.
        drawn, policy_noise, target_noise: rows of the random numbers that choose the batch, and of
            the noises.
    """
    shared.sample(batch, critic, drawn, nstep)
    soft_target(batch, actor, critic, target_noise)
    shared.update_critic(batch, critic)
    if actor_due:
        update_actor(batch, actor, critic, policy_noise)
    if targets_due:
        passes.update_target(critic)


@jit
def alpha(batch: int) -> Float:
    """Return the temperature."""
    return np.float32(math.exp(shared.log_alpha(batch)[0]))


@jit
def draw(batch: int, output: Array, noise: Array) -> None:
    """Turn outputs [tiles, 2 act, T] into actions and the log of their std, with their log pi.

    a = tanh(u), u = mean + std noise. Every mean is replaced by its action. The other outputs, from
    which the log std is clamped or scaled, are replaced by the std, and `slope` takes the
    derivative of its log; `log_prob` takes log pi.
    """
    settings, log_prob, slope = shared.settings(batch), shared.log_prob(batch), shared.slope(batch)
    low, high, clamps = settings[LOW], settings[HIGH], settings[CLAMPS] > 0
    half = (high - low) * np.float32(0.5)
    size, zero, one, two = noise.shape[1], np.float32(0.0), np.float32(1.0), np.float32(2.0)
    for tile in range(output.shape[0]):
        start, here = tile * output.shape[2], shared.rows_of(batch, tile)
        for j in range(here):
            log_prob[tile, j] = -_LOG_CONSTANT * np.float32(size)
        for i in range(size):
            for j in range(here):
                raw = output[tile, size + i, j]
                if clamps:
                    inside = (raw >= low) & (raw <= high)
                    slope[tile, i, j] = one if inside else zero
                    log_std = low if raw < low else raw
                    log_std = high if log_std > high else log_std
                else:
                    squashed = numbers.tanh(raw)
                    slope[tile, i, j] = half - half * squashed * squashed
                    log_std = squashed * half + (low + half)
                std, number = numbers.exp(log_std), noise[start + j, i]
                u = output[tile, i, j] + std * number
                output[tile, i, j] = numbers.tanh(u)
                output[tile, size + i, j] = std
                # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), without the cancellation
                squash = two * (u + numbers.softplus(-two * u))
                log_prob[tile, j] += squash - log_std - np.float32(0.5) * number * number


@jit
def soft_target(batch: int, actor: int, critic: int, target_noise: int) -> None:
    """Fill `target`: the n-step soft target (RLX eq. 11).

    Actions come from the current policy at every step of the path; the bootstrap uses the action of
    the last step taken.
    """
    path, path_discount, last = shared.path(batch), shared.path_discount(batch), shared.last(batch)
    wanted, log_prob = shared.target(batch), shared.log_prob(batch)
    output, x, temperature = passes.out(actor)[0], passes.passing(critic), alpha(batch)
    size = output.shape[1] // 2
    first = x.shape[1] - size
    wanted[:] = shared.reward(batch)
    for k in range(path.shape[0]):
        shared.copy_rows(path[k], passes.passing(actor))
        passes.predict(actor)
        draw(batch, output, tables.numbered(shared.noises(batch), TARGET_NOISE + k)[target_noise])
        for tile in range(output.shape[0]):
            for j in range(shared.rows_of(batch, tile)):
                wanted[tile, j] -= temperature * path_discount[k, tile, j] * log_prob[tile, j]
            for i in range(size):
                for j in range(shared.rows_of(batch, tile)):
                    if last[tile, j] == k:
                        x[tile, first + i, j] = output[tile, i, j]
    shared.copy_rows(path[path.shape[0] - 1], x[:, :first])
    passes.target(critic)
    discount = shared.discount(batch)
    for tile in range(output.shape[0]):
        for j in range(shared.rows_of(batch, tile)):
            wanted[tile, j] += discount[tile, j] * shared.lowest_q(batch, critic, tile, j)


@jit
def update_actor(batch: int, actor: int, critic: int, policy_noise: int) -> None:
    """Minimise alpha log pi - min Q over reparameterised actions, then the temperature."""
    x, drawn = passes.first(critic), passes.out(actor)[0]
    noise = tables.numbered(shared.noises(batch), POLICY_NOISE)[policy_noise]
    size, rows, temperature = noise.shape[1], shared.starts(batch).shape[0], alpha(batch)
    first = x.shape[1] - size
    shared.copy_rows(x[:, :first], passes.first(actor))
    passes.forward(actor, 1)
    draw(batch, drawn, noise)
    for tile in range(drawn.shape[0]):
        for i in range(size):
            for j in range(shared.rows_of(batch, tile)):
                x[tile, first + i, j] = drawn[tile, i, j]
    heads = passes.out(critic).shape[0]
    passes.forward(critic, heads)
    loss, log_probs = lowest_q_slopes(batch, critic, temperature)
    shared.freeze_unless_finite(batch, loss)
    passes.backward(critic, heads, False, True)
    action_slopes(batch, actor, critic, noise, temperature / np.float32(rows))
    passes.backward(actor, 1, True, False)
    if shared.alive(batch)[0]:
        passes.optimizer_step(actor)
        if shared.settings(batch)[LEARNS] > 0:
            # d/d log_alpha of mean(alpha (-log pi - target entropy))
            excess = -log_probs / np.float32(rows) - shared.settings(batch)[TARGET_ENTROPY]
            step_temperature(batch, temperature * excess)
    shared.actor_loss(batch)[0] += loss
    shared.alpha(batch)[0] += temperature


@jit
def lowest_q_slopes(batch: int, critic: int, temperature: Float) -> tuple[Float, Float]:
    """Return the mean of alpha log pi - min Q, and the sum of log pi; fill the critics' slopes."""
    q, slopes, log_prob = passes.out(critic), passes.slopes(critic), shared.log_prob(batch)
    rows = shared.starts(batch).shape[0]
    total, log_probs, each = np.float32(0.0), np.float32(0.0), np.float32(-1.0 / rows)
    slopes[:] = np.float32(0.0)
    for tile in range(q.shape[1]):
        for j in range(shared.rows_of(batch, tile)):
            lowest, head = q[0, tile, 0, j], 0
            for k in range(1, q.shape[0]):
                other = q[k, tile, 0, j]
                if other < lowest or other != other:
                    lowest, head = other, k
            slopes[head, tile, 0, j] = each
            total += temperature * log_prob[tile, j] - lowest
            log_probs += log_prob[tile, j]
    return total / np.float32(rows), log_probs


@jit
def action_slopes(batch: int, actor: int, critic: int, noise: Array, share: Float) -> None:
    """Fill the actor's slopes from the gradient of the critics' input.

    `share` is d loss / d log pi; da / du = 1 - a^2; d log pi / du = 2 a (from the squash);
    d log pi / d log_std = -1.
    """
    below, drawn, slopes = passes.first_gradient(critic), passes.out(actor)[0], passes.slopes(actor)
    slope, size = shared.slope(batch), noise.shape[1]
    first = below.shape[1] - size
    slopes[:] = np.float32(0.0)
    for tile in range(drawn.shape[0]):
        start, here = tile * drawn.shape[2], shared.rows_of(batch, tile)
        for i in range(size):
            for j in range(here):
                a, grad = drawn[tile, i, j], below[tile, first + i, j]
                grad_u = grad + a * (np.float32(2.0) * share - grad * a)
                through = grad_u * drawn[tile, size + i, j] * noise[start + j, i]
                slopes[0, tile, i, j] = grad_u
                slopes[0, tile, size + i, j] = (through - share) * slope[tile, i, j]


@jit
def step_temperature(batch: int, gradient: Float) -> None:
    """Take one Adam step of log alpha."""
    first, second = shared.alpha_first(batch), shared.alpha_second(batch)
    powers, one = shared.alpha_powers(batch), np.float32(1.0)
    powers[0] *= BETA1
    powers[1] *= BETA2
    first[0] += (gradient - first[0]) * (one - np.float32(BETA1))
    second[0] += (gradient * gradient - second[0]) * (one - np.float32(BETA2))
    size = np.float32(shared.alpha_rate(batch)[0] / max(1 - powers[0], 1e-16))
    scale = np.float32(1 / math.sqrt(max(1 - powers[1], 1e-16)))
    root = np.float32(math.sqrt(second[0])) * scale + np.float32(EPSILON)
    shared.log_alpha(batch)[0] -= size * first[0] / root


@jit
def act(batch: int, actor: int, observation: Array, step: int) -> None:
    """Write the action to take, and the noise-free one, for an observation [1, obs].

    A NaN action is replaced by zero; the next loss check freezes the member.
    """
    settings, noise = shared.settings(batch), shared.exploration(batch)[step]
    low, high, clamps = settings[LOW], settings[HIGH], settings[CLAMPS] > 0
    output, half = passes.predict_row(actor, observation[0]), (high - low) * np.float32(0.5)
    taken, policy = shared.action(batch), shared.policy_action(batch)
    size = taken.shape[0]
    for i in range(size):
        log_std = output[size + i]
        if clamps:
            log_std = low if log_std < low else log_std
            log_std = high if log_std > high else log_std
        else:
            log_std = numbers.tanh(log_std) * half + (low + half)
        policy[i] = numbers.tanh(output[i])
        spread = noise[i] * settings[EXPLORATION]
        action = numbers.tanh(output[i] + numbers.exp(log_std) * spread)
        taken[i] = action if action == action else np.float32(0.0)


class CompiledSAC(CompiledUpdate):
    """Takes updates of SAC by one call each."""

    ALGORITHM: ClassVar[type] = SAC

    @override
    def own(self) -> dict[str, Any]:
        algorithm, config, adam = self.algorithm, self.algorithm.config, self.algorithm.temperature
        tiles, lanes = self.shape
        noises = [algorithm.policy_noise, *algorithm.target_noise]
        settings = [
            *config.log_std_bounds,
            config.log_std_squash == "clamp",
            config.temperature == "learned",
            algorithm.target_entropy,
            algorithm.noise_scale.item(),
        ]
        return {
            "noises": self.described(noises),
            "settings": self.settings(*settings),
            "log_prob": np.zeros((tiles, lanes), np.float32),
            "slope": np.zeros((tiles, algorithm.action_size, lanes), np.float32),
            "log_alpha": algorithm.log_alpha[0].numpy(),
            "alpha_first": adam.first[0].numpy(),
            "alpha_second": adam.second[0].numpy(),
            "alpha_powers": adam.powers.view(-1).numpy(),
            "alpha_rate": adam.learning_rate.view(1).numpy(),
        }

    @override
    def path_steps(self, nstep: int) -> int:
        return nstep

    @override
    def targets(self, due: Due) -> list[NetworkTable]:
        return [self.critic] if due.targets else []

    @override
    def take(self, due: Due, targets: bool, nstep: int, drawn: int) -> None:
        algorithm = self.algorithm
        for stream in algorithm.target_noise[:nstep]:
            target_noise = stream.row(algorithm.updates - 1)
        policy_noise = algorithm.policy_noise.row(algorithm.updates)
        update(
            self.batch.address, self.actor.address, self.critic.address,
            due.actor, targets, nstep, drawn, policy_noise, target_noise,
        )  # fmt: skip

    @override
    def write_action(self, observation: NDArray[Any], step: int) -> None:
        act(self.batch.address, self.actor.address, observation, step)


FUNCTIONS = (update, act, *shared.FUNCTIONS)
SOURCES = (__file__, *SHARED_SOURCES)

discard_stale(update, SOURCES)


def compile_all() -> None:
    """Compile every function, or load it from disk."""
    shared.compile_all()
    update.compile((int64, int64, int64, boolean, boolean, int64, int64, int64, int64))
    act.compile((int64, int64, float32[:, ::1], int64))
