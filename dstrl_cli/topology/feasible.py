"""Whether the limits on the inputs of neurons go with the budgets of their layers, before a run.

Plain arithmetic on layer sizes, keys and stored masks; planning needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from numpy.typing import NDArray

from dstrl_cli.config.limits import at_most, by_layer, shown
from dstrl_cli.config.models import NetworkConfig
from dstrl_cli.errors import InputError
from dstrl_cli.topology.budgets import Shape, layer_budgets, layer_moves


def check_limits(role: str, network: NetworkConfig, shapes: Sequence[Shape]) -> None:
    """Raise InputError where a layer cannot meet the limits on its neurons' inputs.

    Args:
        role: actor or critic.
        network: its keys, with all layer sizes.
        shapes: (inputs, outputs) of its layers.
    """
    if network.all_active:
        return
    _check_groups(role, network, shapes)
    most = _most(network)
    if most is None:
        return
    budgets = {
        layer: _largest_budget(network, shapes, layer) for layer, _ in _limited(shapes, most)
    }
    needed = max((-(-budgets[layer] // shapes[layer][1]) for layer in budgets), default=0)
    for layer, budget in budgets.items():
        inputs, outputs = shapes[layer]
        if budget > most * outputs:
            raise InputError(
                f"{role}.topology.fan_in = '{network.topology.fan_in}': layer {layer} "
                f"({inputs}x{outputs}) has up to {budget:,} connections, and {outputs:,} neurons "
                f"of {most:,} inputs have {most * outputs:,} at most; set at_most:{needed} or "
                "more, or at_most:2x, which follows the layer's connections, or a higher sparsity"
            )


def limit_notes(role: str, network: NetworkConfig, shapes: Sequence[Shape]) -> list[str]:
    """Return which layers are fully dense, and so exempt from a largest number of inputs."""
    most = None if network.all_active else _most(network)
    if most is None:
        return []
    budgets = layer_budgets(network, shapes)
    dense = [
        str(layer)
        for layer, (inputs, outputs) in _limited(shapes, most)
        if budgets[layer] == inputs * outputs
    ]
    if not dense:
        return []
    layers = f"layer {dense[0]} is" if len(dense) == 1 else f"layers {', '.join(dense)} are"
    of = "the actor" if role == "actor" else "the critics"
    return [f"fan_in {network.topology.fan_in} leaves out what is fully dense: {layers}, in {of}"]


def _most(network: NetworkConfig) -> int | None:
    """Return the largest number of inputs that a network's neurons may have, if there is one."""
    limit = at_most(network.topology.fan_in)
    return None if limit is None or limit.times_mean else int(limit.number)


def _limited(shapes: Sequence[Shape], most: int) -> Iterator[tuple[int, Shape]]:
    """Yield the layers, with their numbers, that a largest number of inputs can restrict."""
    for layer, (inputs, outputs) in enumerate(shapes):
        if outputs > 1 and most < inputs:
            yield layer, (inputs, outputs)


def _largest_budget(network: NetworkConfig, shapes: Sequence[Shape], layer: int) -> int:
    """Return the most connections that a layer has in a run while it is not fully dense; or 0.

    A budget that moves little by little passes nearly all numbers on its way.
    """
    inputs, outputs = shapes[layer]
    size = inputs * outputs
    first, last = layer_moves(network, shapes)[layer].budgets
    if first == last:
        return first if first < size else 0
    if network.topology.budget == "at_once":
        return max((each for each in (first, last) if each < size), default=0)
    return min(max(first, last), size - 1)


def _check_groups(role: str, network: NetworkConfig, shapes: Sequence[Shape]) -> None:
    """Raise InputError where M inputs do not divide those of a layer."""
    written = network.topology.n_of_m
    if written is None:
        return
    kept = by_layer(written, len(shapes))
    misfit = [
        layer
        for layer, ((inputs, _), (n, m)) in enumerate(zip(shapes, kept, strict=True))
        if n < m and inputs % m
    ]
    if misfit:
        layer = misfit[0]
        texts = ["1:1" if each in misfit else f"{n}:{m}" for each, (n, m) in enumerate(kept)]
        raise InputError(
            f"{role}.topology.n_of_m = {shown(written)}: layer {layer} has {shapes[layer][0]:,} "
            f"inputs, which {kept[layer].m} does not divide; leave it dense, with "
            f"{role}.topology.n_of_m={shown(texts)}, or choose another N:M"
        )


def first_beyond(network: NetworkConfig, masks: Sequence[NDArray[Any]]) -> int | None:
    """Return the first layer whose mask is not within the limits of a network, or None.

    Neurons without any input count as given up: a constant fan-in is that of the others.

    Args:
        network: its keys.
        masks: [in, out] per layer, 1 where active.
    """
    rule = network.topology
    kept = None if rule.n_of_m is None else by_layer(rule.n_of_m, len(masks))
    for layer, mask in enumerate(masks):
        if kept is not None:
            n, m = kept[layer]
            met = n == m or bool((mask.reshape(-1, m, mask.shape[1]).sum(1) == n).all())
            met = met and (n < m or bool(mask.all()))
        else:
            met = _within(rule.fan_in, mask)
        if not met:
            return layer
    return None


def _within(fan_in: str, mask: NDArray[Any]) -> bool:
    """Whether the mask [in, out] of a layer is within a `fan_in`."""
    inputs = mask.sum(0)  # of every neuron
    if fan_in == "free" or len(inputs) == 1 or mask.all():
        return True
    limit, living = at_most(fan_in), inputs[inputs > 0]
    if limit is None:
        return len(living) == 0 or bool(living.max() - living.min() <= 1)
    mean = float(inputs.mean())
    most = max(limit.number * mean, -(-mean // 1)) if limit.times_mean else limit.number
    return bool(inputs.max() <= most)
