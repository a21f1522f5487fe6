"""The masked engine: dense tensors `[P, K, in, out]` whose inactive entries are exactly zero.

The forward pass does not apply masks, since inactive weights are zero already; its weight gradient
is therefore the dense gradient that growth by gradient needs. The gradient is masked before the
optimizer sees it, so that inactive weights and moments stay exactly zero. All parameters of a
network lie in one flat tensor `[P, K, N]` (weights and biases of the layers one after the other),
so that the optimizer, masks and targets are one operation each. Runs on any device.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.nets.adam import Adam
from dstrl_cli.nets.initial import initial_layers
from dstrl_cli.nets.network import Members, Network, Overwritten
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.topology import masks
from dstrl_cli.topology.budgets import layer_budgets
from dstrl_cli.topology.kept import to_array


class Flat:
    """Views into flat parameters `[P, K, N]`: weights [P, K, in, out] and biases [P, K, 1, out]."""

    def __init__(self, flat: Tensor, plan: NetworkPlan) -> None:
        self.flat = flat
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        offset = 0
        for inputs, outputs in plan.shapes:
            size = inputs * outputs
            weight = flat[..., offset : offset + size]
            self.weights.append(weight.view(*flat.shape[:2], inputs, outputs))
            self.biases.append(flat[..., offset + size : offset + size + outputs].unsqueeze(-2))
            offset += size + outputs

    @staticmethod
    def size(plan: NetworkPlan) -> int:
        """Numbers N per head: weights and biases."""
        return sum(i * o + o for i, o in plan.shapes)

    @classmethod
    def filled(cls, plan: NetworkPlan, value: float = 0.0) -> Flat:
        """Return new parameters, all of one value."""
        shape = (plan.members, plan.heads, cls.size(plan))
        return cls(torch.full(shape, value, device=plan.device), plan)

    def clone(self, plan: NetworkPlan) -> Flat:
        """Return a copy with views of its own."""
        return Flat(self.flat.clone(), plan)

    def batched(self, heads: int) -> list[tuple[Tensor, Tensor]]:
        """Return (weight, bias) per layer of the first `heads` heads, each [P * heads, ...]."""
        return [
            (weight[:, :heads].flatten(0, 1), bias[:, :heads].flatten(0, 1))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]


class PartialMask:
    """Masks `[P, K, N]`, all ones for exempt members; the address is fixed."""

    def __init__(self, mask: Tensor, exempt: list[int]) -> None:
        self.mask, self.exempt = mask, torch.tensor(exempt, dtype=torch.long, device=mask.device)
        self.flat = mask.clone() if exempt else mask
        self.renew()

    def renew(self) -> None:
        """Follow the masks after they changed."""
        if len(self.exempt):
            self.flat.copy_(self.mask)
            self.flat.index_fill_(0, self.exempt, 1.0)


class MaskedNetwork(Network):
    """A network of the masked engine (see `Network` for the interface)."""

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__(plan)
        self.params = Flat.filled(plan)
        self.mask = Flat.filled(plan, 1.0)
        target_starts = self.draw_initial()
        self.grads = Flat.filled(plan)
        self.online = {heads: self.params.batched(heads) for heads in {1, plan.heads}}
        self.target_params = (self.params if target_starts is None else target_starts).clone(plan)
        self.target_layers = self.target_params.batched(plan.heads)
        run = plan.configs[0]
        counted = [each.corrects_by_connection for each in plan.configs]
        # members whose grown connections begin bias correction anew
        self.restarted = torch.tensor(counted, device=plan.device) if any(counted) else None
        rate, decay = run.learning_rate_at(0), run.weight_decay
        self.adam = Adam(self.params.flat, rate, decay, count_each=any(counted))
        self.cache: tuple[list[Tensor], int] = ([], 0)
        self.read_switches()

    def draw_initial(self) -> Flat | None:
        """Fill weights and masks. Return where targets start, if some start from dense weights."""
        plan = self.plan
        for member in range(plan.members):
            drawn = initial_layers(plan, member, functools.partial(self.tell, member))
            for layer, (weight, bias, mask) in enumerate(drawn):
                self.params.weights[layer][member] = weight.to(plan.device)
                self.params.biases[layer][member] = bias.unsqueeze(-2).to(plan.device)
                self.mask.weights[layer][member] = mask.to(plan.device, torch.float32)
        dense = self.params.clone(plan)
        self.params.flat.mul_(self.mask.flat)
        from_dense = [m for m, run in enumerate(plan.configs) if run.initial_targets == "dense"]
        if not from_dense:
            return None
        starts = self.params.clone(plan)
        starts.flat[from_dense] = dense.flat[from_dense]
        return starts

    def read_switches(self) -> None:
        """Derive, from the members' keys, which passes an update needs."""
        runs, device = self.plan.configs, self.plan.device

        def members(key: str, value: str) -> list[int]:
            return [m for m, run in enumerate(runs) if getattr(run, key) == value]

        unmasked_gradients = members("gradients", "dense")
        self.kept_moments = torch.tensor([run.moments == "keep" for run in runs], device=device)
        # with masked gradients and moments, Adam never moves an inactive weight
        self.remask = bool(unmasked_gradients or self.kept_moments.any())
        self.adam_growth = torch.tensor(
            [getattr(run, self.plan.role).topology.grow_init == "adam_step" for run in runs],
            device=device,
        )
        moving = any(getattr(run, self.plan.role).moves_budget for run in runs)
        self.sparse = bool((self.mask.flat == 0).any()) or moving
        self.gradient_mask = PartialMask(self.mask.flat, unmasked_gradients)
        online_masked = members("target_masking", "online_mask")
        self.masks_targets = bool(online_masked) and self.sparse
        others = [m for m in range(self.plan.members) if m not in online_masked]
        self.target_mask = PartialMask(self.mask.flat, others if online_masked else [])
        trimmed = members("target_masking", "magnitude_trim")
        self.trimmed = torch.tensor(trimmed, dtype=torch.long, device=device)
        to_nonzero = [runs[member].target_trim == "nonzero" for member in trimmed]
        # [T, 1]: whether a trimmed target keeps as many weights as its network has that are not 0
        self.to_nonzero = torch.tensor(to_nonzero, device=device).view(-1, 1)
        self.counts_nonzero = any(to_nonzero)
        self.trims = self.target_trims() if trimmed else []

    def target_trims(self) -> list[tuple[int, Tensor, int]]:
        """Return (layer, budgets [T, K], largest budget) of layers whose targets are trimmed.

        These layers and the largest budget hold for the whole run, wherever budgets move: a layer
        that is full at its start and at its end stays full. A full layer may have weights of
        exactly zero.
        """
        sizes = [inputs * outputs for inputs, outputs in self.plan.shapes]
        ends = [self.last_budgets(member) for member in self.trimmed.tolist()]
        trims = []
        for layer, size in enumerate(sizes):
            budget = self.trimmed_budget(layer)
            counts = [int(budget.min()), int(budget.max()), *(each[layer] for each in ends if each)]
            if self.counts_nonzero or min(counts) < size:
                trims.append((layer, budget, max(counts)))
        return trims

    def last_budgets(self, member: int) -> list[int]:
        """Return the connections that a member's layers end with, where its budgets move."""
        config = self.plan.network_config(member)
        return layer_budgets(config, self.plan.shapes) if config.moves_budget else []

    def trimmed_budget(self, layer: int) -> Tensor:
        """Return the active connections [T, K] of a layer of the members with trimmed targets."""
        return self.mask.weights[layer][self.trimmed].sum((-2, -1)).long()

    def trimmed_count(self, layer: int, budget: Tensor) -> Tensor:
        """Return how many weights [T, K] the trimmed targets keep in a layer.

        That is the budget or, by `target_trim: nonzero`, the number of the network's weights that
        are not exactly zero (SOK's code).
        """
        if not self.counts_nonzero:
            return budget
        weight = self.params.weights[layer].index_select(0, self.trimmed)
        return torch.where(self.to_nonzero, (weight != 0).sum((-2, -1)), budget)

    # Products.

    @override
    def forward(self, x: Tensor, heads: int | None = None) -> Tensor:
        heads = heads or self.plan.heads
        inputs = [replicate(x, heads)]
        out = run_layers(self.online[heads], inputs[0], inputs)
        self.cache = (inputs, heads)
        return out.view(self.plan.members, heads, *out.shape[1:])

    @override
    def predict(self, x: Tensor) -> Tensor:
        heads = self.plan.heads
        out = run_layers(self.online[heads], replicate(x, heads))
        return out.view(self.plan.members, heads, *out.shape[1:])

    @override
    def target(self, x: Tensor) -> Tensor:
        out = run_layers(self.target_layers, replicate(x, self.plan.heads))
        return out.view(self.plan.members, self.plan.heads, *out.shape[1:])

    @override
    def backward(self, grad: Tensor, *, weights: bool = True, inputs: bool = False) -> Tensor:
        activations, heads = self.cache
        layers = self.online[heads]
        grad = grad.flatten(0, 1)  # [P * K, B, out]
        for layer in reversed(range(len(layers))):
            if weights:
                product = torch.bmm(activations[layer].transpose(1, 2), grad)
                self.grads.weights[layer].copy_(product.view_as(self.grads.weights[layer]))
                bias = self.grads.biases[layer]
                bias.copy_(grad.sum(1).view_as(bias))
            if layer > 0:
                grad = torch.bmm(grad, layers[layer][0].transpose(1, 2))
                grad = torch.ops.aten.threshold_backward(grad, activations[layer], 0)
        if not inputs:
            return grad.new_empty(0)
        grad = torch.bmm(grad, layers[0][0].transpose(1, 2))
        return grad.view(self.plan.members, heads, *grad.shape[1:]).sum(1)

    # Updates.

    @override
    def optimizer_step(self, apply: Tensor) -> None:
        if self.sparse:
            self.grads.flat.mul_(self.gradient_mask.flat)
        self.adam.step(self.grads.flat, apply)

    @override
    def set_learning_rate(self, rate: float) -> None:
        self.adam.set_learning_rate(rate)

    @override
    def finish_update(self) -> None:
        if self.remask:
            self.params.flat.mul_(self.mask.flat)

    @override
    def update_target(self, tau: float) -> None:
        self.target_params.flat.lerp_(self.params.flat, tau)
        if self.masks_targets:  # RLX Alg. 3
            self.target_params.flat.mul_(self.target_mask.flat)
        for layer, budget, max_count in self.trims:
            weight = self.target_params.weights[layer]
            chosen = weight.index_select(0, self.trimmed)
            count = self.trimmed_count(layer, budget)
            kept = masks.keep_largest(chosen.flatten(2), count, max_count)
            weight.index_copy_(0, self.trimmed, kept.view_as(chosen))

    # Topology.

    @override
    def view_layers(self, members: Members) -> tuple[list[Tensor], list[Tensor]]:
        layer_masks = [mask[members] > 0 for mask in self.mask.weights]
        weights = [
            weight[members] * mask
            for weight, mask in zip(self.params.weights, layer_masks, strict=True)
        ]
        return weights, layer_masks

    @override
    def gradients(self, members: Members) -> list[Tensor]:
        return [gradient[members] for gradient in self.grads.weights]

    @override
    def moments(self, members: Members) -> list[tuple[Tensor, Tensor]]:
        first, second = (Flat(part, self.plan) for part in (self.adam.first, self.adam.second))
        return [
            (one[members], two[members])
            for one, two in zip(first.weights, second.weights, strict=True)
        ]

    @override
    def set_masks(self, members: Members, layers: Sequence[Tensor]) -> None:
        keep_value = self.adam_growth[members].view(-1, 1, 1, 1)
        keep_moments = self.kept_moments[members].view(-1, 1, 1, 1)
        moments = [Flat(moment, self.plan) for moment in (self.adam.first, self.adam.second)]
        for layer, mask in enumerate(layers):
            old = self.mask.weights[layer][members] > 0
            stays = mask & old
            self.params.weights[layer][members] *= mask & (stays | keep_value)
            for moment in moments:
                moment.weights[layer][members] *= stays | keep_moments
            self.restart_correction(members, layer, stays)
            self.mask.weights[layer][members] = mask.to(torch.float32)
        self.follow_masks()

    def follow_masks(self) -> None:
        """Renew, in place, what is derived from the masks."""
        self.gradient_mask.renew()
        self.target_mask.renew()
        for layer, budget, _ in self.trims:
            budget.copy_(self.trimmed_budget(layer))

    def restart_correction(self, members: Members, layer: int, stays: Tensor) -> None:
        """Let connections that do not stay [M, K, in, out] begin bias correction anew."""
        if self.restarted is None:
            return
        keeps_powers = stays | ~self.restarted[members].view(-1, 1, 1, 1)
        for power in (Flat(each, self.plan) for each in self.adam.powers):
            weights = power.weights[layer]
            weights[members] = weights[members].masked_fill(~keeps_powers, 1.0)

    @override
    def overwrite(self, member: int, layers: Sequence[Overwritten]) -> None:
        moments = [Flat(moment, self.plan) for moment in (self.adam.first, self.adam.second)]
        for layer, parts in enumerate(layers):
            values, where, biases = (part.to(self.plan.device) for part in parts)
            weight = self.params.weights[layer][member]
            weight.copy_(torch.where(where, values, weight))
            for moment in moments:
                moment.weights[layer][member].masked_fill_(where, 0.0)
            for flat in (self.params, *moments):
                flat.biases[layer][member].masked_fill_(biases.unsqueeze(-2), 0.0)
            self.restart_correction([member], layer, ~where.unsqueeze(0))

    # Reading.

    @override
    def layers(self, member: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        return [
            (weight[member], bias[member].squeeze(-2), mask[member] > 0)
            for weight, bias, mask in zip(
                self.params.weights, self.params.biases, self.mask.weights, strict=True
            )
        ]

    @override
    def active(self) -> Tensor:
        return torch.stack([mask.sum((-2, -1)).long() for mask in self.mask.weights], dim=-1)

    # Checkpoints.

    @override
    def weights_state(self, member: int) -> dict[str, Any]:
        return {
            "params": to_array(self.params.flat[member]),
            "target": to_array(self.target_params.flat[member]),
            "mask": to_array(self.mask.flat[member] > 0),
            "adam": self.adam.state(member),
        }

    @override
    def set_weights_state(self, states: Sequence[Mapping[str, Any]]) -> None:
        flats = {"params": self.params, "target": self.target_params, "mask": self.mask}
        for name, flat in flats.items():
            for member, state in enumerate(states):
                flat.flat[member].copy_(torch.from_numpy(state[name]))
        self.adam.set_state([state["adam"] for state in states])
        self.follow_masks()


def replicate(x: Tensor, heads: int) -> Tensor:
    """Give every head its copy of the input: [P, B, in] -> [P * heads, B, in]."""
    return x if heads == 1 else x.unsqueeze(1).expand(-1, heads, -1, -1).flatten(0, 1)


def run_layers(
    layers: Sequence[tuple[Tensor, Tensor]], x: Tensor, inputs: list[Tensor] | None = None
) -> Tensor:
    """Return the output [N, B, out] of a ReLU network; append the hidden layers to `inputs`."""
    last = len(layers) - 1
    for layer, (weight, bias) in enumerate(layers):
        x = torch.baddbmm(bias, x, weight)
        if layer < last:
            x.relu_()
            if inputs is not None:
                inputs.append(x)
    return x
