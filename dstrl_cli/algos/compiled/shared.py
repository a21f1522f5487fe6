"""What the compiled updates share: the batch, the regression of the critics, metrics.

`batch` is the table of one run's batch and counters; `actor` and `critic` are those of its networks
(`nets.sparse.passes`). T rows of the batch lie side by side in a tile; rows past the batch are zero
where they enter a network, and have no gradient.

An update is given the address of whole numbers: those of the tables of batch, actor and critics, a
board or 0 (`nets.sparse.partner`), the addresses of its two functions that take a block of tiles
(`in_blocks`), what it includes (0 or 1), the steps of its target, the row of the random numbers
that choose the batch, and from `NOISES` on the rows of the algorithm's noises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import boolean, float32, int64

from dstrl_cli.compiler import discard_stale, inlined, inner, jit
from dstrl_cli.nets.sparse import passes
from dstrl_cli.nets.sparse.pieces import share
from dstrl_cli.nets.sparse.tables import Layout, numbers_at
from dstrl_cli.replay import kernels

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars

LAYOUT = Layout()
_floats, _longs = np.float32, np.int64

# the replay buffer of the one member, and the random numbers that choose from it [block, B]
state_actions = LAYOUT.field("state_actions", _floats, 2)
ends = LAYOUT.field("ends", _floats, 2)
slots = LAYOUT.field("slots", np.int32, 1)
free = LAYOUT.field("free", np.int32, 1)
live = LAYOUT.field("live", _longs, 1)
outcomes = LAYOUT.field("outcomes", _floats, 2)
position = LAYOUT.field("position", _longs, 1)
size = LAYOUT.field("size", _longs, 1)
policy_actions = LAYOUT.field("policy_actions", _floats, 2)  # [0, act] unless they are kept
powers = LAYOUT.field("powers", _floats, 1)
numbers = LAYOUT.field("numbers", np.float64, 2)
starts = LAYOUT.field("starts", _longs, 1)
# the batch: [tiles, T], and for each of the n steps of a path
reward = LAYOUT.field("reward", _floats, 2)
discount = LAYOUT.field("discount", _floats, 2)
last = LAYOUT.field("last", _longs, 2)
path = LAYOUT.field("path", _floats, 4)
path_discount = LAYOUT.field("path_discount", _floats, 3)
target = LAYOUT.field("target", _floats, 2)
sums = LAYOUT.field("sums", _floats, 3)  # [tiles, critics, 3]: what a tile adds to the metrics
# the algorithm's noise: a table of arrays [block, B, act]
noises = LAYOUT.field("noises", _longs, 2)
# keys of the run: gamma, then what the algorithm reads
settings = LAYOUT.field("settings", _floats, 1)
# acting: the noise of every step [block, act]; the action to take and that without noise
exploration = LAYOUT.field("exploration", _floats, 2)
action = LAYOUT.field("action", _floats, 1)
policy_action = LAYOUT.field("policy_action", _floats, 1)
# what the algorithm counts
alive = LAYOUT.field("alive", np.bool_, 1)
critic_loss = LAYOUT.field("critic_loss", _floats, 1)
q_mean = LAYOUT.field("q_mean", _floats, 1)
td_error = LAYOUT.field("td_error", _floats, 1)  # of every critic, the batch's sum
actor_loss = LAYOUT.field("actor_loss", _floats, 1)
# of SAC: log pi [tiles, T], d log std / d output [tiles, act, T]; the temperature and its Adam
log_prob = LAYOUT.field("log_prob", _floats, 2)
slope = LAYOUT.field("slope", _floats, 3)
alpha = LAYOUT.field("alpha", _floats, 1)
log_alpha = LAYOUT.field("log_alpha", _floats, 1)
alpha_first = LAYOUT.field("alpha_first", _floats, 1)
alpha_second = LAYOUT.field("alpha_second", _floats, 1)
alpha_powers = LAYOUT.field("alpha_powers", np.float64, 1)
alpha_rate = LAYOUT.field("alpha_rate", np.float64, 1)

GAMMA, OWN = 0, 1
"""Place in the settings of the key that every algorithm has, and of the first of its own."""
BATCH, ACTOR, CRITIC, BOARD, CRITIC_BLOCK, ACTOR_BLOCK, ACTOR_DUE, TARGETS_DUE = range(8)
NSTEP, DRAWN, NOISES = range(8, 11)
"""Places of what an update is given."""
SQUARES, VALUES, ERRORS = range(3)
"""Places in `sums` of what the critics' regression adds."""


@inlined
def word(given: int, place: int) -> int:
    """Return one of the numbers that an update is given."""
    return numbers_at(given, place + 1)[place]


@inlined
def tables_of(given: int) -> tuple[int, int, int]:
    """Return the addresses of the tables of batch, actor and critics."""
    return word(given, BATCH), word(given, ACTOR), word(given, CRITIC)


@inner
def rows_of(batch: int, tile: int) -> int:
    """Return how many rows of the batch a tile holds."""
    lanes = reward(batch).shape[1]
    return min(lanes, starts(batch).shape[0] - tile * lanes)


@inner
def sample(given: int) -> None:
    """Sample a batch into its table and the critics' `first`."""
    batch, _, critic = tables_of(given)
    kernels.sample_tiles(
        numbers(batch)[word(given, DRAWN)], word(given, NSTEP), settings(batch)[GAMMA],
        powers(batch), state_actions(batch), ends(batch), slots(batch), outcomes(batch),
        position(batch), size(batch), starts(batch), passes.first(critic), reward(batch),
        discount(batch), last(batch), path(batch), path_discount(batch),
    )  # fmt: skip


@jit
def next_row(batch: int) -> int:
    """Count one more transition as stored; return the row of the replay buffer that is its own."""
    row, capacity = position(batch)[0], outcomes(batch).shape[0]
    kernels.claim_row(
        state_actions(batch), ends(batch), slots(batch), free(batch), live(batch), row
    )  # fmt: skip
    position(batch)[0] = (row + 1) % capacity
    size(batch)[0] = min(size(batch)[0] + 1, capacity)
    return row


@jit
def store(
    batch: int, row: int, observation: Array, action: Array, reward: Array, next_observation: Array,
    terminated: Array, truncated: Array, policy: Array,
) -> None:  # fmt: skip
    """Write one transition [1, ...] into a row of the replay buffer."""
    kernels.store_row(
        observation[0], action[0], reward[0], next_observation[0], terminated[0], truncated[0],
        policy[0], state_actions(batch), ends(batch), slots(batch), outcomes(batch),
        policy_actions(batch), row,
    )  # fmt: skip


@jit
def reads_next(batch: int, drawn: int, nstep: int) -> bool:
    """Return whether row `drawn` of the numbers chooses the transition that is stored next."""
    stored = min(size(batch)[0] + 1, outcomes(batch).shape[0])
    choices = stored - min(nstep, stored) + 1
    return int(numbers(batch)[drawn].max() * choices) == choices - 1


@inner
def copy_rows(x: Array, y: Array) -> None:
    """Copy the rows that both x and y [n, T] have, from the first on."""
    for i in range(min(x.shape[0], y.shape[0])):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j]


@inner
def freeze_unless_finite(batch: int, loss: Float) -> None:
    """Freeze the member if its loss is NaN or infinite."""
    if not abs(loss) < math.inf:
        alive(batch)[0] = False


@inlined
def in_blocks(given: int, function: int) -> None:
    """Call an update's function (given, block, worker) for every block of tiles."""
    tiles = target(word(given, BATCH)).shape[0]
    share(word(given, BOARD), word(given, function), given, passes.blocks_of(tiles))


@inlined
def tiles_of(batch: int, block: int) -> tuple[int, int]:
    """Return the first tile of a block, and the first past it."""
    tiles = target(batch).shape[0]
    each = passes.tiles_of_block(tiles)
    return block * each, min(tiles, (block + 1) * each)


@inner
def regress_all(batch: int, critic: int, tile: int, worker: int) -> None:
    """Regress every critic on a tile of `target`."""
    for k in range(passes.rows(critic).shape[0]):
        regress(batch, critic, k, tile, worker)


@inner
def regress(batch: int, critic: int, k: int, tile: int, worker: int) -> None:
    """Regress critic k on a tile of `target`, and fill `sums`."""
    passes.forward(critic, k, tile, worker)
    q, slopes = passes.out(critic)[k, tile, 0], passes.slopes(critic)[k, tile, 0]
    wanted, here = target(batch)[tile], rows_of(batch, tile)
    scale = np.float32(2.0 / starts(batch).shape[0])
    squares, sum_, errors = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for j in range(here):
        error = q[j] - wanted[j]
        squares += error * error
        errors += abs(error)
        sum_ += q[j]
        slopes[j] = error * scale
    for j in range(here, wanted.shape[0]):
        slopes[j] = np.float32(0.0)
    found = sums(batch)[tile, k]
    found[SQUARES], found[VALUES], found[ERRORS] = squares, sum_, errors
    passes.backward(critic, k, tile, True, passes.inputs_of(critic), worker)


@inner
def update_critic(given: int) -> None:
    """Sample a batch, and regress every critic: mean over the batch, sum over the critics.

    The algorithm's function for a block of tiles fills `target` and calls `regress_all`.
    """
    sample(given)
    batch, _, critic = tables_of(given)
    board, heads, rows = word(given, BOARD), passes.rows(critic).shape[0], starts(batch).shape[0]
    passes.begin_backward(critic, heads, board)
    in_blocks(given, CRITIC_BLOCK)
    squares, sum_ = np.float32(0.0), np.float32(0.0)
    td_error(batch)[:] = np.float32(0.0)
    for tile in range(target(batch).shape[0]):
        for k in range(heads):
            found = sums(batch)[tile, k]
            squares += found[SQUARES]
            sum_ += found[VALUES]
            td_error(batch)[k] += found[ERRORS]
    loss = squares / np.float32(rows)
    freeze_unless_finite(batch, loss)
    if alive(batch)[0]:
        passes.finish_backward(critic, heads, board)
        passes.optimizer_step(critic, board)
    critic_loss(batch)[0] += loss
    q_mean(batch)[0] += sum_ / np.float32(heads * rows)


@inner
def target_q(critic: int, tile: int, worker: int) -> None:
    """Run every critic's target on a tile."""
    for k in range(passes.rows(critic).shape[0]):
        passes.target(critic, k, tile, worker)


@inner
def lowest_q(batch: int, critic: int, tile: int, j: int) -> Float:
    """Return the smallest of the critics' last outputs for a row of the batch; NaN wins."""
    q = passes.out(critic)
    lowest = q[0, tile, 0, j]
    for k in range(1, q.shape[0]):
        other = q[k, tile, 0, j]
        lowest = other if other < lowest or other != other else lowest
    return lowest


FUNCTIONS = (next_row, store, reads_next)
SOURCES = (__file__, kernels.__file__, *passes.SOURCES)

discard_stale(store, SOURCES)


def compile_all() -> None:
    """Compile what is called from outside, or load it from disk."""
    rows, numbers_, flags = float32[:, ::1], float32[::1], boolean[::1]
    next_row.compile((int64,))
    store.compile((int64, int64, rows, rows, numbers_, rows, flags, flags, rows))
    reads_next.compile((int64, int64, int64))


def compile_for(update: Any, blocks: Sequence[Any], act: Any) -> None:
    """Compile an algorithm's functions besides, or load them from disk."""
    compile_all()
    for each in blocks:
        each.compile((int64, int64, int64))
    update.compile((int64,))
    act.compile((int64, int64, float32[:, ::1], int64))
