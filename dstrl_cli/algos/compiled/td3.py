"""The update of `algos.td3` in compiled code; see there."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from typing_extensions import override

from dstrl_cli.algos.base import Due
from dstrl_cli.algos.compiled import numbers, shared
from dstrl_cli.algos.compiled.update import SOURCES as SHARED_SOURCES
from dstrl_cli.algos.compiled.update import CompiledUpdate
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.compiler import discard_stale, inner, jit
from dstrl_cli.nets.sparse import passes, tables
from dstrl_cli.nets.sparse.passes import NetworkTable

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars

NOISE, CLIP, EXPLORATION = range(shared.OWN, shared.OWN + 3)
SMOOTHING = 0  # number of the only noise


@jit
def update(given: int) -> None:
    """Take one update; see `shared` for what is given."""
    shared.update_critic(given)
    if shared.word(given, shared.ACTOR_DUE):
        update_actor(given)
    if shared.word(given, shared.TARGETS_DUE):
        passes.update_target(shared.word(given, shared.CRITIC), shared.word(given, shared.BOARD))
        passes.update_target(shared.word(given, shared.ACTOR), shared.word(given, shared.BOARD))


@jit
def critic_block(given: int, block: int, worker: int) -> None:
    """Find the targets of a block of tiles, and regress the critics on them."""
    batch, actor, critic = shared.tables_of(given)
    smoothing = shared.word(given, shared.NOISES)
    first, last = shared.tiles_of(batch, block)
    for tile in range(first, last):
        td_target(batch, actor, critic, tile, smoothing, worker)
        shared.regress_all(batch, critic, tile, worker)


@inner
def td_target(batch: int, actor: int, critic: int, tile: int, smoothing: int, worker: int) -> None:
    """Fill `target`: the n-step target with the smoothed target action and the smaller Q."""
    wanted, reward, discount = shared.target(batch), shared.reward(batch), shared.discount(batch)
    following = shared.path(batch)[0, tile]
    shared.copy_rows(following, passes.passing(actor)[tile])
    shared.copy_rows(following, passes.passing(critic)[tile])
    passes.target(actor, 0, tile, worker)
    smoothed_action(batch, tile, actor, critic, smoothing)
    shared.target_q(critic, tile, worker)
    for j in range(wanted.shape[1]):
        q = shared.lowest_q(batch, critic, tile, j)
        wanted[tile, j] = reward[tile, j] + discount[tile, j] * q


@inner
def smoothed_action(batch: int, tile: int, actor: int, critic: int, smoothing: int) -> None:
    """Write the action of the target policy with clipped noise into the critics' input."""
    noise = tables.numbered(shared.noises(batch), SMOOTHING)[smoothing]
    scale, clip = shared.settings(batch)[NOISE], shared.settings(batch)[CLIP]
    output, x = passes.out(actor)[0, tile], passes.passing(critic)[tile]
    first, one = x.shape[0] - output.shape[0], np.float32(1.0)
    start, here = tile * output.shape[1], shared.rows_of(batch, tile)
    for i in range(output.shape[0]):
        for j in range(here):
            added = noise[start + j, i] * scale
            added = clip if added > clip else added
            added = -clip if added < -clip else added
            action = numbers.tanh(output[i, j]) + added
            action = one if action > one else action
            x[first + i, j] = -one if action < -one else action


@inner
def update_actor(given: int) -> None:
    """Take a step that raises the first critic's value of the policy's actions."""
    (batch, actor, critic), board = shared.tables_of(given), shared.word(given, shared.BOARD)
    total, rows = np.float32(0.0), np.float32(shared.starts(batch).shape[0])
    passes.begin_backward(critic, 1, board)
    passes.begin_backward(actor, 1, board)
    shared.in_blocks(given, shared.ACTOR_BLOCK)
    for tile in range(shared.target(batch).shape[0]):
        total += shared.sums(batch)[tile, 0, shared.VALUES]
    loss = -total / rows
    shared.freeze_unless_finite(batch, loss)
    if shared.alive(batch)[0]:
        passes.finish_backward(actor, 1, board)
        passes.optimizer_step(actor, board)
    shared.actor_loss(batch)[0] += loss


@jit
def actor_block(given: int, block: int, worker: int) -> None:
    """Backpropagate the mean Q of a block of tiles to the actor."""
    batch, actor, critic = shared.tables_of(given)
    first, last = shared.tiles_of(batch, block)
    for tile in range(first, last):
        raise_q(batch, actor, critic, tile, worker)


@inner
def raise_q(batch: int, actor: int, critic: int, tile: int, worker: int) -> None:
    """Backpropagate a tile's mean Q to the actor, and keep the sum of Q."""
    x, action = passes.first(critic)[tile], passes.out(actor)[0, tile]
    shared.copy_rows(x, passes.first(actor)[tile])
    passes.forward(actor, 0, tile, worker)
    first = x.shape[0] - action.shape[0]
    for i in range(action.shape[0]):
        for j in range(action.shape[1]):
            action[i, j] = numbers.tanh(action[i, j])
            x[first + i, j] = action[i, j]
    passes.forward(critic, 0, tile, worker)
    q, slopes = passes.out(critic)[0, tile, 0], passes.slopes(critic)[0, tile, 0]
    total, each = np.float32(0.0), np.float32(-1.0 / shared.starts(batch).shape[0])
    here = shared.rows_of(batch, tile)
    for j in range(here):
        total += q[j]
        slopes[j] = each
    for j in range(here, q.shape[0]):
        slopes[j] = np.float32(0.0)
    shared.sums(batch)[tile, 0, shared.VALUES] = total
    passes.backward(critic, 0, tile, False, first, worker)
    below, given = passes.first_gradient(critic)[tile], passes.slopes(actor)[0, tile]
    for i in range(action.shape[0]):
        for j in range(action.shape[1]):
            a = action[i, j]
            given[i, j] = below[first + i, j] * (np.float32(1.0) - a * a)
    passes.backward(actor, 0, tile, True, passes.inputs_of(actor), worker)


@jit
def act(batch: int, actor: int, observation: Array, step: int) -> None:
    """Write the action to take, and the noise-free one, for an observation [1, obs].

    A NaN action is replaced by zero; the next loss check freezes the member.
    """
    noise, scale = shared.exploration(batch)[step], shared.settings(batch)[EXPLORATION]
    output, one = passes.predict_row(actor, observation[0]), np.float32(1.0)
    taken, policy = shared.action(batch), shared.policy_action(batch)
    for i in range(taken.shape[0]):
        policy[i] = numbers.tanh(output[i])
        action = policy[i] + noise[i] * scale
        action = one if action > one else action
        action = -one if action < -one else action
        taken[i] = action if action == action else np.float32(0.0)


class CompiledTD3(CompiledUpdate):
    """Takes updates of TD3 by one call each."""

    ALGORITHM: ClassVar[type] = TD3
    UPDATE: ClassVar[Any] = update
    BLOCKS: ClassVar[tuple[Any, Any]] = (critic_block, actor_block)
    ACT: ClassVar[Any] = act
    NOISES: ClassVar[int] = 1
    CRITICS_TAKE_TURNS: ClassVar[bool] = True

    @override
    def own(self) -> dict[str, Any]:
        config = self.algorithm.config
        return {
            "noises": self.described([self.algorithm.smoothing]),
            "settings": self.settings(
                config.target_noise, config.target_noise_clip, self.algorithm.noise_scale.item()
            ),
        }

    @override
    def targets(self, due: Due) -> list[NetworkTable]:
        return [self.critic, self.actor] if due.actor and due.targets else []

    @override
    def noises(self, nstep: int) -> tuple[int, ...]:
        return (self.algorithm.smoothing.row(self.algorithm.updates - 1),)


FUNCTIONS = (critic_block, actor_block, update, act, *shared.FUNCTIONS)
SOURCES = (__file__, *SHARED_SOURCES)

discard_stale(update, SOURCES)


def compile_all() -> None:
    """Compile every function, or load it from disk."""
    shared.compile_for(update, (critic_block, actor_block), act)
