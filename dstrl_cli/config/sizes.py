"""Layer sizes: counting weights, densities by lambdas, widths of a dense network of a given size.

Pure arithmetic on tuples of sizes; it knows no configuration (`network_sizes` applies it).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dstrl_cli.errors import InputError


def layer_weights(sizes: Sequence[int]) -> list[int]:
    """Return the number of weights of each layer; biases are never counted."""
    return [inputs * outputs for inputs, outputs in pairwise(sizes)]


def matched_widths(
    input_size: int, output_size: int, hidden_sizes: Sequence[int], target_weights: int
) -> tuple[int, ...]:
    """Return the hidden widths of the dense network whose weight count is nearest the target.

    The ratio of `hidden_sizes` is kept (rounded, at least one unit each); of two equally near
    networks the smaller is taken. Raises InputError where one unit per layer is already too much.
    """
    largest = max(hidden_sizes)

    def scaled(width: int) -> tuple[int, ...]:
        return tuple(max(1, round(size * width / largest)) for size in hidden_sizes)

    def weights(widths: tuple[int, ...]) -> int:
        return sum(layer_weights([input_size, *widths, output_size]))

    if (least := weights((1,) * len(hidden_sizes))) > target_weights:
        raise InputError(
            f"a dense network of {target_weights} weights cannot be made: one unit per hidden "
            f"layer already has {least}; choose a lower sparsity"
        )
    return min(map(scaled, range(1, largest + 1)), key=lambda w: abs(weights(w) - target_weights))


def lambda_densities(shapes: Sequence[tuple[int, int]], lambdas: Sequence[float]) -> list[float]:
    """Return p_l = min(1, lambda_l (I + O) / (I O)) of layers (I, O) (SOK eq. 1).

    Layers beyond `lambdas` are dense.
    """
    given = [min(1.0, k * (i + o) / (i * o)) for k, (i, o) in zip(lambdas, shapes, strict=False)]
    return given + [1.0] * (len(shapes) - len(given))


def lambda_active(sizes: Sequence[int], lambdas: Sequence[float]) -> list[float]:
    """Return the expected active connections of each layer by SOK's eq. 1."""
    densities = lambda_densities(list(pairwise(sizes)), lambdas)
    return [n * p for n, p in zip(layer_weights(sizes), densities, strict=True)]


def lambda_sparsity(sizes: Sequence[int], lambdas: Sequence[float]) -> float:
    """Return the expected sparsity by SOK's eq. 1, to three digits."""
    return round(1 - sum(lambda_active(sizes, lambdas)) / sum(layer_weights(sizes)), 3)


def joint_sparsity(sizes: Sequence[int], sparsities: Sequence[float]) -> float:
    """Return the sparsity of a network whose layers have these sparsities, to three digits.

    A layer has a whole number of connections, so it is the realised one.
    """
    weights = layer_weights(sizes)
    inactive = sum(int(round(n * each, 6)) for n, each in zip(weights, sparsities, strict=True))
    return round(inactive / sum(weights), 3)
