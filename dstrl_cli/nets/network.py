"""One network of a population: weights, masks, optimizer, target and topology rules of one role.

`Network` is the interface that the algorithms see, and the one place that decides the order of
gradient, optimizer step and topology update. How weights are stored and multiplied is the business
of an engine (`nets.masked`, `nets.sparse`). The actor has one head, the twin critics are two heads
of one network.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.machine import give_memory_back
from dstrl_cli.nets.groups import Group, TopologyChange, rule_groups
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.topology.rule import NetworkView

Members = list[int] | Tensor
"""Indices of some members; as a tensor they lie on the network's device."""


class Overwritten(NamedTuple):
    """What is to become of one layer of a member; on the host."""

    values: Tensor  # [K, in, out] new weights
    where: Tensor  # [K, in, out] bool: which weights, active ones alone
    biases: Tensor  # [K, out] bool: the biases that become 0


class Network(ABC):
    """The network of one role for all members.

    Shapes: inputs `[P, B, in]`, outputs `[P, K, B, out]`; `heads=1` restricts to the first head.
    An update is `begin_update`, which decides on the host what is due, then `forward`, `backward`
    with the gradient of the loss with respect to the output, and `apply_update`. All but the first
    work on tensors, so that they can be captured where no rule looks at the update.
    On an accelerator, parameters, masks and moments stay at their addresses.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        self.groups = rule_groups(plan)
        self.observing = [group for group in self.groups if group.rule.observers]
        self.due: list[Group] = []
        self.updates = 0
        self.changes: list[TopologyChange] = []
        self.messages: list[tuple[int, str]] = []

    # What an engine does.

    @abstractmethod
    def forward(self, x: Tensor, heads: int | None = None) -> Tensor:
        """Return the output `[P, K, B, out]` for `x` [P, B, in]; remembers it for `backward`."""

    @abstractmethod
    def backward(self, grad: Tensor, *, weights: bool = True, inputs: bool = False) -> Tensor:
        """Backpropagate `grad` [P, K, B, out] through the last `forward`.

        With `weights` the parameters' gradients are kept for `apply_update`. Returns the gradient
        with respect to the input [P, B, in], summed over heads, if `inputs`; else an empty tensor.
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
    def set_learning_rate(self, rate: float) -> None:
        """Take further optimizer steps with another learning rate."""

    @abstractmethod
    def view_layers(self, members: Members) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights (zero where inactive) and masks of some members, [M, K, in, out] each."""

    @abstractmethod
    def gradients(self, members: Members) -> list[Tensor]:
        """Return the dense gradients of the last `backward` of some members, [M, K, in, out]."""

    @abstractmethod
    def moments(self, members: Members) -> list[tuple[Tensor, Tensor]]:
        """Return Adam's first and second moments of some members, [M, K, in, out] per layer."""

    @abstractmethod
    def set_masks(self, members: Members, layers: Sequence[Tensor]) -> None:
        """Give some members new masks [M, K, in, out] per layer.

        Grown connections start at zero, with zero moments, unless a member's keys say otherwise.
        """

    @abstractmethod
    def overwrite(self, member: int, layers: Sequence[Overwritten]) -> None:
        """Give some connections and biases of a member new values, with zero moments.

        Masks stay, and so do the optimizer's counts of steps, but for members that count them by
        connection (`grown_bias_correction`).
        """

    @abstractmethod
    def finish_update(self) -> None:
        """Restore what must hold after an update: inactive connections are exactly zero."""

    @abstractmethod
    def layers(self, member: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return (weight [K, in, out], bias [K, out], mask [K, in, out]) per layer of a member."""

    @abstractmethod
    def active(self) -> Tensor:
        """Return the active connections `[P, K, L]`."""

    @abstractmethod
    def weights_state(self, member: int) -> dict[str, Any]:
        """Return one member's parameters, masks, moments and target as arrays on the host."""

    @abstractmethod
    def set_weights_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take up what `weights_state` returned, of all members in order."""

    # What every network does.

    def begin_update(self) -> None:
        """Count the update and find the rules whose topology update is due (on the host)."""
        self.updates += 1
        self.due = [group for group in self.groups if group.rule.due(self.updates)]

    @property
    def watched(self) -> bool:
        """Whether a rule looks at the update that has begun, which then cannot be replayed."""
        return bool(self.due or self.observing)

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
        observed = {id(group): self.observed_gradients(group) for group in self.observing}
        dense = {id(group): self.dense_gradients(group) for group in self.due}
        self.optimizer_step(self.without_replaced(alive))
        for group in self.observing:
            self.show(group, alive, observed[id(group)], td_error, batch_size)
        for group in self.due:
            view = self.view(group, alive, dense[id(group)], td_error, batch_size)
            self.rewire(group, view)
        self.finish_update()

    @property
    def shown_without_gradients(self) -> bool:
        """Whether the rules that look at the update that has begun may see it when it is over."""
        return not self.due and not any(each.rule.observes_gradients for each in self.observing)

    def show_update(self, alive: Tensor, td_error: Tensor | None, batch_size: int) -> None:
        """Show the rules an update that an engine took by itself; see `apply_update`."""
        for group in self.observing:
            self.show(group, alive, None, td_error, batch_size)

    def show(
        self,
        group: Group,
        alive: Tensor,
        gradients: list[Tensor] | None,
        td_error: Tensor | None,
        batch_size: int,
    ) -> None:
        """Let the scores of a group that observe updates see one."""
        layers = None if group.rule.observes_weights else self.strengths(group.index)
        view = self.view(group, alive, gradients, td_error, batch_size, layers)
        group.rule.observe(view)

    def strengths(self, members: Members) -> list[Tensor] | None:
        """Return `NetworkView.strengths` of some members, or None where weights must do."""
        return None

    def dense_gradients(self, group: Group) -> list[Tensor] | None:
        """Return the gradients of all connections, where a score asks for them."""
        return self.gradients(group.index) if group.rule.needs_gradient else None

    def observed_gradients(self, group: Group) -> list[Tensor] | None:
        """Return gradients that are zero where inactive, where a score observes them."""
        if not group.rule.observes_gradients:
            return None
        _, layer_masks = self.view_layers(group.index)
        gradients = self.gradients(group.index)
        return [grad * mask for grad, mask in zip(gradients, layer_masks, strict=True)]

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
        strengths: list[Tensor] | None = None,
    ) -> NetworkView:
        """Return what the scores of a group's rule may see, `strengths` instead of weights."""
        weights: list[Tensor] = []
        layer_masks: list[Tensor] = []
        if strengths is None:
            weights, layer_masks = self.view_layers(group.index)
        return NetworkView(
            weights=weights,
            masks=layer_masks,
            strengths=strengths,
            gradients=gradients,
            moments=self.moments(group.index) if group.rule.needs_moments else None,
            td_error=None if td_error is None else td_error[group.index],
            batch_size=batch_size,
            progress=group.rule.run_progress(self.updates),
            uniform=functools.partial(self.growth_numbers, group.members),
            ties=functools.partial(self.tie_numbers, group.members),
            alive=alive[group.index],
        )

    def growth_numbers(self, members: list[int], layer: int) -> Tensor:
        """Return numbers in [0, 1) [M, K, in, out] from each member's stream for this update."""
        return self.numbers(members, f"growth{layer}", layer, torch.float32)

    def tie_numbers(self, members: list[int], purpose: str, layer: int) -> Tensor:
        """Return the numbers [M, K, in, out] that decide between equal scores in this update.

        Dropping and growing have a stream each: with the same numbers, those of equal scores that
        are dropped would be the first to be grown again. They are float64, so that no two of a
        layer are equal.
        """
        return self.numbers(members, f"{purpose}_ties{layer}", layer, torch.float64)

    def numbers(self, members: list[int], stream: str, layer: int, dtype: torch.dtype) -> Tensor:
        """Return numbers in [0, 1) [M, K, in, out] of a stream of each member for this update."""
        shape = (self.plan.heads, *self.plan.shapes[layer])
        name = f"{self.plan.role}/{stream}"
        drawn = [
            torch.rand(
                shape,
                generator=streams.generator(self.plan.configs[member].seed, name, self.updates),
                dtype=dtype,
            )
            for member in members
        ]
        return torch.stack(drawn).to(self.plan.device)

    def rewire(self, group: Group, view: NetworkView) -> None:
        """Carry out a group's topology update and remember its counts."""
        layers = group.rule.change(view, self.updates)
        self.set_masks(group.index, [layer.mask for layer in layers])
        per_layer = [
            torch.stack((layer.mask.sum((-2, -1)), layer.dropped, layer.grown, layer.spared))
            for layer in layers
        ]
        counts = torch.stack(per_layer, dim=-1)  # [4, M, K, L]
        fraction = group.rule.fraction(self.updates)
        self.changes.append(TopologyChange(group.members, counts, fraction))

    def set_episode_share(self, member: int, share: float) -> None:
        """Tell the rule of a member which share of the run's episodes is done, in [0, 1].

        Only for members whose length is given in episodes: they share no rule.
        """
        for group in self.groups:
            if group.members == [member]:
                group.rule.episode_share = share

    def take_changes(self) -> list[TopologyChange]:
        """Return the topology updates since the last call; their counts stay on the device.

        What they took of main memory, 20 MB at 256 units, is given back first.
        """
        changes, self.changes = self.changes, []
        give_memory_back()
        return changes

    def state(self, member: int) -> dict[str, Any]:
        """Return what training goes on from, of one member: arrays on the host, plain values.

        To be called between two updates. Raises DstrlError for a score that cannot be kept.
        """
        rules = [
            group.rule.state(group.members.index(member), len(group.members))
            for group in self.groups
            if member in group.members
        ]
        rule = rules[0] if rules else None
        return {"updates": self.updates, "rule": rule, "weights": self.weights_state(member)}

    def set_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Take up the states of all members, in order, wherever they were trained before.

        The members have taken equally many updates. What was told of the initial masks is dropped.
        """
        self.updates = states[0]["updates"]
        self.due, self.changes, self.messages = [], [], []
        for group in self.groups:
            group.rule.set_state([states[each]["rule"] for each in group.members], self.plan.device)
        self.set_weights_state([state["weights"] for state in states])

    def tell(self, member: int, text: str) -> None:
        """Keep a line about a member that the user should read."""
        self.messages.append((member, text))

    def take_messages(self) -> list[tuple[int, str]]:
        """Return (member, text) of what was told since the last call."""
        messages, self.messages = self.messages, []
        return messages
