"""A network of the sparse engine in compiled code: what `Network` does, on a table of its arrays.

The functions have the names of the interface and take the batch tile by tile [tiles, n, T] (see
`kernels`), so that a caller may take a tile through several networks while it is in the nearest
caches. The caller puts it into `first` (for `forward`) or `passing` (for `predict` and `target`).
They leave the outputs in `out` [K, tiles, outputs, T]; `backward` takes their gradients from
`slopes` of the same shape, zero in rows past the batch. A tile's `forward` and `backward` follow
each other: other calls, of `forward` for another tile too, may take the room of its activations.

Two threads may take tiles at the same time (see `pieces`): each is a `worker` with room of its own,
and each block of tiles has its own sums, so that the numbers are those of one thread. What follows
the tiles is split as well where a network is large.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from dstrl_cli.compiler import discard_stale, jit
from dstrl_cli.nets import adam
from dstrl_cli.nets.adam import BETA1, BETA2, EPSILON
from dstrl_cli.nets.sparse import kernels, pieces, single, tables
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.nets.sparse.pieces import share
from dstrl_cli.nets.sparse.single import forward_row
from dstrl_cli.nets.sparse.tables import Layout, Table, address_of, call

Array = Any  # NumPy arrays, typed by the compiler

NARROW = 16
"""Outputs up to which a layer with every connection may be taken connection by connection."""
BLOCKS, PARTS, LARGE = 4, 4, 2**15
"""Most blocks of tiles; parts of what is split, where there are so many parameters."""

LAYOUT = Layout()
_floats, _ints, _longs = np.float32, np.int32, np.int64

functions = LAYOUT.field("functions", _longs, 1)
sizes = LAYOUT.field("sizes", _longs, 1)
layer_rows = LAYOUT.field("layer_rows", _longs, 1)
# the network's topology and parameters; its target's
rows = LAYOUT.field("rows", _ints, 2)
index = LAYOUT.field("index", _ints, 1)
columns = LAYOUT.field("columns", _ints, 2)
source = LAYOUT.field("source", _ints, 1)
position = LAYOUT.field("position", _ints, 1)
flat = LAYOUT.field("flat", _floats, 1)
values = LAYOUT.field("values", _floats, 1)
biases = LAYOUT.field("biases", _floats, 2)
target_rows = LAYOUT.field("target_rows", _ints, 2)
target_index = LAYOUT.field("target_index", _ints, 1)
target_flat = LAYOUT.field("target_flat", _floats, 1)
target_values = LAYOUT.field("target_values", _floats, 1)
target_biases = LAYOUT.field("target_biases", _floats, 2)
# the optimizer's state; own_steps is empty unless bias correction counts by connection
gradient = LAYOUT.field("gradient", _floats, 1)
value_gradient = LAYOUT.field("value_gradient", _floats, 1)
bias_gradient = LAYOUT.field("bias_gradient", _floats, 2)
first_moment = LAYOUT.field("first_moment", _floats, 1)
second_moment = LAYOUT.field("second_moment", _floats, 1)
own_steps = LAYOUT.field("own_steps", _floats, 1)
corrections = LAYOUT.field("corrections", _floats, 2)
steps = LAYOUT.field("steps", _longs, 1)
learning_rate = LAYOUT.field("learning_rate", np.float64, 1)
weight_decay = LAYOUT.field("weight_decay", _floats, 1)
tau = LAYOUT.field("tau", _floats, 1)
# the batch on its way through the network
first = LAYOUT.field("first", _floats, 3)
hidden = LAYOUT.field("hidden", _floats, 4)
below_gradient = LAYOUT.field("below_gradient", _floats, 4)
first_gradient = LAYOUT.field("first_gradient", _floats, 3)
ordered = LAYOUT.field("ordered", _floats, 1)
value_sums = LAYOUT.field("value_sums", _floats, 2)
bias_sums = LAYOUT.field("bias_sums", _floats, 3)
full = LAYOUT.field("full", np.bool_, 2)  # which layers have every connection, by head
passing = LAYOUT.field("passing", _floats, 3)
passing_hidden = LAYOUT.field("passing_hidden", _floats, 4)
out = LAYOUT.field("out", _floats, 4)
slopes = LAYOUT.field("slopes", _floats, 4)
# room for one observation on its way
room = LAYOUT.field("room", _floats, 2)
# room for trimming the target, empty unless it has a topology of its own
budgets = LAYOUT.field("budgets", _longs, 2)
trimmed_rows = LAYOUT.field("trimmed_rows", _ints, 2)
trimmed_index = LAYOUT.field("trimmed_index", _ints, 1)
trimmed_values = LAYOUT.field("trimmed_values", _floats, 1)
union_rows = LAYOUT.field("union_rows", _longs, 1)
union_index = LAYOUT.field("union_index", _ints, 1)
union_values = LAYOUT.field("union_values", _floats, 1)


class NetworkTable(Table):
    """The arrays of a network for batches of one size.

    Args:
        network: whose arrays.
        batch: rows of a batch.
        heads: those that are taken forward before any of them is taken backward.
        threads: that take tiles at the same time.

    Attributes:
        moves_target: whether `update_target` of this module can be called. The network's own must
            be where its target's arrays change their size or place.
    """

    def __init__(self, network: SparseNetwork, batch: int, heads: int, threads: int) -> None:
        super().__init__(LAYOUT)
        self.network, self.batch, self.heads, self.threads = network, batch, heads, threads
        widest = max(network.plan.sizes)
        self.set(room=np.zeros((2, widest), np.float32))
        self.fill()
        tiles, _, size = self.arrays["first"].shape
        outputs = (network.plan.heads, tiles, network.plan.sizes[-1], size)
        self.set(out=np.zeros(outputs, np.float32), slopes=np.zeros(outputs, np.float32))

    def renew(self) -> None:
        """Take the network's arrays anew if one of them was replaced."""
        now = self.network.replaceable()
        for held, current in zip(self.held, now, strict=True):
            if held is not current:
                self.fill()
                return

    def fill(self) -> None:
        """Take the network's arrays."""
        network = self.network
        self.held = network.replaceable()
        params, target, grads = network.params, network.target_params, network.grads
        online, moved = params.topology, target.topology
        full, by_tile = self.full_layers()
        at_once = self.heads if by_tile else 0
        kept = network.buffers_of(self.batch, True, at_once, self.threads)
        passed = network.buffers_of(self.batch, False, 1, self.threads)
        blocks = blocks_of(len(kept.first))
        # one thread adds up tile after tile: then blocks of one tile need no sums of their own
        sums = 1 if self.threads == 1 and blocks == len(kept.first) else blocks
        own = np.empty(0, np.float32) if network.own_steps is None else network.own_steps
        self.set(
            sizes=network.sizes,
            layer_rows=network.layer_rows,
            rows=online.rows,
            index=online.index,
            columns=online.columns,
            source=online.source,
            position=online.position,
            flat=params.flat,
            values=params.values,
            biases=params.biases,
            target_rows=moved.rows,
            target_index=moved.index,
            target_flat=target.flat,
            target_values=target.values,
            target_biases=target.biases,
            gradient=grads.flat,
            value_gradient=grads.values,
            bias_gradient=grads.biases,
            first_moment=network.first_moment,
            second_moment=network.second_moment,
            own_steps=own,
            corrections=network.corrections,
            steps=network.step_count,
            learning_rate=network.rate,
            tau=np.array([network.config.tau], np.float32),
            weight_decay=np.array([network.config.weight_decay], np.float32),
            first=kept.first,
            hidden=kept.hidden,
            below_gradient=kept.gradient,
            first_gradient=kept.first_gradient,
            ordered=network.ordered,
            value_sums=kept.value_sums(len(network.ordered), sums),
            bias_sums=kept.bias_sums,
            full=full,
            passing=passed.first,
            passing_hidden=kept.hidden if by_tile else passed.hidden,
        )
        self.make_room_for_trimming()

    def full_layers(self) -> tuple[NDArray[np.bool_], bool]:
        """Return which layers are backpropagated as dense products, by head, and whether none is.

        Such layers need the activations of the whole batch. Without them there is room for one tile
        only, so that what an update works on stays in the near cache, beside what the environment
        needs. That is worth taking full layers of few outputs connection by connection.
        """
        network = self.network
        starts = network.params.topology.rows[:, network.layer_rows]
        full = np.diff(starts) == [inputs * outputs for inputs, outputs in network.plan.shapes]
        wide = np.array([outputs > NARROW for _, outputs in network.plan.shapes])
        by_tile = not bool((full & wide).any())
        return np.ascontiguousarray(full & (not by_tile)), by_tile

    def make_room_for_trimming(self) -> None:
        """Find how the target moves, and make room for it where that means trimming."""
        network, target = self.network, self.network.target_params
        own = target.topology is not network.params.topology
        starts = target.topology.rows[:, network.layer_rows]
        as_large = own and np.array_equal(np.diff(starts), network.budgets)
        trims = network.trims and as_large
        self.moves_target = trims or not own
        most = len(network.params.values) + len(target.values) if trims else 0
        budget = len(target.values) if trims else 0
        self.set(
            functions=addresses(trims),
            budgets=np.ascontiguousarray(network.budgets, np.int64),
            trimmed_rows=np.empty_like(target.topology.rows),
            trimmed_index=np.empty(budget, np.int32),
            trimmed_values=np.empty(budget, np.float32),
            union_rows=np.empty(max(network.plan.sizes) + 1, np.int64),
            union_index=np.empty(most, np.int32),
            union_values=np.empty(most, np.float32),
        )


@register_jitable
def tiles_of_block(tiles: int) -> int:
    """Return how many tiles are a block, the smallest piece of a batch."""
    return -(-tiles // BLOCKS)


@register_jitable
def blocks_of(tiles: int) -> int:
    """Return how many blocks there are."""
    return -(-tiles // tiles_of_block(tiles))


@register_jitable
def _place(net: int, rooms: Array, tile: int, worker: int) -> int:
    """Return which of a head's rooms a tile's activations take: its own, or that of the thread."""
    return tile if rooms.shape[1] == first(net).shape[0] else worker


@register_jitable
def _parts(net: int) -> int:
    """Return into how many parts to split what is done for every parameter."""
    return PARTS if flat(net).shape[0] >= LARGE else 1


@jit
def _forward(net: int, k: int, tile: int, worker: int) -> None:
    kept, outputs = hidden(net), out(net)[k, tile]
    here = kept[k % kept.shape[0], _place(net, kept, tile, worker)]
    kernels.head_forward(
        sizes(net), rows(net)[k], index(net), values(net), biases(net)[k], first(net)[tile], here
    )
    kernels.copy(here[here.shape[0] - outputs.shape[0] :], outputs)


@jit
def _predict(net: int, k: int, tile: int, of_target: int, worker: int) -> None:
    # every head takes the same room, which stays in the thread's cache
    rooms, outputs = passing_hidden(net), out(net)[k, tile]
    here = rooms[0, _place(net, rooms, tile, worker)]
    starts, inputs, weights, bias = rows(net), index(net), values(net), biases(net)
    if of_target:
        starts, inputs, weights = target_rows(net), target_index(net), target_values(net)
        bias = target_biases(net)
    kernels.head_forward(sizes(net), starts[k], inputs, weights, bias[k], passing(net)[tile], here)
    kernels.copy(here[here.shape[0] - outputs.shape[0] :], outputs)


@jit
def _begin_backward(net: int, piece: int, worker: int) -> None:
    k, part = piece // _parts(net), piece % _parts(net)
    kernels.in_order(
        values(net), columns(net)[k], position(net), full(net)[k], sizes(net), ordered(net),
        value_sums(net), part, _parts(net),
    )  # fmt: skip


@jit
def _backward(net: int, k: int, tile: int, weights: int, wanted: int, worker: int) -> None:
    given, entered = slopes(net)[k, tile], first_gradient(net)
    kept, sums = hidden(net), value_sums(net)
    head, here = k % kept.shape[0], _place(net, kept, tile, worker)
    block = tile // tiles_of_block(entered.shape[0]) if sums.shape[0] > 1 else 0
    below = below_gradient(net)[head, here]
    last = below.shape[0] - given.shape[0]
    kernels.copy(given, below[last:])
    if k == 0:
        entered[tile, wanted:] = np.float32(0.0)
    kernels.head_backward(
        sizes(net), full(net)[k], values(net), columns(net)[k], source(net), ordered(net),
        sums[block], bias_sums(net)[k, tile], first(net)[tile], kept[head, here], below,
        entered[tile], bool(weights), wanted,
    )  # fmt: skip
    for n in range(given.shape[0]):
        bias_sums(net)[k, tile, last + n] = given[n].sum()


@jit
def _finish_backward(net: int, piece: int, worker: int) -> None:
    sums, gradients = bias_sums(net), bias_gradient(net)
    k, part = piece // _parts(net), piece % _parts(net)
    kernels.head_gradients(
        sizes(net), full(net)[k], columns(net)[k], position(net), value_sums(net),
        first(net), hidden(net)[k % hidden(net).shape[0]],
        below_gradient(net)[k % hidden(net).shape[0]], value_gradient(net), part, _parts(net),
    )  # fmt: skip
    if part:
        return
    gradients[k] = np.float32(0.0)
    for tile in range(sums.shape[1]):
        for r in range(sums.shape[2]):
            gradients[k, r] += sums[k, tile, r]


@jit
def _optimizer_step(net: int, part: int, worker: int) -> None:
    taken, decay = float(steps(net)[0]), weight_decay(net)[0]
    beta1, beta2, epsilon = np.float32(BETA1), np.float32(BETA2), np.float32(EPSILON)
    begin, end = kernels.share_of(0, flat(net).shape[0], part, _parts(net))
    parameters, slope = flat(net)[begin:end], gradient(net)[begin:end]
    first_, second = first_moment(net)[begin:end], second_moment(net)[begin:end]
    if own_steps(net).shape[0]:
        kernels.adam_by_connection(
            parameters, slope, first_, second, own_steps(net)[begin:end],
            corrections(net)[0], corrections(net)[1], decay, beta1, beta2, epsilon,
        )  # fmt: skip
    else:
        size = np.float32(learning_rate(net)[0] / (1 - math.pow(BETA1, taken)))
        scale = np.float32(1 / math.sqrt(1 - math.pow(BETA2, taken)))
        kernels.adam(parameters, slope, first_, second, size, scale, decay, beta1, beta2, epsilon)


@jit
def _update_target(net: int, part: int, worker: int) -> None:
    begin, end = kernels.share_of(0, flat(net).shape[0], part, _parts(net))
    kernels.blend(target_flat(net)[begin:end], flat(net)[begin:end], tau(net)[0])


@jit
def _trim_target(net: int, part: int, worker: int) -> None:
    if part:  # which connections stay depends on all of them
        return
    moved = tau(net)[0]
    kernels.blend_union(
        target_rows(net), target_index(net), target_values(net),
        rows(net), index(net), values(net), moved, budgets(net), layer_rows(net),
        trimmed_rows(net), trimmed_index(net), trimmed_values(net),
        union_rows(net), union_index(net), union_values(net),
    )  # fmt: skip
    kernels.copy(trimmed_rows(net), target_rows(net))
    kernels.copy(trimmed_index(net), target_index(net))
    kernels.copy(trimmed_values(net), target_values(net))
    kernels.blend(target_biases(net).reshape(-1), biases(net).reshape(-1), moved)


_CALLED = (
    _forward, _predict, _begin_backward, _backward, _finish_backward, _optimizer_step,
    _update_target,
)  # fmt: skip
_FORWARD, _PREDICT, _BEGIN, _BACKWARD, _FINISH, _STEP, _MOVE = range(len(_CALLED))
_ARGUMENTS = (4, 5, 3, 6, 3, 3, 3)
"""How many arguments each of them has."""


@cache
def addresses(trims: bool = False) -> NDArray[np.int64]:
    """Return where the compiled functions are; compiles them, or loads them from disk.

    Where a target is trimmed, `_trim_target` takes the place of `_update_target`.
    """
    chosen = (*_CALLED[:-1], _trim_target) if trims else _CALLED
    found = [address_of(each, count) for each, count in zip(chosen, _ARGUMENTS, strict=True)]
    return np.array(found, np.int64)


@register_jitable
def forward(net: int, k: int, tile: int, worker: int) -> None:
    """Run head k on a tile of `first`, and remember it for `backward`."""
    call(functions(net)[_FORWARD], net, k, tile, worker)


@register_jitable
def predict(net: int, k: int, tile: int, worker: int) -> None:
    """Run head k on a tile of `passing`."""
    call(functions(net)[_PREDICT], net, k, tile, 0, worker)


@register_jitable
def target(net: int, k: int, tile: int, worker: int) -> None:
    """Run head k of the target on a tile of `passing`."""
    call(functions(net)[_PREDICT], net, k, tile, 1, worker)


@register_jitable
def begin_backward(net: int, heads: int, board: int) -> None:
    """Get ready for `backward` of the first heads."""
    share(board, functions(net)[_BEGIN], net, heads * _parts(net))


@register_jitable
def backward(net: int, k: int, tile: int, weights: bool, wanted: int, worker: int) -> None:
    """Backpropagate a tile of `slopes` of head k through its last `forward`.

    Once every tile is through, `finish_backward` gives the parameters' gradients, if `weights`.
    `first_gradient` [tiles, in, T] takes those of the inputs from number `wanted` on, added up from
    head 0 on: of none, if that is `inputs_of`.
    """
    call(functions(net)[_BACKWARD], net, k, tile, int(weights), wanted, worker)


@register_jitable
def inputs_of(net: int) -> int:
    """Return how many inputs the network has."""
    return sizes(net)[0]


@register_jitable
def finish_backward(net: int, heads: int, board: int) -> None:
    """Gather the gradients of the parameters of the first heads."""
    share(board, functions(net)[_FINISH], net, heads * _parts(net))


@register_jitable
def optimizer_step(net: int, board: int) -> None:
    """Take one Adam step."""
    steps(net)[0] += 1
    share(board, functions(net)[_STEP], net, _parts(net))


@register_jitable
def update_target(net: int, board: int) -> None:
    """Move the target towards the network; see `NetworkTable.moves_target`."""
    share(board, functions(net)[_MOVE], net, _parts(net))


@register_jitable
def predict_row(net: int, x: Any) -> Any:
    """Return the outputs of the first head for one row x [in], in room that is used again."""
    return forward_row(
        sizes(net), rows(net)[0], index(net), values(net), biases(net)[0], x, room(net)
    )


FUNCTIONS = (*_CALLED, *kernels.FUNCTIONS)
_OWN = (__file__, adam.__file__, pieces.__file__, tables.__file__, single.__file__)
SOURCES = (*_OWN, *kernels.SOURCES)

discard_stale(_forward, SOURCES)


def compile_all() -> None:
    """Compile what most runs need, or load it from disk.

    The kernels come first: both are made of the same loops, which one process compiles once.
    """
    kernels.compile_all()
    addresses()
