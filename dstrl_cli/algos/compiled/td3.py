"""The update of `algos.td3` in compiled code; see there."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numba import boolean, float32, int64
from numpy.typing import NDArray
from typing_extensions import override

from dstrl_cli.algos.base import Due
from dstrl_cli.algos.compiled import numbers, shared
from dstrl_cli.algos.compiled.update import SOURCES as SHARED_SOURCES
from dstrl_cli.algos.compiled.update import CompiledUpdate
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.compiler import discard_stale, jit
from dstrl_cli.nets.sparse import passes, tables
from dstrl_cli.nets.sparse.passes import NetworkTable

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars

NOISE, CLIP, EXPLORATION = range(shared.OWN, shared.OWN + 3)
SMOOTHING = 0  # number of the only noise


@jit
def update(
    batch: int, actor: int, critic: int, actor_due: bool, targets_due: bool, nstep: int,
    drawn: int, smoothing: int,
) -> None:  # fmt: skip
    """Sample a batch and take one update.

    Args:
        batch, actor, critic: addresses of tables.
        actor_due, targets_due: what the update includes.
        nstep: steps of the target.
        drawn, smoothing: rows of the random numbers that choose the batch, and of the noise.
    """
    shared.sample(batch, critic, drawn, nstep)
    td_target(batch, actor, critic, smoothing)
    shared.update_critic(batch, critic)
    if actor_due:
        update_actor(batch, actor, critic)
        if targets_due:
            passes.update_target(critic)
            passes.update_target(actor)


@jit
def td_target(batch: int, actor: int, critic: int, smoothing: int) -> None:
    """Fill `target`: the n-step target with the smoothed target action and the smaller Q."""
    following = shared.path(batch)[0]
    shared.copy_rows(following, passes.passing(actor))
    shared.copy_rows(following, passes.passing(critic))
    passes.target(actor)
    smoothed_action(batch, passes.out(actor)[0], passes.passing(critic), smoothing)
    passes.target(critic)
    wanted, reward, discount = shared.target(batch), shared.reward(batch), shared.discount(batch)
    for tile in range(wanted.shape[0]):
        for j in range(wanted.shape[1]):
            q = shared.lowest_q(batch, critic, tile, j)
            wanted[tile, j] = reward[tile, j] + discount[tile, j] * q


@jit
def smoothed_action(batch: int, output: Array, x: Array, smoothing: int) -> None:
    """Write the action of the target policy with clipped noise into the last rows of x."""
    noise = tables.numbered(shared.noises(batch), SMOOTHING)[smoothing]
    scale, clip = shared.settings(batch)[NOISE], shared.settings(batch)[CLIP]
    first, one = x.shape[1] - output.shape[1], np.float32(1.0)
    for tile in range(output.shape[0]):
        start, here = tile * output.shape[2], shared.rows_of(batch, tile)
        for i in range(output.shape[1]):
            for j in range(here):
                added = noise[start + j, i] * scale
                added = clip if added > clip else added
                added = -clip if added < -clip else added
                action = numbers.tanh(output[tile, i, j]) + added
                action = one if action > one else action
                x[tile, first + i, j] = -one if action < -one else action


@jit
def update_actor(batch: int, actor: int, critic: int) -> None:
    """Take a step that raises the first critic's value of the policy's actions."""
    x, action = passes.first(critic), passes.out(actor)[0]
    shared.copy_rows(x, passes.first(actor))
    passes.forward(actor, 1)
    first, rows = x.shape[1] - action.shape[1], shared.starts(batch).shape[0]
    for tile in range(action.shape[0]):
        for i in range(action.shape[1]):
            for j in range(action.shape[2]):
                action[tile, i, j] = numbers.tanh(action[tile, i, j])
                x[tile, first + i, j] = action[tile, i, j]
    passes.forward(critic, 1)
    q, slopes = passes.out(critic)[0], passes.slopes(critic)[0]
    total, each = np.float32(0.0), np.float32(-1.0 / rows)
    for tile in range(q.shape[0]):
        here = shared.rows_of(batch, tile)
        for j in range(here):
            total += q[tile, 0, j]
            slopes[tile, 0, j] = each
        for j in range(here, q.shape[2]):
            slopes[tile, 0, j] = np.float32(0.0)
    loss = -total / np.float32(rows)
    shared.freeze_unless_finite(batch, loss)
    passes.backward(critic, 1, False, True)
    below, slopes = passes.first_gradient(critic), passes.slopes(actor)[0]
    for tile in range(action.shape[0]):
        for i in range(action.shape[1]):
            for j in range(action.shape[2]):
                a = action[tile, i, j]
                slopes[tile, i, j] = below[tile, first + i, j] * (np.float32(1.0) - a * a)
    passes.backward(actor, 1, True, False)
    if shared.alive(batch)[0]:
        passes.optimizer_step(actor)
    shared.actor_loss(batch)[0] += loss


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
    def take(self, due: Due, targets: bool, nstep: int, drawn: int) -> None:
        smoothing = self.algorithm.smoothing.row(self.algorithm.updates - 1)
        update(
            self.batch.address, self.actor.address, self.critic.address,
            due.actor, targets, nstep, drawn, smoothing,
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
    update.compile((int64, int64, int64, boolean, boolean, int64, int64, int64))
    act.compile((int64, int64, float32[:, ::1], int64))
