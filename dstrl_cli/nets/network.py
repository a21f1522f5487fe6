"""One network of a population: weights, masks, optimizer, target and topology rules of one role.

`Network` is the interface that the algorithms see and the one place where the order of gradient,
optimizer step and topology update is decided; how weights are stored and multiplied is an engine
(`nets.masked`). The actor has one head, the twin critics are two heads of one network.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.nets import initial
from dstrl_cli.nets.groups import Group, TopologyChange, TopologyEvent, rule_groups
from dstrl_cli.topology import masks
from dstrl_cli.topology.rule import NetworkView

Members = list[int] | Tensor
"""Indices of some members; as a tensor they lie on the network's device."""


@dataclass(frozen=True)
class Plan:
    """What an engine needs to build the network of one role for P members.

    Attributes:
        role: "actor" or "critic".
        sizes: input, hidden and output sizes.
        heads: stacked networks K per member.
        configs: the members' configurations.
        steps_per_update: environment steps per update of this network.
        device: torch device.
    """

    role: str
    sizes: tuple[int, ...]
    heads: int
    configs: Sequence[RunConfig]
    steps_per_update: int
    device: str

    @property
    def shapes(self) -> list[masks.Shape]:
        """(inputs, outputs) per layer."""
        return list(zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def members(self) -> int:
        """Number of members P."""
        return len(self.configs)

    def network_config(self, member: int) -> NetworkConfig:
        """The member's keys for this role."""
        config: NetworkConfig = getattr(self.configs[member], self.role)
        return config


def layer_densities(config: NetworkConfig, shapes: Sequence[masks.Shape]) -> list[float]:
    """Return the density of every layer of a network; 1 for networks declared dense."""
    if config.dense or config.match_parameters:
        return [1.0] * len(shapes)
    return masks.densities(shapes, config.sparsity, config.allocation, config.lambdas)


def layer_budgets(config: NetworkConfig, shapes: Sequence[masks.Shape]) -> list[int]:
    """Return the active connections per layer (expected ones, rounded, for Bernoulli masks)."""
    return masks.exact_budgets(shapes, layer_densities(config, shapes))


def initial_layers(plan: Plan, member: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return (weight [K, in, out], bias [K, out], mask [K, in, out]) per layer of one member.

    Weights are dense here; every head draws its own weights and its own masks.
    """
    run, config = plan.configs[member], plan.network_config(member)
    weights_from = streams.generator(run.seed, f"{plan.role}/weights")
    masks_from = streams.generator(run.seed, f"{plan.role}/masks")
    scheme = initial.SCHEMES[run.weight_init]
    heads = [[scheme(i, o, weights_from) for i, o in plan.shapes] for _ in range(plan.heads)]
    densities = layer_densities(config, plan.shapes)
    budgets = masks.exact_budgets(plan.shapes, densities)

    def mask(weight: Tensor, layer: int) -> Tensor:
        flat = weight.flatten()
        size = flat.numel()
        if budgets[layer] == size:
            return torch.ones_like(weight, dtype=torch.bool)
        drawn = {
            "random": lambda: masks.random_mask(size, budgets[layer], masks_from),
            "bernoulli": lambda: masks.bernoulli_mask(size, densities[layer], masks_from),
            "magnitude": lambda: masks.magnitude_mask(flat, budgets[layer]),
        }[config.initial_mask]()
        return drawn.view_as(weight)

    drawn = [[mask(weight, layer) for layer, (weight, _) in enumerate(head)] for head in heads]
    return [
        (
            torch.stack([head[layer][0] for head in heads]),
            torch.stack([head[layer][1] for head in heads]),
            torch.stack([head_masks[layer] for head_masks in drawn]),
        )
        for layer in range(len(plan.shapes))
    ]


class Network(ABC):
    """The network of one role for all members.

    Shapes: inputs `[P, B, in]`, outputs `[P, K, B, out]`; `heads=1` restricts to the first head.
    An update is `forward`, `backward` with the gradient of the loss with respect to the output,
    then `update`. That has a half on the host (`begin_update`: what is due) and a half on tensors
    (`apply_update`), which can be captured where no rule looks at the update.
    Parameters, masks and moments stay at their addresses for as long as the network lives.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.groups = rule_groups(plan)
        self.observers = [group for group in self.groups if group.rule.observes_updates]
        self.due: list[Group] = []
        self.updates = 0
        self.changes: list[TopologyChange] = []

    # What an engine does.

    @abstractmethod
    def forward(self, x: Tensor, heads: int | None = None) -> Tensor:
        """Return the output `[P, K, B, out]` for `x` [P, B, in]; remembers it for `backward`."""

    @abstractmethod
    def backward(self, grad: Tensor, *, weights: bool = True, inputs: bool = False) -> Tensor:
        """Backpropagate `grad` [P, K, B, out] through the last `forward`.

        With `weights` the parameters' gradients are kept for `update`. Returns the gradient with
        respect to the input [P, B, in], summed over heads, if `inputs`; else an empty tensor.
        """

    @abstractmethod
    def predict(self, x: Tensor) -> Tensor:
        """Return the output `[P, K, B, out]` and remember nothing."""

    @abstractmethod
    def target(self, x: Tensor) -> Tensor:
        """Return the target network's output `[P, K, B, out]`."""

    @abstractmethod
    def update_target(self, tau: float) -> None:
        """Move the target by `tau` towards the network, then mask it as each member says."""

    @abstractmethod
    def optimizer_step(self, apply: Tensor) -> None:
        """Take one Adam step for the members marked in `apply` [P]."""

    @abstractmethod
    def view_layers(self, members: Members) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights (zero where inactive) and masks of some members, [M, K, in, out] each."""

    @abstractmethod
    def gradients(self, members: Members) -> list[Tensor]:
        """Return the dense gradients of the last `backward` of some members, [M, K, in, out]."""

    @abstractmethod
    def set_masks(self, members: Members, layers: Sequence[Tensor]) -> None:
        """Give some members new masks [M, K, in, out] per layer; grown connections start anew."""

    @abstractmethod
    def finish_update(self) -> None:
        """Restore what must hold after an update: inactive connections are exactly zero."""

    @abstractmethod
    def layers(self, member: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return (weight [K, in, out], bias [K, out], mask [K, in, out]) per layer of a member."""

    @abstractmethod
    def active(self) -> Tensor:
        """Return the active connections `[P, K, L]`."""

    # What every network does.

    def update(self, alive: Tensor, td_error: Tensor | None = None, batch_size: int = 1) -> None:
        """Take one update after `backward`, both halves of it; see `apply_update`."""
        self.begin_update()
        self.apply_update(alive, td_error, batch_size)

    def begin_update(self) -> None:
        """Count the update and find the rules whose topology update is due: the host's half."""
        self.updates += 1
        self.due = [group for group in self.groups if group.rule.due(self.updates)]

    @property
    def watched(self) -> bool:
        """Whether a rule looks at the update that has begun: it cannot be a replayed one."""
        return bool(self.due or self.observers)

    def apply_update(self, alive: Tensor, td_error: Tensor | None, batch_size: int) -> None:
        """Take the optimizer step and, where due, the topology update.

        A rule whose method says `rewire: instead_of_step` replaces its members' optimizer step
        (RLX's code); the others change the topology after it (SOK Alg. 1).

        Args:
            alive: members that still train [P], bool.
            td_error: sum over the batch of |target - Q| [P, K], for critics.
            batch_size: rows of the batch.
        """
        if not self.watched:
            self.optimizer_step(alive)
            self.finish_update()
            return
        gradients = {
            id(group): self.gradients(group.index)
            for group in self.due
            if group.rule.needs_gradient
        }
        self.optimizer_step(self.without_replaced(alive))
        for group in self.observers:
            group.rule.observe(self.view(group, alive, None, td_error, batch_size))
        for group in self.due:
            view = self.view(group, alive, gradients.get(id(group)), td_error, batch_size)
            self.rewire(group, view)
        self.finish_update()

    def without_replaced(self, alive: Tensor) -> Tensor:
        """Return `alive` less the members whose optimizer step a topology update replaces."""
        replacing = [group for group in self.due if group.instead_of_step]
        if not replacing:
            return alive
        apply = alive.clone()
        for group in replacing:
            apply.index_fill_(0, group.index, False)
        return apply

    def view(
        self,
        group: Group,
        alive: Tensor,
        gradients: list[Tensor] | None,
        td_error: Tensor | None,
        batch_size: int,
    ) -> NetworkView:
        """Return what the scores of a group's rule may see."""
        weights, layer_masks = self.view_layers(group.index)
        return NetworkView(
            weights=weights,
            masks=layer_masks,
            gradients=gradients,
            td_error=None if td_error is None else td_error[group.index],
            batch_size=batch_size,
            uniform=functools.partial(self.growth_numbers, group.members),
            alive=alive[group.index],
        )

    def growth_numbers(self, members: list[int], layer: int) -> Tensor:
        """Return numbers in [0, 1) [M, K, in, out] from each member's stream for this update."""
        shape = (self.plan.heads, *self.plan.shapes[layer])
        name = f"{self.plan.role}/growth{layer}"
        drawn = [
            torch.rand(
                shape,
                generator=streams.generator(self.plan.configs[member].seed, name, self.updates),
            )
            for member in members
        ]
        return torch.stack(drawn).to(self.plan.device)

    def rewire(self, group: Group, view: NetworkView) -> None:
        """Carry out a group's topology update and remember its counts."""
        change = group.rule.change(view, self.updates)
        self.set_masks(group.index, [layer.mask for layer in change.layers])
        per_layer = [
            torch.stack((layer.mask.sum((-2, -1)), layer.dropped, layer.grown))  # [3, M, K]
            for layer in change.layers
        ]
        counts = torch.stack(per_layer, dim=-1)
        self.changes.append(TopologyChange(group.members, counts, change.fraction))

    def take_changes(self) -> list[TopologyChange]:
        """Return the topology updates since the last call; reads nothing from the device."""
        changes, self.changes = self.changes, []
        return changes

    def take_events(self) -> list[TopologyEvent]:
        """Return the topology updates since the last call, member by member, on the host."""
        return [event for change in self.take_changes() for event in change.events()]
