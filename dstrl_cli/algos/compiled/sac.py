"""The update of `algos.sac` in compiled code; see there."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from dstrl_cli.algos.base import Due
from dstrl_cli.algos.compiled import numbers, shared
from dstrl_cli.algos.compiled.update import SOURCES as SHARED_SOURCES
from dstrl_cli.algos.compiled.update import CompiledUpdate
from dstrl_cli.algos.sac import SAC
from dstrl_cli.compiler import discard_stale, inner, jit
from dstrl_cli.nets.adam import BETA1, BETA2, EPSILON
from dstrl_cli.nets.sparse import kernels, passes, tables
from dstrl_cli.nets.sparse.passes import NetworkTable

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars

LOW, HIGH, CLAMPS, LEARNS, TARGET_ENTROPY, EXPLORATION = range(shared.OWN, shared.OWN + 6)
POLICY_NOISE, TARGET_NOISE = 0, 1  # numbers of the noises: of the actor's loss, of each step
LOSS, LOG_PROB = 0, 1  # of `shared.sums`, once the critics are through

_LOG_CONSTANT = np.float32(0.5 * math.log(2 * math.pi) + 2 * math.log(2.0))
"""What -log pi of one dimension holds besides noise, u and std."""


@jit
def update(given: int) -> None:
    """Take one update; see `shared` for what is given."""
    shared.update_critic(given)
    if shared.word(given, shared.ACTOR_DUE):
        update_actor(given)
    if shared.word(given, shared.TARGETS_DUE):
        passes.update_target(shared.word(given, shared.CRITIC), shared.word(given, shared.BOARD))


@jit
def critic_block(given: int, block: int, worker: int) -> None:
    """Find the targets of a block of tiles, and regress the critics on them."""
    batch, actor, critic = shared.tables_of(given)
    target_noise = shared.word(given, shared.NOISES + TARGET_NOISE)
    first, last = shared.tiles_of(batch, block)
    for tile in range(first, last):
        soft_target(batch, actor, critic, tile, target_noise, worker)
        shared.regress_all(batch, critic, tile, worker)


@inner
def alpha(batch: int) -> Float:
    """Return the temperature."""
    return np.float32(math.exp(shared.log_alpha(batch)[0]))


@inner
def draw(batch: int, tile: int, output: Array, noise: Array) -> None:
    """Turn outputs [2 act, T] of a tile into actions and their std, and find their log pi.

    a = tanh(u), u = mean + std noise. Every mean is replaced by its action. The other outputs, from
    which the log std is clamped or scaled, are replaced by the std, and `slope` takes the
    derivative of its log; `log_prob` takes log pi.
    """
    settings = shared.settings(batch)
    log_prob, slope = shared.log_prob(batch)[tile], shared.slope(batch)[tile]
    low, high, clamps = settings[LOW], settings[HIGH], settings[CLAMPS] > 0
    half = (high - low) * np.float32(0.5)
    size, zero, one, two = noise.shape[1], np.float32(0.0), np.float32(1.0), np.float32(2.0)
    start, here = tile * output.shape[1], shared.rows_of(batch, tile)
    for j in range(here):
        log_prob[j] = -_LOG_CONSTANT * np.float32(size)
    for i in range(size):
        for j in range(here):
            raw = output[size + i, j]
            if clamps:
                slope[i, j] = one if (raw >= low) & (raw <= high) else zero
                log_std = low if raw < low else raw
                log_std = high if log_std > high else log_std
            else:
                squashed = numbers.tanh(raw)
                slope[i, j] = half - half * squashed * squashed
                log_std = squashed * half + (low + half)
            std, number = numbers.exp(log_std), noise[start + j, i]
            u = output[i, j] + std * number
            output[i, j] = numbers.tanh(u)
            output[size + i, j] = std
            # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)), without the cancellation
            squash = two * (u + numbers.softplus(-two * u))
            log_prob[j] += squash - log_std - np.float32(0.5) * number * number


@inner
def soft_target(
    batch: int, actor: int, critic: int, tile: int, target_noise: int, worker: int
) -> None:
    """Fill `target`: the n-step soft target (RLX eq. 11).

    Actions come from the current policy at every step of the path; the bootstrap uses the action of
    the last step taken.
    """
    path, discount, wanted = shared.path(batch), shared.discount(batch), shared.target(batch)
    kernels.copy(shared.reward(batch)[tile], wanted[tile])
    for k in range(path.shape[0]):
        add_entropy(batch, actor, critic, tile, k, target_noise, worker)
    following, x = path[path.shape[0] - 1, tile], passes.passing(critic)[tile]
    shared.copy_rows(following, x)
    shared.target_q(critic, tile, worker)
    for j in range(shared.rows_of(batch, tile)):
        wanted[tile, j] += discount[tile, j] * shared.lowest_q(batch, critic, tile, j)


@inner
def add_entropy(
    batch: int, actor: int, critic: int, tile: int, k: int, target_noise: int, worker: int
) -> None:
    """Add the entropy of step k to `target`, and its action to the input where it is the last."""
    noise = tables.numbered(shared.noises(batch), TARGET_NOISE + k)[target_noise]
    shared.copy_rows(shared.path(batch)[k, tile], passes.passing(actor)[tile])
    passes.predict(actor, 0, tile, worker)
    output, x = passes.out(actor)[0, tile], passes.passing(critic)[tile]
    draw(batch, tile, output, noise)
    wanted, log_prob, last = (
        shared.target(batch)[tile], shared.log_prob(batch)[tile], shared.last(batch)[tile]
    )  # fmt: skip
    discount, temperature = shared.path_discount(batch)[k, tile], alpha(batch)
    size, here = noise.shape[1], shared.rows_of(batch, tile)
    first = x.shape[0] - size
    for j in range(here):
        wanted[j] -= temperature * discount[j] * log_prob[j]
    for i in range(size):
        for j in range(here):
            x[first + i, j] = output[i, j] if last[j] == k else x[first + i, j]


@inner
def update_actor(given: int) -> None:
    """Minimise alpha log pi - min Q over reparameterised actions, then the temperature."""
    (batch, actor, critic), board = shared.tables_of(given), shared.word(given, shared.BOARD)
    rows, temperature = np.float32(shared.starts(batch).shape[0]), alpha(batch)
    total, log_probs = np.float32(0.0), np.float32(0.0)
    passes.begin_backward(critic, passes.rows(critic).shape[0], board)
    passes.begin_backward(actor, 1, board)
    shared.in_blocks(given, shared.ACTOR_BLOCK)
    for tile in range(shared.target(batch).shape[0]):
        total += shared.sums(batch)[tile, 0, LOSS]
        log_probs += shared.sums(batch)[tile, 0, LOG_PROB]
    loss = total / rows
    shared.freeze_unless_finite(batch, loss)
    if shared.alive(batch)[0]:
        passes.finish_backward(actor, 1, board)
        passes.optimizer_step(actor, board)
        if shared.settings(batch)[LEARNS] > 0:
            # d/d log_alpha of mean(alpha (-log pi - target entropy))
            excess = -log_probs / rows - shared.settings(batch)[TARGET_ENTROPY]
            step_temperature(batch, temperature * excess)
    shared.actor_loss(batch)[0] += loss
    shared.alpha(batch)[0] += temperature


@jit
def actor_block(given: int, block: int, worker: int) -> None:
    """Backpropagate the loss of a block of tiles to the actor."""
    batch, actor, critic = shared.tables_of(given)
    drawn = shared.word(given, shared.NOISES + POLICY_NOISE)
    noise = tables.numbered(shared.noises(batch), POLICY_NOISE)[drawn]
    first, last = shared.tiles_of(batch, block)
    for tile in range(first, last):
        lower_loss(batch, actor, critic, tile, noise, worker)


@inner
def lower_loss(batch: int, actor: int, critic: int, tile: int, noise: Array, worker: int) -> None:
    """Backpropagate a tile's loss to the actor, and keep the sums of the loss and of log pi."""
    x, drawn, heads = passes.first(critic)[tile], passes.out(actor)[0, tile], passes.rows(critic)
    size, here = noise.shape[1], shared.rows_of(batch, tile)
    first = x.shape[0] - size
    shared.copy_rows(x, passes.first(actor)[tile])
    passes.forward(actor, 0, tile, worker)
    draw(batch, tile, drawn, noise)
    for i in range(size):
        for j in range(here):
            x[first + i, j] = drawn[i, j]
    for k in range(heads.shape[0]):
        passes.forward(critic, k, tile, worker)
    temperature, found = alpha(batch), shared.sums(batch)[tile, 0]
    found[LOSS], found[LOG_PROB] = lowest_q_slopes(batch, critic, tile, temperature)
    for k in range(heads.shape[0]):
        passes.backward(critic, k, tile, False, first, worker)
    share = temperature / np.float32(shared.starts(batch).shape[0])
    action_slopes(batch, actor, critic, tile, noise, share)
    passes.backward(actor, 0, tile, True, passes.inputs_of(actor), worker)


@inner
def lowest_q_slopes(batch: int, critic: int, tile: int, temperature: Float) -> tuple[Float, Float]:
    """Fill the critics' slopes; return the sums of alpha log pi - min Q and of log pi."""
    q, slopes, log_prob = passes.out(critic), passes.slopes(critic), shared.log_prob(batch)[tile]
    total, log_probs = np.float32(0.0), np.float32(0.0)
    each = np.float32(-1.0 / shared.starts(batch).shape[0])
    for k in range(q.shape[0]):
        slopes[k, tile] = np.float32(0.0)
    for j in range(shared.rows_of(batch, tile)):
        lowest, head = q[0, tile, 0, j], 0
        for k in range(1, q.shape[0]):
            other = q[k, tile, 0, j]
            if other < lowest or other != other:
                lowest, head = other, k
        slopes[head, tile, 0, j] = each
        total += temperature * log_prob[j] - lowest
        log_probs += log_prob[j]
    return total, log_probs


@inner
def action_slopes(
    batch: int, actor: int, critic: int, tile: int, noise: Array, share: Float
) -> None:
    """Fill the actor's slopes from the gradient of the critics' input.

    `share` is d loss / d log pi; da / du = 1 - a^2; d log pi / du = 2 a (from the squash);
    d log pi / d log_std = -1.
    """
    below, drawn = passes.first_gradient(critic)[tile], passes.out(actor)[0, tile]
    slopes, slope = passes.slopes(actor)[0, tile], shared.slope(batch)[tile]
    size, start, here = noise.shape[1], tile * drawn.shape[1], shared.rows_of(batch, tile)
    first = below.shape[0] - size
    slopes[:] = np.float32(0.0)
    for i in range(size):
        for j in range(here):
            a, grad = drawn[i, j], below[first + i, j]
            grad_u = grad + a * (np.float32(2.0) * share - grad * a)
            through = grad_u * drawn[size + i, j] * noise[start + j, i]
            slopes[i, j] = grad_u
            slopes[size + i, j] = (through - share) * slope[i, j]


@inner
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
    UPDATE: ClassVar[Any] = update
    BLOCKS: ClassVar[tuple[Any, Any]] = (critic_block, actor_block)
    ACT: ClassVar[Any] = act
    NOISES: ClassVar[int] = 2
    CRITICS_TAKE_TURNS: ClassVar[bool] = False  # the actor needs the smaller of their values

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
    def noises(self, nstep: int) -> tuple[int, ...]:
        algorithm = self.algorithm
        for stream in algorithm.target_noise[:nstep]:
            target_noise = stream.row(algorithm.updates - 1)
        policy_noise = algorithm.policy_noise.row(algorithm.updates)
        return policy_noise, target_noise


FUNCTIONS = (critic_block, actor_block, update, act, *shared.FUNCTIONS)
SOURCES = (__file__, *SHARED_SOURCES)

discard_stale(update, SOURCES)


def compile_all() -> None:
    """Compile every function, or load it from disk."""
    shared.compile_for(update, (critic_block, actor_block), act)
