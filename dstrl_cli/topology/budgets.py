"""How many connections each layer of a network may have: densities by allocation, exact budgets.

Plain arithmetic on layer sizes and keys; no tensors, so that planning needs no torch. A density is
the share of a layer's connections that are active, a budget their whole number.
"""

from __future__ import annotations

from collections.abc import Sequence

from dstrl_cli.config import sizes
from dstrl_cli.config.limits import by_layer
from dstrl_cli.config.models import NetworkConfig
from dstrl_cli.errors import InputError
from dstrl_cli.registry import ALLOCATIONS, load
from dstrl_cli.topology.moves import LayerMove

Shape = tuple[int, int]
"""(inputs, outputs) of one weight matrix."""


# --- allocations: (shapes, sparsity, lambdas) -> densities --------------------------------------


def uniform_densities(
    shapes: Sequence[Shape], sparsity: float, lambdas: Sequence[float] | None = None
) -> list[float]:
    """Return the same density 1 - sparsity for every layer."""
    return [1.0 - sparsity for _ in shapes]


def uniform_hidden_densities(
    shapes: Sequence[Shape], sparsity: float, lambdas: Sequence[float] | None = None
) -> list[float]:
    """Return the density 1 - sparsity for every layer but the output layer, which is dense."""
    return [*(1.0 - sparsity for _ in shapes[:-1]), 1.0]


def erdos_renyi_densities(
    shapes: Sequence[Shape], sparsity: float, lambdas: Sequence[float] | None = None
) -> list[float]:
    """Return densities p_l = eps (I + O) / (I O) that meet a total sparsity (RLX App. B).

    `eps` makes the active connections of all layers (1 - sparsity) of the total. Layers whose
    density would exceed 1 become dense and their surplus moves to the others, the largest raw
    density first, until all fit (authors' code, `sparse_set`).
    """
    counts = [inputs * outputs for inputs, outputs in shapes]
    if sparsity == 0.0:
        return [1.0] * len(shapes)
    raw = [(inputs + outputs) / (inputs * outputs) for inputs, outputs in shapes]
    dense: set[int] = set()
    while len(dense) < len(shapes):
        free = [layer for layer in range(len(shapes)) if layer not in dense]
        target = (1.0 - sparsity) * sum(counts) - sum(counts[layer] for layer in dense)
        eps = target / sum(raw[layer] * counts[layer] for layer in free)
        largest = max(raw[layer] for layer in free)
        if eps * largest <= 1.0:
            return [1.0 if layer in dense else eps * raw[layer] for layer in range(len(shapes))]
        dense.update(layer for layer in free if raw[layer] == largest)
    return [1.0] * len(shapes)  # reached through rounding alone, at a sparsity of nearly 0


def lambda_densities(
    shapes: Sequence[Shape], sparsity: float, lambdas: Sequence[float] | None = None
) -> list[float]:
    """Return the densities of SOK's eq. 1, which follow from the lambdas and not from `sparsity`.

    Layers beyond the last lambda are dense.
    """
    return sizes.lambda_densities(shapes, lambdas or ())


def given_densities(
    shapes: Sequence[Shape], sparsity: float, lambdas: Sequence[float] | None = None
) -> list[float]:
    """Return the densities of the sparsities that `layers` gives, one a layer.

    Those are handed over as `lambdas`; `sparsity` follows from them.
    """
    return [1.0 - each for each in lambdas or ()]


# --- a network's layers -------------------------------------------------------------------------


def layer_densities(config: NetworkConfig, shapes: Sequence[Shape]) -> list[float]:
    """Return the density of every layer of a network; 1 where all connections are active."""
    if config.all_active:
        return [1.0] * len(shapes)
    return _allocated(config, shapes, config.sparsity)


def initial_densities(config: NetworkConfig, shapes: Sequence[Shape]) -> list[float]:
    """Return the density of every layer before training: another one where the budget moves."""
    if not config.moves_budget:
        return layer_densities(config, shapes)
    return _allocated(config, shapes, config.initial_sparsity or 0.0)


def _allocated(config: NetworkConfig, shapes: Sequence[Shape], sparsity: float) -> list[float]:
    if sparsity == 0.0 and config.moves_budget:
        return [1.0] * len(shapes)  # also where the allocation gives sparsities of its own
    if config.topology.n_of_m is not None:
        return [1.0 - each.sparsity for each in by_layer(config.topology.n_of_m, len(shapes))]
    allocation = load(ALLOCATIONS, config.allocation)
    found: list[float] = allocation(shapes, sparsity, config.lambdas or config.layers)
    return found


def layer_moves(config: NetworkConfig, shapes: Sequence[Shape]) -> list[LayerMove]:
    """Return the way of every layer's budget from the start of a run to its end."""
    first, last = initial_densities(config, shapes), layer_densities(config, shapes)
    budgets = zip(exact_budgets(shapes, first), exact_budgets(shapes, last), strict=True)
    return [
        LayerMove(inputs * outputs, densities, both)
        for (inputs, outputs), densities, both in zip(
            shapes, zip(first, last, strict=True), budgets, strict=True
        )
    ]


def exact_budgets(shapes: Sequence[Shape], densities: Sequence[float]) -> list[int]:
    """Return the active connections per layer, n - int((1 - p) n) (authors' code of RLX).

    The product is rounded to six digits first: 1 - p in floating point can fall just short of a
    whole number, of which the authors' code then keeps one connection more.

    Raises:
        InputError: where a layer would have no connection.
    """
    budgets = []
    for (inputs, outputs), density in zip(shapes, densities, strict=True):
        if not 0.0 <= density <= 1.0 + 1e-9:
            raise ValueError(f"a density must be in [0, 1], not {density}")
        count = inputs * outputs
        budget = count - int(round((1.0 - density) * count, 6))
        if budget < 1:
            raise InputError(
                f"sparsity: the budget of a layer {inputs}x{outputs} is 0 connections; "
                "lower the sparsity or widen the network"
            )
        budgets.append(budget)
    return budgets


def layer_budgets(config: NetworkConfig, shapes: Sequence[Shape]) -> list[int]:
    """Return the active connections per layer (for Bernoulli masks the expected ones, rounded).

    Raises InputError where a layer would have no connection.
    """
    return exact_budgets(shapes, layer_densities(config, shapes))
