"""Whether networks of another run hold numbers that can be computed with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.config.models import RunConfig
from dstrl_cli.errors import InputError
from dstrl_cli.runs.policy import Tensors
from dstrl_cli.runs.starting import Start, key, named

TRIED = 16
"""Random inputs that a network is tried on."""


def refuse_misfit(config: RunConfig, what: str, start: Start, networks: Sequence[str]) -> None:
    """Raise InputError where weights are not finite, or so large that outputs are not.

    Args:
        config: the run that takes the networks.
        what: as what it takes them (`config.starts`).
        start: the file.
        networks: the names of those that are taken: actor; critic1, critic2.
    """
    for name in networks:
        try:
            output = _output(start.tensors, name)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{key(what)} = '{named(config, what)}': its {name} is damaged ({error})"
            ) from error
        if not np.isfinite(output).all():
            raise InputError(
                f"{key(what)} = '{named(config, what)}': the weights of its {name} are not finite, "
                "or so large that its outputs are not: that training diverged; choose another run"
            )


def _output(tensors: Tensors, name: str) -> NDArray[np.floating]:
    """Return what a network puts out for inputs drawn from a normal distribution."""
    layers = list(_layers(tensors, name))
    hidden = np.random.default_rng(0).normal(size=(TRIED, layers[0][0].shape[0]))
    hidden = hidden.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for number, (weight, bias) in enumerate(layers):
            hidden = hidden @ weight + bias
            if number + 1 < len(layers):
                hidden = np.maximum(hidden, 0)
    return hidden


def _layers(tensors: Tensors, name: str) -> Iterator[tuple[NDArray, NDArray]]:
    """Yield the weights [in, out] and biases [out] of a network, layer by layer."""
    layer = 0
    while f"{name}.weight.{layer}" in tensors:
        yield tensors[f"{name}.weight.{layer}"], tensors[f"{name}.bias.{layer}"]
        layer += 1
