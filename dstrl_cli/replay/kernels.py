"""Compiled loops of the replay buffer on the CPU: one transition in, one batch out.

They read and write the rings of `replay.compiled.CompiledReplay` and give the same numbers as the
torch operations of `replay.tensors`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from dstrl_cli.compiler import discard_stale, inner, jit

Array = Any  # NumPy arrays, typed by the compiler
Float = Any  # float32 scalars
intrinsic: Any = extending.intrinsic


@inner
def claim_row(
    state_actions: Array, ends: Array, slots: Array, free: Array, live: Array, at: int
) -> None:
    """Give row `at` of one member's rings, which is written next, a slot for its next observation.

    The newest row keeps its slot. The row before it gives it back if the newest row holds the same
    observation: it is read there from now on.
    """
    capacity = slots.shape[0]
    newest, before = (at - 1) % capacity, (at - 2) % capacity
    if slots[before] and same_bits(ends[slots[before]], state_actions[newest]):
        live[0] -= 1
        free[live[0]] = slots[before]
        slots[before] = 0
    if not slots[at]:  # else the row that it replaces leaves it its own
        slot = free[live[0]]
        slots[at] = slot if slot else live[0] + 1
        live[0] += 1


@inner
def same_bits(observation: Array, row: Array) -> bool:
    """Return whether a row of a ring begins with an observation, bit by bit."""
    ours, theirs, differ = observation.view(np.int32), row.view(np.int32), False
    for i in range(ours.shape[0]):
        differ |= ours[i] != theirs[i]
    return not differ


@inner
def store_row(
    observation: Array, action: Array, reward: Float, next_observation: Array, terminated: bool,
    truncated: bool, policy_action: Array, state_actions: Array, ends: Array, slots: Array,
    outcomes: Array, policy_actions: Array, at: int,
) -> None:  # fmt: skip
    """Write a transition of one member into row `at` of its rings, which `claim_row` prepared."""
    split, slot = observation.shape[0], slots[at]
    for i in range(split):
        state_actions[at, i] = observation[i]
        ends[slot, i] = next_observation[i]
    for i in range(action.shape[0]):
        state_actions[at, split + i] = action[i]
        if policy_actions.shape[0]:
            policy_actions[at, i] = policy_action[i]
    outcomes[at, 0] = reward
    outcomes[at, 1] = not terminated
    outcomes[at, 2] = not (terminated or truncated)


@jit
def store(
    observation: Array, action: Array, reward: Array, next_observation: Array, terminated: Array,
    truncated: Array, policy_action: Array, state_actions: Array, ends: Array, slots: Array,
    outcomes: Array, policy_actions: Array, free: Array, live: Array, position: Array, size: Array,
) -> None:  # fmt: skip
    """Write one transition [P, ...] of every member into the rings [P, capacity, ...].

    policy_actions is [P, 0, act] where these are not kept. Advances position [1] and size [P, 1].
    """
    at, capacity = position[0], outcomes.shape[1]
    for p in range(observation.shape[0]):
        claim_row(state_actions[p], ends[p], slots[p], free[p], live[p], at)
        store_row(
            observation[p], action[p], reward[p], next_observation[p], terminated[p], truncated[p],
            policy_action[p], state_actions[p], ends[p], slots[p], outcomes[p], policy_actions[p],
            at,
        )  # fmt: skip
        size[p, 0] = min(size[p, 0] + 1, capacity)
    position[0] = (at + 1) % capacity


@jit
def sample(
    numbers: Array, nstep: Array, gamma: Float, powers: Array,
    state_actions: Array, ends: Array, slots: Array, outcomes: Array, position: Array, size: Array,
    state_action: Array, reward: Array, discount: Array, last: Array, path: Array,
    path_discount: Array,
) -> None:  # fmt: skip
    """Fill a batch of n-step transitions; see `Replay.sample` and `Batch`.

    Reads numbers [P, B] and nstep [P, 1]. Writes state_action [P, B, obs + act], reward, discount
    and last [P, B], path [n, P, B, obs] and path_discount [n, P, B], for the largest n.
    """
    max_nstep, capacity = path.shape[0], outcomes.shape[1]
    for p in range(numbers.shape[0]):
        n = min(nstep[p, 0], size[p, 0])
        starts, oldest = size[p, 0] - n + 1, position[0] - size[p, 0]
        for b in range(numbers.shape[1]):
            following = oldest + int(numbers[p, b] * starts)
            if following < 0:
                following += capacity
            row, total, final, not_done = following, np.float32(0.0), 0, True
            for i in range(state_action.shape[2]):
                state_action[p, b, i] = state_actions[p, row, i]
            for k in range(max_nstep):
                if not_done and k < n:
                    row, final = following, k
                    following = row + 1 if row + 1 < capacity else 0
                    total += powers[k] * outcomes[p, row, 0]
                    path_discount[k, p, b] = gamma * powers[k] * outcomes[p, row, 1]
                    not_done = outcomes[p, row, 2] > 0
                else:  # beyond the last step taken, that step's observation is repeated
                    path_discount[k, p, b] = np.float32(0.0)
                slot, behind = slots[p, row], row + 1 if row + 1 < capacity else 0
                for i in range(path.shape[3]):
                    after = ends[p, slot, i] if slot else state_actions[p, behind, i]
                    path[k, p, b, i] = after
            reward[p, b] = total
            discount[p, b] = path_discount[final, p, b]
            last[p, b] = final


@intrinsic
def _fetch(typing, array, start):  # type: ignore[no-untyped-def]
    """Ask for the cache line of array[start] of a flat array, without waiting for it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, value=args[0]).data
        address = builder.gep(data, [args[1]])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, *(ir.Constant(number, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), code


_LINE = 64 // 4  # float32 numbers in a cache line
_AHEAD = 12
"""Rows of the batch that are asked for ahead: in a ring of a gigabyte each is a cache miss."""
_TOGETHER = 512
"""Numbers up to which what lies between a row and the observation after n steps is asked for."""


@inner
def fetch(ring: Array, row: int, count: int) -> None:
    """Ask for `count` numbers of a ring [capacity, size], from a row's first on; it may end before.

    Asking for memory that does not exist has no effect.
    """
    flat, first = ring.reshape(-1), row * ring.shape[1]
    for start in range(first, first + count, _LINE):
        _fetch(flat, start)
    _fetch(flat, first + count - 1)


@inner
def fetch_steps(
    state_actions: Array, slots: Array, outcomes: Array, row: int, n: int, observation_size: int
) -> None:
    """Ask for a row, the n steps from it on, and the observation after them."""
    width = state_actions.shape[1]
    if n * width <= _TOGETHER:
        fetch(state_actions, row, n * width + observation_size)
    else:
        fetch(state_actions, row, width)
        fetch(state_actions, row + n, observation_size)
    fetch(outcomes, row, n * outcomes.shape[1])
    _fetch(slots, row + n - 1)


@inner
def sample_tiles(
    numbers: Array, nstep: int, gamma: Float, powers: Array,
    state_actions: Array, ends: Array, slots: Array, outcomes: Array, position: Array, size: Array,
    starts: Array, state_action: Array, reward: Array, discount: Array, last: Array, path: Array,
    path_discount: Array,
) -> None:  # fmt: skip
    """Fill the tiles of one member's batch: `sample`, with rows of the batch side by side.

    Reads numbers [B] and rings [capacity, ...]. Writes state_action [tiles, obs + act, T], reward,
    discount and last [tiles, T]; path [n, tiles, obs, T] and path_discount [n, tiles, T], or with
    one path only the observation that is bootstrapped from. starts [B] is room for row numbers.
    """
    capacity, batch, lanes = outcomes.shape[0], numbers.shape[0], reward.shape[1]
    n = min(nstep, size[0])
    choices, oldest = size[0] - n + 1, position[0] - size[0]
    for b in range(batch):
        start = oldest + int(numbers[b] * choices)
        starts[b] = start + capacity if start < 0 else start
    skipped = nstep - path.shape[0]  # steps whose next observation nobody looks at
    for b in range(min(_AHEAD, batch)):
        fetch_steps(state_actions, slots, outcomes, starts[b], n, path.shape[2])
    for b in range(batch):
        if b + _AHEAD < batch:
            fetch_steps(state_actions, slots, outcomes, starts[b + _AHEAD], n, path.shape[2])
        tile, lane, row = b // lanes, b % lanes, starts[b]
        following, total, final, not_done = row, np.float32(0.0), 0, True
        bootstrap = np.float32(0.0)
        for i in range(state_action.shape[1]):
            state_action[tile, i, lane] = state_actions[row, i]
        for k in range(nstep):
            here = np.float32(0.0)
            if not_done and k < n:
                row, final = following, k
                following = row + 1 if row + 1 < capacity else 0
                total += powers[k] * outcomes[row, 0]
                bootstrap = here = gamma * powers[k] * outcomes[row, 1]
                not_done = outcomes[row, 2] > 0
            if k < skipped:
                continue
            path_discount[k - skipped, tile, lane] = bootstrap if skipped else here
            slot, behind = slots[row], row + 1 if row + 1 < capacity else 0
            for i in range(path.shape[2]):
                after = ends[slot, i] if slot else state_actions[behind, i]
                path[k - skipped, tile, i, lane] = after
        reward[tile, lane], discount[tile, lane], last[tile, lane] = total, bootstrap, final


FUNCTIONS = (store, sample)
SOURCES = (__file__,)

discard_stale(store, SOURCES)


def compile_all() -> None:
    """Compile both functions, or load them from disk, by calling them on tiny arrays."""
    row, ring, flags = np.zeros((1, 1), np.float32), np.zeros((1, 2, 1), np.float32), [False]
    wide, outcomes = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 3), np.float32)
    ended, position, size = np.array(flags), np.zeros(1, np.int64), np.zeros((1, 1), np.int64)
    ends, slots, live = np.zeros((1, 3, 1), np.float32), np.zeros((1, 2), np.int32), size.copy()
    rings, free = (wide, ends, slots, outcomes), slots.copy()
    for kept in (ring, ring[:, :0]):
        store(
            row, row, row[0], row, ended, ended, row, *rings, kept, free, live, position, size,
        )  # fmt: skip
    sample(
        np.zeros((1, 1)), size, np.float32(1.0), row[0], *rings, position, size,
        np.zeros((1, 1, 2), np.float32), row, row.copy(), size.copy(),
        np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32),
    )  # fmt: skip
