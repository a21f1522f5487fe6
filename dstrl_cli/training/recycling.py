"""ReDo: dormant units begin anew (Sokar et al. 2023, arXiv 2302.12902), in any method.

Every `redo_interval` updates of a network, hidden units whose activity on a batch is at most
`redo_threshold` of the mean of their layer get fresh incoming weights and a bias of 0; their
outgoing weights become 0, so that what the network computes hardly changes, and the moments of all
of these do too. Masks do not change: only active connections are drawn anew, and a unit without any
active input, which is constant whatever is done to it, is left alone.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.config.windows import updates_apart
from dstrl_cli.nets.network import Network, Overwritten
from dstrl_cli.nets.neurons import activity, layer_outputs
from dstrl_cli.replay.base import Replay
from dstrl_cli.training.neurons import stored_inputs

Layers = list[tuple[Tensor, Tensor, Tensor]]
"""Weights [K, in, out], biases [K, out] and masks [K, in, out] of a member, on the host."""


class Recycler:
    """Recycles the dormant units of a population between two updates, where members want it."""

    def __init__(self, algorithm: Algorithm, replay: Replay) -> None:
        self.algorithm, self.replay = algorithm, replay
        self.wanted = [
            (network, member, interval)
            for network in (algorithm.actor, algorithm.critic)
            if network.plan.heads
            for member in range(network.plan.members)
            if (interval := network.plan.network_config(member).redo_interval) is not None
        ]

    def after_update(self, training: Collection[int]) -> None:
        """Recycle what is due after an update of the algorithm, of the members that still train."""
        updates = self.algorithm.updates
        due = [
            (network, member)
            for network, member, interval in self.wanted
            if updates % updates_apart(network.plan.configs[member], network.plan.role) == 0
            and network.updates % interval == 0
            and member in training
        ]
        if not due:
            return
        inputs = stored_inputs(self.replay, self.algorithm.seeds, updates, "redo")
        assert inputs is not None  # an update had a batch
        for network, member in due:
            self.recycle(network, member, inputs[member, :, : network.plan.sizes[0]])

    def recycle(self, network: Network, member: int, inputs: Tensor) -> None:
        """Recycle the dormant units of a member's network on inputs [B, in]."""
        layers: Layers = [
            (weight.cpu(), bias.cpu(), mask.cpu()) for weight, bias, mask in network.layers(member)
        ]
        threshold = network.plan.network_config(member).redo_threshold
        dormant = dormant_units(layers, inputs, threshold)
        if not any(bool(units.any()) for units in dormant):
            return
        seed, role = network.plan.configs[member].seed, network.plan.role
        fresh = [
            fresh_weights(mask, streams.generator(seed, f"{role}/redo{layer}", network.updates))
            for layer, (_, _, mask) in enumerate(layers)
        ]
        network.overwrite(member, begun_anew(layers, dormant, fresh))


def dormant_units(layers: Layers, inputs: Tensor, threshold: float) -> list[Tensor]:
    """Return which units [K, out] of each layer are dormant on inputs [B, in] and have inputs.

    None of the last layer is.
    """
    found = [torch.zeros_like(bias, dtype=torch.bool) for _, bias, _ in layers]
    for head in range(len(found[0])):
        weights, biases = ([layer[part][head] for layer in layers] for part in (0, 1))
        for layer, hidden in enumerate(layer_outputs(weights, biases, inputs)[:-1]):
            connected = layers[layer][2][head].any(0)
            found[layer][head] = (activity(hidden) <= threshold) & connected
    return found


def fresh_weights(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return weights [K, in, out] as Glorot and Bengio draw them, for the active connections alone.

    Uniform within sqrt(6 / (k + m)), where a unit has k active inputs, and the units below it have
    m active outputs on average; in a dense layer these are its sizes.
    """
    inputs = mask.sum(1, keepdim=True)  # [K, 1, out]
    outputs = mask.sum((1, 2), keepdim=True) / mask.shape[1]  # [K, 1, 1]
    drawn = torch.rand(mask.shape, generator=generator) * 2 - 1
    return drawn * (6 / (inputs + outputs).clamp(min=1e-9)).sqrt()


def begun_anew(layers: Layers, dormant: list[Tensor], fresh: list[Tensor]) -> list[Overwritten]:
    """Return what becomes of every layer: fresh inputs of dormant units, and outputs of 0.

    A connection between two dormant units becomes 0.
    """
    found, below = [], None
    for (_, _, mask), units, drawn in zip(layers, dormant, fresh, strict=True):
        leaving = torch.zeros_like(mask) if below is None else below.unsqueeze(2).expand_as(mask)
        entering = units.unsqueeze(1).expand_as(mask)
        values = drawn.masked_fill(leaving, 0.0)
        found.append(Overwritten(values, (leaving | entering) & mask, units))
        below = units
    return found
