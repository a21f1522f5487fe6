"""What networks start with: weights by the scheme that the configuration names, and masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.config.models import RunConfig
from dstrl_cli.errors import DstrlError
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.registry import INITIAL_MASKS, load
from dstrl_cli.runs import starting
from dstrl_cli.topology.blame import blamed
from dstrl_cli.topology.budgets import exact_budgets, initial_densities
from dstrl_cli.topology.initial import BY_WEIGHT, InitialMask
from dstrl_cli.topology.initial.stored import stored_masks
from dstrl_cli.topology.limits import layer_limit
from dstrl_cli.topology.masks import fitted


def fan_in(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights [in, out] and biases [out] uniform in +-1/sqrt(in): PyTorch's default, TD3's code."""
    bound = 1.0 / math.sqrt(inputs)
    weight = torch.empty(inputs, outputs).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(outputs).uniform_(-bound, bound, generator=generator)


def orthogonal(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Orthogonal weights [in, out] and zero biases: RLX's code for SAC."""
    weight = torch.empty(outputs, inputs)
    torch.nn.init.orthogonal_(weight, generator=generator)
    return weight.T.contiguous(), torch.zeros(outputs)


def xavier(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Xavier-uniform weights [in, out] and zero biases: the SAC code that SOK builds on."""
    weight = torch.empty(outputs, inputs)
    torch.nn.init.xavier_uniform_(weight, generator=generator)
    return weight.T.contiguous(), torch.zeros(outputs)


SCHEMES: dict[str, Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "fan_in": fan_in,
    "orthogonal": orthogonal,
    "xavier": xavier,
}


MAX_DRAWS = 10_000
"""How often an empty mask is drawn again. Even where 0.001 connections are expected in a layer, all
of these draws are empty with a probability of only exp(-10)."""

Tell = Callable[[str], None]
"""Takes a line that the user should read."""


def initial_layers(
    plan: NetworkPlan, member: int, tell: Tell | None = None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return (weight [K, in, out], bias [K, out], mask [K, in, out]) per layer of one member.

    Weights are dense here; every head draws its own weights and its own masks, unless the run
    starts from those of another one. `tell` hears of masks that had to be drawn again.
    """
    run = plan.configs[member]
    if run.init_weights_from is None or starting.draws_fresh(run):
        heads = drawn_heads(plan, run)
    else:
        heads = weights_of_other(plan, run)
    if start := starting.find(run, "mask"):
        masks = stored_masks(start.tensors, plan.head_names, len(plan.shapes))
    else:
        weights = [[weight for weight, _ in head] for head in heads]
        masks = initial_masks(plan, member, weights, tell)
    return [
        (
            torch.stack([head[layer][0] for head in heads]),
            torch.stack([head[layer][1] for head in heads]),
            torch.stack([head_masks[layer] for head_masks in masks]),
        )
        for layer in range(len(plan.shapes))
    ]


def drawn_heads(plan: NetworkPlan, run: RunConfig) -> list[list[tuple[Tensor, Tensor]]]:
    """Return the weights [in, out] and biases [out] that a run draws, per head and layer."""
    stream = "fresh_weights" if starting.draws_fresh(run) else "weights"
    generator = streams.generator(run.seed, f"{plan.role}/{stream}")
    scheme = SCHEMES[run.weight_init]
    return [[scheme(i, o, generator) for i, o in plan.shapes] for _ in range(plan.heads)]


def weights_of_other(plan: NetworkPlan, run: RunConfig) -> list[list[tuple[Tensor, Tensor]]]:
    """Return the weights and biases of the run that `init_weights_from` names, as `drawn_heads`.

    Those that a run began with are drawn again from its seed, since its file holds only those of
    its first mask. Raises DstrlError where they are not what the file holds.
    """
    tensors, drawn_by = starting.first_weights(run)
    stored = [
        [
            tuple(torch.from_numpy(tensors[f"{name}.{kind}.{n}"]) for kind in ("weight", "bias"))
            for n in range(len(plan.shapes))
        ]
        for name in plan.head_names
    ]
    if drawn_by is None:
        return [[(weight, bias) for weight, bias in head] for head in stored]
    heads = drawn_heads(plan, drawn_by)
    for name, head, held in zip(plan.head_names, heads, stored, strict=True):
        for n, ((weight, bias), (its_weight, its_bias)) in enumerate(zip(head, held, strict=True)):
            active = torch.from_numpy(tensors[f"{name}.mask.{n}"] != 0)
            if not torch.equal(weight * active, its_weight) or not torch.equal(bias, its_bias):
                raise DstrlError(
                    f"init_weights_from = '{run.init_weights_from}': the weights of {name}, layer "
                    f"{n}, cannot be drawn again as that run drew them, which another version of "
                    "torch or dstrl may have done; name a policy file that lies in no run's folder "
                    "to take the weights that it holds, inactive ones as zero"
                )
    return heads


def initial_masks(
    plan: NetworkPlan, member: int, heads: list[list[Tensor]], tell: Tell | None = None
) -> list[list[Tensor]]:
    """Return the mask [in, out] of every head and layer of one member.

    No mask is empty: where the number of connections is random (Bernoulli), a mask without any is
    drawn again from the same stream. The output of an empty layer would be constant. A limit on the
    inputs of neurons (`topology.fan_in`, `n_of_m`) holds from the start on.

    Args:
        plan: the network.
        member: whose keys and seed count.
        heads: the dense weights [in, out] per head and layer.
        tell: hears of masks that were drawn again.

    Raises DstrlError for a function of somebody else's that fails, or returns no mask, or only
    empty ones.
    """
    config = plan.network_config(member)
    generator = streams.generator(plan.configs[member].seed, f"{plan.role}/masks")
    fitting = streams.generator(plan.configs[member].seed, f"{plan.role}/limits")
    densities = initial_densities(config, plan.shapes)
    budgets = exact_budgets(plan.shapes, densities)
    draw: InitialMask = load(INITIAL_MASKS, config.initial_mask)
    key = f"{plan.role}.initial_mask"
    setting = f"{key} = '{config.initial_mask}'"

    def limited(drawn: Tensor, weight: Tensor, layer: int) -> Tensor:
        limit = layer_limit(config.topology, *plan.shapes[layer], layer, len(plan.shapes))
        if limit is None:
            return drawn
        if config.initial_mask in BY_WEIGHT:
            return fitted(drawn, limit, -weight.abs())
        numbers = torch.rand(weight.shape, generator=fitting, dtype=torch.float64)
        return fitted(drawn, limit, numbers)

    def mask(weight: Tensor, name: str, layer: int) -> Tensor:
        if budgets[layer] == weight.numel():
            return torch.ones_like(weight, dtype=torch.bool)
        for empty in range(MAX_DRAWS):
            with blamed(key, config.initial_mask):
                drawn = draw(weight, densities[layer], budgets[layer], generator)
                if drawn.shape != weight.shape or drawn.dtype != torch.bool:
                    raise DstrlError(
                        f"{setting} must return a bool mask of shape {list(weight.shape)}, not "
                        f"{drawn.dtype} of shape {list(drawn.shape)}"
                    )
            if drawn.any():
                if empty and tell:
                    times = "once" if empty == 1 else f"{empty:,} times"
                    what = f"the initial mask of {name}, layer {layer}"
                    tell(f"{what}, was empty {times} and was drawn again")
                return limited(drawn, weight, layer)
        raise DstrlError(f"{setting} leaves layer {layer} of {name} without any connection")

    return [
        [mask(weight, name, layer) for layer, weight in enumerate(head)]
        for name, head in zip(plan.head_names, heads, strict=True)
    ]
