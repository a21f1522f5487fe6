"""The part of a policy that its actions depend on: no idle connections and no idle neurons.

Three things go, and the actions stay the same up to the rounding of changed biases:

- connections whose weight is zero, inactive ones among them;
- hidden neurons from which no active connections lead to an output of the policy;
- hidden neurons to which none lead from an observation. Their value is constant, so what they add
  to the next layer is added to its biases instead.

SAC's outputs for the standard deviation do not act and are left out as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrl_cli.errors import InputError
from dstrl_cli.runs.policy import Policy

LARGEST_OBSERVATION = 1000.0
"""No layer may overflow while every entry of an observation lies within plus and minus this."""


@dataclass(frozen=True)
class Layer:
    """One layer: weight [in, out] and bias [out], float32. A zero weight is no connection."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def inputs(self) -> int:
        """Inputs of the layer."""
        return self.weight.shape[0]

    @property
    def outputs(self) -> int:
        """Neurons of the layer."""
        return self.weight.shape[1]

    @property
    def connections(self) -> int:
        """Active connections."""
        return int(np.count_nonzero(self.weight))


@dataclass(frozen=True)
class Scale:
    """From outputs of tanh to actions: `middle + half * output`, within low and high, [act] each.

    All are in the type in which actions are computed, float32 or float64. `dtype` is that of the
    environment's actions, which may be coarser.
    """

    middle: NDArray[Any]
    half: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    dtype: np.dtype[Any]

    @property
    def is_needed(self) -> bool:
        """Whether actions are anything else than the outputs of tanh."""
        return not ((self.low == -1).all() and (self.high == 1).all())


@dataclass(frozen=True)
class Network:
    """ReLU layers, then tanh, then the action bounds: what is exported.

    Attributes:
        layers: from the observation on; the last one's outputs are the action's entries.
        scale: the bounds of the actions.
        no_output: hidden neurons left out because nothing depends on them.
        no_input: hidden neurons left out because they are constant; they are in the biases.
    """

    layers: tuple[Layer, ...]
    scale: Scale
    no_output: int = 0
    no_input: int = 0

    @property
    def observation_size(self) -> int:
        """Entries of an observation."""
        return self.layers[0].inputs

    @property
    def action_size(self) -> int:
        """Entries of an action."""
        return self.layers[-1].outputs

    @property
    def hidden_sizes(self) -> list[int]:
        """Neurons of the hidden layers."""
        return [layer.outputs for layer in self.layers[:-1]]

    @property
    def connections(self) -> int:
        """Active connections of all layers."""
        return sum(layer.connections for layer in self.layers)


def needed_part(policy: Policy) -> Network:
    """Return the part of a policy that its actions depend on."""
    weights, biases = _acting(policy)
    reaching = _reaching_an_output(weights)
    varies = np.ones(policy.observation_size, bool)  # which inputs of the layer are kept
    constant = np.zeros(policy.observation_size)  # the values of inputs that are constant, else 0
    layers: list[Layer] = []
    no_output = no_input = 0
    with np.errstate(over="ignore", invalid="ignore"):  # `check_overflow` refuses these
        for weight, bias, reaches in zip(weights, biases, reaching, strict=True):
            # What constant inputs add, summed in float64 and rounded once.
            folded = bias.astype(np.float64) + constant @ weight.astype(np.float64)
            has_input = (weight[varies] != 0).any(0)
            last = len(layers) == len(weights) - 1
            keep = np.ones_like(reaches) if last else reaches & has_input
            layers.append(Layer(weight[varies][:, keep], folded[keep].astype(np.float32)))
            no_output += int((~reaches).sum())
            no_input += int((reaches & ~keep).sum())
            varies, constant = keep, np.where(has_input, 0.0, np.maximum(folded, 0.0))
    if not all(layer.outputs for layer in layers):  # no observation reaches an action
        nothing = np.zeros((policy.observation_size, policy.action_size), np.float32)
        layers = [Layer(nothing, layers[-1].bias)]
    return Network(tuple(layers), _scale(policy), no_output, no_input)


def dense_like(policy: Policy) -> Network:
    """Return a dense network with a policy's sizes and random weights, to compare costs with.

    No weight is zero, which would be no connection.
    """
    draw = np.random.default_rng(0)
    layers = []
    for weight, bias in zip(*_acting(policy), strict=True):
        values = (draw.random(weight.shape) + 0.5) * draw.choice([-1.0, 1.0], weight.shape)
        scaled = (values / np.sqrt(weight.shape[0])).astype(np.float32)
        layers.append(Layer(scaled, np.zeros_like(bias)))
    return Network(tuple(layers), _scale(policy))


def check_overflow(network: Network, source: str) -> None:
    """Raise InputError where the sums of a layer may leave float32.

    Args:
        network: what is to be exported.
        source: what the message calls the policy.
    """
    largest = np.full(network.observation_size, LARGEST_OBSERVATION)
    for number, layer in enumerate(network.layers):
        with np.errstate(over="ignore", invalid="ignore"):
            largest = largest @ np.abs(layer.weight.astype(np.float64)) + np.abs(layer.bias)
        if not (largest <= np.finfo(np.float32).max).all():  # also where it is NaN
            raise InputError(
                f"{source}: its weights overflow: observations within +-{LARGEST_OBSERVATION:g} "
                f"may lead layer {number} beyond what float32 holds. The training diverged; "
                "export an earlier policy, such as best.safetensors"
            )


def _acting(policy: Policy) -> tuple[list[NDArray], list[NDArray]]:
    """Return the weights and biases of a policy without outputs that do not act."""
    *weights, weight = policy.weights
    *biases, bias = policy.biases
    acting = slice(policy.action_size)
    return [*weights, weight[:, acting]], [*biases, bias[acting]]


def _reaching_an_output(weights: Sequence[NDArray]) -> list[NDArray[np.bool_]]:
    """Return for each layer which of its neurons [out] have an active path to an output."""
    found = [np.ones(weights[-1].shape[1], bool)]
    for weight in reversed(weights[1:]):
        found.insert(0, (weight[:, found[0]] != 0).any(1))
    return found


def _scale(policy: Policy) -> Scale:
    middle, half = policy.scale()
    low, high = policy.action_low.astype(middle.dtype), policy.action_high.astype(middle.dtype)
    return Scale(middle, half, low, high, policy.action_low.dtype)
