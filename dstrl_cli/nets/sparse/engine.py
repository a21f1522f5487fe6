"""The sparse engine: only the active connections of a network exist (CPU, one member).

It stores the indices, values and optimizer moments of the active connections and nothing else. A
target shares the network's topology, or has index arrays of its own where it is trimmed by
magnitude. The dense matrices that scores look at are formed at topology updates only. From the same
masks, weights and batch, an update gives the same numbers as the masked engine's up to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from dstrl_cli.nets.adam import BETA1, BETA2, EPSILON
from dstrl_cli.nets.initial import initial_layers
from dstrl_cli.nets.network import Members, Network, Overwritten
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse import kernels
from dstrl_cli.nets.sparse.strength import neuron_strengths
from dstrl_cli.nets.sparse.topology import Floats, Topology

CORRECTED_STEPS = 40_000
"""Steps after which both bias corrections are exactly 1 in double precision."""


def bias_corrections(learning_rate: float, steps: int) -> tuple[np.float32, np.float32]:
    """Return the learning rate over 1 - beta1^t, and 1 / sqrt(1 - beta2^t), at step t."""
    return (
        np.float32(learning_rate / (1 - BETA1**steps)),
        np.float32(1 / np.sqrt(1 - BETA2**steps)),
    )


def selected(dense: Sequence[NDArray[Any]], masks: Sequence[NDArray[np.bool_]]) -> Floats:
    """Return the entries of [K, in, out] arrays where `masks` is set, in the order of the rows."""
    parts = [
        layer[k].T[mask[k].T]
        for k in range(masks[0].shape[0])
        for layer, mask in zip(dense, masks, strict=True)
    ]
    return np.concatenate(parts).astype(np.float32)


def aligned(*shape: int) -> Floats:
    """Return room for float32 numbers that begins where a cache line does."""
    size, line = int(np.prod(shape)), 64 // 4
    room = np.zeros(size + line, np.float32)
    start = -(room.ctypes.data // 4) % line
    return room[start : start + size].reshape(shape)


class Buffers:
    """Activations of one batch size, as tiles (see `kernels`).

    Without a backward pass the heads take turns with the room of one, which stays in the cache.
    With `at_once`, only so many heads, and one tile a thread, are taken forward and backward at the
    same time.
    """

    def __init__(
        self, plan: NetworkPlan, batch: int, backward: bool, at_once: int = 0, threads: int = 1
    ) -> None:
        size = kernels.TILE
        tiles, neurons = -(-batch // size), sum(plan.sizes[1:])
        self.batch = batch
        self.first = aligned(tiles, plan.sizes[0], size)
        heads = at_once or (plan.heads if backward else 1)
        self.hidden = aligned(heads, min(threads, tiles) if at_once else tiles, neurons, size)
        if backward:
            self.gradient = aligned(*self.hidden.shape)
            self.first_gradient = aligned(*self.first.shape)
            self.bias_sums = np.empty((plan.heads, tiles, neurons), np.float32)
            self.products = np.empty((1, 0), np.float32)

    def value_sums(self, connections: int, rows: int = 1) -> Floats:
        """Return room for one number per connection, or several [rows, connections]."""
        if self.products.shape != (rows, connections):
            self.products = np.empty((rows, connections), np.float32)
        return self.products

    @staticmethod
    def rows(tiles: Floats) -> Floats:
        """Return tiles [..., tiles, n, T] as [..., n, rows of the batch]."""
        swapped = np.moveaxis(tiles, -3, -2)
        return swapped.reshape(*swapped.shape[:-2], -1)


class Parameters:
    """Values and biases of one topology in one array, values first."""

    def __init__(self, topology: Topology, values: Floats, biases: Floats) -> None:
        self.topology = topology
        self.flat = np.concatenate([values, biases.ravel()]).astype(np.float32)
        self.split = len(values)
        self.values = self.flat[: self.split]  # of the active connections
        self.biases = self.flat[self.split :].reshape(len(biases), -1)  # [K, R]

    def copy(self) -> Parameters:
        """Return a copy on the same topology."""
        return Parameters(self.topology, self.values, self.biases)


class SparseNetwork(Network):
    """A network of the sparse engine (see `Network` for the interface); P = 1."""

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__(plan)
        if plan.members != 1 or plan.device != "cpu":
            raise ValueError("the sparse engine holds one member on the CPU")
        self.config = plan.configs[0]
        drawn = initial_layers(plan, 0, functools.partial(self.tell, 0))
        self.masks = [mask.numpy() for _, _, mask in drawn]
        biases = np.concatenate([bias.numpy() for _, bias, _ in drawn], axis=1)
        topology = Topology.of(self.masks)
        self.params = Parameters(
            topology, selected([weight.numpy() for weight, _, _ in drawn], self.masks), biases
        )
        self.target_params = self.params.copy()
        self.trims = self.config.target_masking == "magnitude_trim"
        self.budgets = self.counts()
        self.reset_gradients()
        self.first_moment = np.zeros_like(self.params.flat)
        self.second_moment = np.zeros_like(self.params.flat)
        # arrays of one number, which compiled code shares
        self.step_count = np.zeros(1, np.int64)
        self.rate = np.array([self.config.learning_rate_at(0)])
        # by connection: steps since it was grown; float32, to be carried over like the moments
        self.own_steps: Floats | None = None
        self.corrections = np.empty((2, 0), np.float32)  # of each number of steps, then
        if self.config.corrects_by_connection:
            self.own_steps = np.zeros_like(self.params.flat)
            counts = range(1, CORRECTED_STEPS + 1)
            table = [(0.0, 0.0), *(bias_corrections(self.learning_rate, n) for n in counts)]
            self.corrections = np.array(table, np.float32).T.copy()  # [2, steps]
            self.corrected1 = np.array([1 - BETA1**n for n in counts])
        self.sizes = np.array(plan.sizes, dtype=np.int64)
        self.layer_rows = np.concatenate([[0], np.cumsum(plan.sizes[1:])]).astype(np.int64)
        self.buffers: dict[tuple[int, bool, int, int], Buffers] = {}
        self.last: tuple[Buffers, int] | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps so far."""
        return int(self.step_count[0])

    @property
    def learning_rate(self) -> float:
        """Of the optimizer steps to come."""
        return float(self.rate[0])

    def replaceable(self) -> tuple[object, ...]:
        """Return what holds the arrays that are replaced, not changed, when the topology is."""
        return (
            self.params,
            self.target_params,
            self.grads,
            self.first_moment,
            self.second_moment,
            self.own_steps,
        )

    def reset_gradients(self) -> None:
        """Make room for the gradients of the current parameters."""
        self.grads = Parameters(
            self.params.topology,
            np.zeros_like(self.params.values),
            np.zeros_like(self.params.biases),
        )
        self.ordered = np.empty_like(self.params.values)

    # Products.

    def run(self, x: Tensor, params: Parameters, heads: int, keep: bool) -> Tensor:
        """Run the first heads of a network or its target on x [1, B, in]."""
        batch = x.shape[1]
        buffers, topology = self.buffers_of(batch, keep), params.topology
        out = np.empty((1, heads, batch, self.plan.sizes[-1]), np.float32)
        kernels.forward(
            np.ascontiguousarray(x.numpy()[0]), self.sizes, topology.rows, topology.index,
            params.values, params.biases, buffers.first, buffers.hidden, out[0],
        )  # fmt: skip
        if keep:
            self.last = (buffers, heads)
        return torch.from_numpy(out)

    def buffers_of(self, batch: int, backward: bool, at_once: int = 0, threads: int = 1) -> Buffers:
        """Return the room for batches of one size, made when first asked for; see `Buffers`."""
        key = (batch, backward, at_once, threads)
        if key not in self.buffers:
            self.buffers[key] = Buffers(self.plan, *key)
        return self.buffers[key]

    @override
    def forward(self, x: Tensor, heads: int | None = None) -> Tensor:
        return self.run(x, self.params, heads or self.plan.heads, keep=True)

    @override
    def predict(self, x: Tensor) -> Tensor:
        return self.run(x, self.params, self.plan.heads, keep=False)

    @override
    def target(self, x: Tensor) -> Tensor:
        return self.run(x, self.target_params, self.plan.heads, keep=False)

    @override
    def backward(self, grad: Tensor, *, weights: bool = True, inputs: bool = False) -> Tensor:
        assert self.last is not None
        buffers, _ = self.last
        topology = self.params.topology
        kernels.backward(
            np.ascontiguousarray(grad.numpy()[0]), self.sizes, self.params.values,
            topology.columns, topology.source, topology.position, self.ordered,
            buffers.value_sums(len(self.ordered)), buffers.bias_sums, buffers.first, buffers.hidden,
            buffers.gradient, self.grads.values, self.grads.biases, buffers.first_gradient,
            weights, inputs,
        )  # fmt: skip
        if not inputs:
            return grad.new_empty(0)
        below = np.empty((1, buffers.batch, self.plan.sizes[0]), np.float32)
        kernels.out_of_tiles(buffers.first_gradient, below[0])
        return torch.from_numpy(below)

    # Updates.

    @override
    def optimizer_step(self, apply: Tensor) -> None:
        if not bool(apply[0]):
            return
        self.step_count += 1
        state = (self.params.flat, self.grads.flat, self.first_moment, self.second_moment)
        decay = np.float32(self.config.weight_decay)
        betas = np.float32(BETA1), np.float32(BETA2), np.float32(EPSILON)
        if self.own_steps is None:
            size, scale = bias_corrections(self.learning_rate, self.steps)
            kernels.adam(*state, size, scale, decay, *betas)
        else:
            kernels.adam_by_connection(*state, self.own_steps, *self.corrections, decay, *betas)

    @override
    def set_learning_rate(self, rate: float) -> None:
        self.rate[0] = rate
        if self.own_steps is not None:
            self.corrections[0, 1:] = rate / self.corrected1

    @override
    def finish_update(self) -> None:
        """Nothing to restore: inactive connections do not exist."""

    @override
    def update_target(self, tau: float) -> None:
        online, target = self.params, self.target_params
        if target.topology is not online.topology:
            if self.trims:
                self.blend_and_trim(tau)
                return
            self.target_params = target = self.moved(target, online.topology)
        kernels.blend(target.flat, online.flat, np.float32(tau))

    def blend_and_trim(self, tau: float) -> None:
        """Blend the target on the union of both topologies and trim it to the budgets."""
        online, target = self.params, self.target_params
        most = len(online.values) + len(target.values)
        rows = np.empty_like(target.topology.rows)
        index, values = np.empty(most, np.int32), np.empty(most, np.float32)
        widest = max(self.plan.sizes) + 1
        kernels.blend_union(
            target.topology.rows, target.topology.index, target.values,
            online.topology.rows, online.topology.index, online.values, np.float32(tau),
            self.budgets, self.layer_rows, rows, index, values,
            np.empty(widest, np.int64), np.empty(most, np.int32), np.empty(most, np.float32),
        )  # fmt: skip
        count = int(rows[-1, -1])
        biases = target.biases + np.float32(tau) * (online.biases - target.biases)
        self.target_params = Parameters(Topology(rows, index[:count]), values[:count], biases)

    def moved(self, params: Parameters, topology: Topology) -> Parameters:
        """Return parameters on another topology; connections that are new there are zero."""
        dense = self.dense(params.topology, params.values)
        return Parameters(topology, selected(dense, self.masks), params.biases)

    # Topology.

    def dense(self, topology: Topology, values: Floats) -> list[Floats]:
        """Return per-connection values as dense arrays [K, in, out] per layer."""
        layers = [np.zeros((self.plan.heads, i, o), np.float32) for i, o in self.plan.shapes]
        for k in range(self.plan.heads):
            for layer, (first, last) in enumerate(
                zip(self.layer_rows[:-1], self.layer_rows[1:], strict=True)
            ):
                pointers = topology.rows[k, first : last + 1]
                entries = slice(pointers[0], pointers[-1])
                outputs = np.repeat(np.arange(last - first), np.diff(pointers))
                layers[layer][k, topology.index[entries], outputs] = values[entries]
        return layers

    @override
    def view_layers(self, members: Members) -> tuple[list[Tensor], list[Tensor]]:
        weights = self.dense(self.params.topology, self.params.values)
        return (
            [torch.from_numpy(weight).unsqueeze(0) for weight in weights],
            [torch.from_numpy(mask).unsqueeze(0) for mask in self.masks],
        )

    @override
    def strengths(self, members: Members) -> list[Tensor] | None:
        topology = self.params.topology
        return neuron_strengths(self.plan.sizes, topology.rows, topology.index, self.params.values)

    @override
    def gradients(self, members: Members) -> list[Tensor]:
        assert self.last is not None
        buffers, heads = self.last
        gradients = []
        first, hidden = buffers.rows(buffers.first), buffers.rows(buffers.hidden)
        slopes = buffers.rows(buffers.gradient)
        below, row = np.broadcast_to(first, (heads, *first.shape)), 0
        for width in self.plan.sizes[1:]:
            here = slice(row, row + width)
            product = np.einsum("kib,kob->kio", below[:heads], slopes[:heads, here], optimize=True)
            gradients.append(torch.from_numpy(product).unsqueeze(0))
            below, row = hidden[:, here], row + width
        return gradients

    @override
    def moments(self, members: Members) -> list[tuple[Tensor, Tensor]]:
        first, second = (
            self.dense(self.params.topology, flat[: self.params.split])
            for flat in (self.first_moment, self.second_moment)
        )
        return [
            (torch.from_numpy(one).unsqueeze(0), torch.from_numpy(two).unsqueeze(0))
            for one, two in zip(first, second, strict=True)
        ]

    @override
    def set_masks(self, members: Members, layers: Sequence[Tensor]) -> None:
        old, masks = self.params.topology, [layer[0].numpy() for layer in layers]
        flats = [self.params.flat, self.first_moment, self.second_moment]
        if self.own_steps is not None:
            flats.append(self.own_steps)
        carried = []
        for flat in flats:
            dense = self.dense(old, flat[: self.params.split])
            carried.append((selected(dense, masks), flat[self.params.split :]))
        self.masks = masks
        self.budgets = self.counts()
        values, biases = carried[0]
        self.params = Parameters(Topology.of(masks), values, biases.reshape(self.plan.heads, -1))
        self.first_moment, self.second_moment, *own_steps = map(np.concatenate, carried[1:])
        if own_steps:
            (self.own_steps,) = own_steps
        self.reset_gradients()

    @override
    def overwrite(self, member: int, layers: Sequence[Overwritten]) -> None:
        values, where = (
            selected([part.numpy() for part in parts], self.masks)
            for parts in list(zip(*layers, strict=True))[:2]
        )
        biases = np.concatenate([layer.biases.numpy() for layer in layers], axis=1).ravel()
        at = np.concatenate([where > 0, biases])
        self.params.flat[at] = np.concatenate([values, np.zeros(len(biases), np.float32)])[at]
        self.first_moment[at] = self.second_moment[at] = 0.0
        if self.own_steps is not None:
            self.own_steps[: self.params.split][where > 0] = 0.0

    # Reading.

    @override
    def layers(self, member: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        weights = self.dense(self.params.topology, self.params.values)
        biases = np.split(self.params.biases, self.layer_rows[1:-1], axis=1)
        return [
            (torch.from_numpy(weight), torch.from_numpy(bias.copy()), torch.from_numpy(mask))
            for weight, bias, mask in zip(weights, biases, self.masks, strict=True)
        ]

    @override
    def active(self) -> Tensor:
        return torch.from_numpy(self.counts()).unsqueeze(0)

    def counts(self) -> NDArray[np.int64]:
        """Return the active connections [K, L]."""
        return np.stack([mask.sum((1, 2)) for mask in self.masks], axis=1)

    # Checkpoints.

    @override
    def weights_state(self, member: int) -> dict[str, Any]:
        target = self.target_params
        # whether the target has the network's topology decides how it is updated
        own = target.topology is not self.params.topology
        topology = {"rows": target.topology.rows, "index": target.topology.index} if own else {}
        return {
            "masks": {str(layer): mask.copy() for layer, mask in enumerate(self.masks)},
            "params": self.params.flat.copy(),
            "target": target.flat.copy(),
            "target_topology": {name: array.copy() for name, array in topology.items()} or None,
            "first": self.first_moment.copy(),
            "second": self.second_moment.copy(),
            "steps": self.steps,
            "own_steps": None if self.own_steps is None else self.own_steps.copy(),
        }

    @override
    def set_weights_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        (state,) = states
        self.masks = [np.array(state["masks"][str(n)]) for n in range(len(self.plan.shapes))]
        self.budgets = self.counts()
        online, own = Topology.of(self.masks), state["target_topology"]
        self.params = self.parameters(online, state["params"])
        target = online if own is None else Topology(np.array(own["rows"]), np.array(own["index"]))
        self.target_params = self.parameters(target, state["target"])
        self.first_moment, self.second_moment = np.array(state["first"]), np.array(state["second"])
        self.step_count[0], own_steps = state["steps"], state["own_steps"]
        self.own_steps = None if own_steps is None else np.array(own_steps)
        self.reset_gradients()

    def parameters(self, topology: Topology, flat: Floats) -> Parameters:
        """Return values and biases, one after the other, on a topology."""
        values, biases = np.split(flat, [len(topology.index)])
        return Parameters(topology, values, biases.reshape(self.plan.heads, -1))
