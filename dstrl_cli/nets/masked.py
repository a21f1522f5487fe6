"""The masked engine: dense tensors `[P, K, in, out]` whose inactive entries are physically zero.

The forward pass never hears of masks, so its weight gradient is the dense gradient that gradient
growth needs; the gradient is masked before the optimizer sees it, so inactive weights and moments
stay exactly zero. All parameters of a network lie in one flat tensor `[P, K, N]` (weights and
biases of the layers one after the other), so that optimizer, masks and targets are single passes.
Runs on any device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from dstrl_cli.nets.adam import Adam
from dstrl_cli.nets.network import Members, Network, Plan, initial_layers
from dstrl_cli.topology import masks


class Flat:
    """Views into flat parameters `[P, K, N]`: weights [P, K, in, out] and biases [P, K, 1, out]."""

    def __init__(self, flat: Tensor, plan: Plan) -> None:
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
    def size(plan: Plan) -> int:
        """Numbers N per head: weights and biases."""
        return sum(i * o + o for i, o in plan.shapes)

    @classmethod
    def filled(cls, plan: Plan, value: float = 0.0) -> Flat:
        """Return new parameters, all of one value."""
        shape = (plan.members, plan.heads, cls.size(plan))
        return cls(torch.full(shape, value, device=plan.device), plan)

    def clone(self, plan: Plan) -> Flat:
        """Return a copy with views of its own."""
        return Flat(self.flat.clone(), plan)

    def batched(self, heads: int) -> list[tuple[Tensor, Tensor]]:
        """Return (weight, bias) per layer of the first `heads` heads, each [P * heads, ...]."""
        return [
            (weight[:, :heads].flatten(0, 1), bias[:, :heads].flatten(0, 1))
            for weight, bias in zip(self.weights, self.biases, strict=True)
        ]


class PartialMask:
    """The masks `[P, K, N]` of all members but some, who have ones; it never moves."""

    def __init__(self, mask: Tensor, without: list[int]) -> None:
        self.mask, self.without = mask, torch.tensor(without, dtype=torch.long, device=mask.device)
        self.flat = mask.clone() if without else mask
        self.renew()

    def renew(self) -> None:
        """Follow the masks after they changed."""
        if len(self.without):
            self.flat.copy_(self.mask)
            self.flat.index_fill_(0, self.without, 1.0)


class MaskedNetwork(Network):
    """A network of the masked engine (see `Network` for the interface)."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.params = Flat.filled(plan)
        self.mask = Flat.filled(plan, 1.0)
        dense = self.draw_initial()
        self.grads = Flat.filled(plan)
        self.online = {heads: self.params.batched(heads) for heads in {1, plan.heads}}
        self.target_params = (dense if dense is not None else self.params).clone(plan)
        self.target_layers = self.target_params.batched(plan.heads)
        run = plan.configs[0]
        self.adam = Adam(self.params.flat, run.learning_rate, run.weight_decay)
        self.cache: tuple[list[Tensor], int] = ([], 0)
        self.read_switches()

    def draw_initial(self) -> Flat | None:
        """Fill weights and masks; return dense weights where a member's targets start from them."""
        plan = self.plan
        for member in range(plan.members):
            for layer, (weight, bias, mask) in enumerate(initial_layers(plan, member)):
                self.params.weights[layer][member] = weight.to(plan.device)
                self.params.biases[layer][member] = bias.unsqueeze(-2).to(plan.device)
                self.mask.weights[layer][member] = mask.to(plan.device, torch.float32)
        dense = self.params.clone(plan)
        self.params.flat.mul_(self.mask.flat)
        kept = [m for m, run in enumerate(plan.configs) if run.initial_targets == "dense"]
        if not kept:
            return None
        starts = self.params.clone(plan)
        starts.flat[kept] = dense.flat[kept]
        return starts

    def read_switches(self) -> None:
        """Derive, from the members' keys, which passes an update needs."""
        runs, device = self.plan.configs, self.plan.device

        def members(key: str, value: str) -> list[int]:
            return [m for m, run in enumerate(runs) if getattr(run, key) == value]

        unmasked_gradients = members("gradients", "dense")
        self.kept_moments = torch.tensor([run.moments == "keep" for run in runs], device=device)
        # only then does Adam move inactive weights
        self.remask = bool(unmasked_gradients or self.kept_moments.any())
        self.adam_growth = torch.tensor(
            [getattr(run, self.plan.role).topology.grow_init == "adam_step" for run in runs],
            device=device,
        )
        self.sparse = bool((self.mask.flat == 0).any())
        self.gradient_mask = PartialMask(self.mask.flat, unmasked_gradients)
        online_masked = members("target_masking", "online_mask")
        self.masks_targets = bool(online_masked) and self.sparse
        others = [m for m in range(self.plan.members) if m not in online_masked]
        self.target_mask = PartialMask(self.mask.flat, others if online_masked else [])
        trimmed = members("target_masking", "magnitude_trim")
        self.trimmed = torch.tensor(trimmed, dtype=torch.long, device=device)
        self.trims = self.target_trims() if trimmed else []

    def target_trims(self) -> list[tuple[int, Tensor, int]]:
        """Return (layer, budgets [T, K], largest budget) of layers whose targets are trimmed.

        Budgets never grow and full layers stay full, so the layers and the bound hold for good.
        """
        sizes = [inputs * outputs for inputs, outputs in self.plan.shapes]
        budgets = [self.trimmed_budget(layer) for layer in range(len(sizes))]
        return [
            (layer, budget, int(budget.max()))
            for layer, (budget, size) in enumerate(zip(budgets, sizes, strict=True))
            if bool((budget < size).any())
        ]

    def trimmed_budget(self, layer: int) -> Tensor:
        """Return the active connections [T, K] of a layer of the members with trimmed targets."""
        return self.mask.weights[layer][self.trimmed].sum((-2, -1)).long()

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
    def finish_update(self) -> None:
        if self.remask:
            self.params.flat.mul_(self.mask.flat)

    @override
    def update_target(self, tau: float) -> None:
        self.target_params.flat.lerp_(self.params.flat, tau)
        if self.masks_targets:  # RLX Alg. 3
            self.target_params.flat.mul_(self.target_mask.flat)
        for layer, budget, most in self.trims:
            weight = self.target_params.weights[layer]
            chosen = weight.index_select(0, self.trimmed)
            kept = masks.keep_largest(chosen.flatten(2), budget, most)
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
            self.mask.weights[layer][members] = mask.to(torch.float32)
        self.gradient_mask.renew()
        self.target_mask.renew()
        for layer, budget, _ in self.trims:
            budget.copy_(self.trimmed_budget(layer))

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
