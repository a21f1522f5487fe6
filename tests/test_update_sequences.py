"""Whole sequences of updates against a plain network with autograd and `torch.optim.Adam`.

The drawn masks are the only thing that the plain network copies.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from network_samples import (
    Data,
    build,
    dst,
    masks_of,
    moments,
    official_dst,
    ours,
    rlx2,
    run,
    step,
    take_events,
)
from torch import Tensor, nn

from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.masked import MaskedNetwork


class Plain:
    """One head as torch parameters, told only which masks were drawn.

    Args:
        network: whose first member and head to copy.
        dense_gradients: whether gradients reach inactive weights and moments.
        keep_moments: whether moments survive where a connection goes or comes.
        keep_growth: whether a grown weight keeps what the optimizer step gave it.
        replaces: whether a topology update comes instead of the optimizer step.
        weight_decay: of Adam.
    """

    def __init__(
        self,
        network: MaskedNetwork,
        *,
        dense_gradients: bool = False,
        keep_moments: bool = False,
        keep_growth: bool = False,
        replaces: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        layers = network.layers(0)
        self.weights = [nn.Parameter(weight[0].clone()) for weight, _, _ in layers]
        self.biases = [nn.Parameter(bias[0].clone()) for _, bias, _ in layers]
        self.masks = [mask[0].clone() for _, _, mask in layers]
        self.adam = torch.optim.Adam([*self.weights, *self.biases], 1e-2, weight_decay=weight_decay)
        self.dense_gradients = dense_gradients
        self.keep_moments, self.keep_growth, self.replaces = keep_moments, keep_growth, replaces

    def update(self, x: Tensor, y: Tensor, masks: list[Tensor] | None) -> None:
        """Optimizer step unless it is replaced, then the masks of a topology update, if any."""
        out = x
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            out = out @ weight + bias
            out = out if layer == len(self.weights) - 1 else out.relu()
        self.adam.zero_grad()
        (out - y).square().sum().backward()
        if not self.dense_gradients:
            for weight, mask in zip(self.weights, self.masks, strict=True):
                assert weight.grad is not None
                weight.grad *= mask
        if masks is None or not self.replaces:
            self.adam.step()
        for layer, weight in enumerate(self.weights):
            new = self.masks[layer] if masks is None else masks[layer]
            stays = self.masks[layer] & new
            weight.data *= new if self.keep_growth else stays
            if masks is not None and not self.keep_moments:
                for name in ("exp_avg", "exp_avg_sq"):
                    self.adam.state[weight][name] *= stays
            self.masks[layer] = new

    def assert_equals(self, network: MaskedNetwork) -> None:
        first, second = moments(network)
        for layer, weight in enumerate(self.weights):
            state = self.adam.state[weight]
            for mine, theirs in (
                (network.params.weights[layer], weight.detach()),
                (network.params.biases[layer].squeeze(-2), self.biases[layer].detach()),
                (first[layer], state["exp_avg"]),
                (second[layer], state["exp_avg_sq"]),
            ):
                torch.testing.assert_close(mine[0, 0], theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "switches"),
    [
        (run(), {}),
        (dst(), {}),
        (ours(), {}),
        (ours(accumulate="critic_update", td_error="mean"), {}),
        (rlx2(), {"replaces": True}),
        (rlx2(moments="keep"), {"keep_moments": True, "replaces": True}),
        (
            dst(regrow_dropped=False).model_copy(update={"rewire": "instead_of_step"}),
            {"replaces": True},
        ),
        (
            official_dst(),
            {
                "dense_gradients": True,
                "keep_moments": True,
                "keep_growth": True,
                "weight_decay": 1e-2,
            },
        ),
        (
            official_dst(grow_init="zero"),
            {"dense_gradients": True, "keep_moments": True, "weight_decay": 1e-2},
        ),
        (
            official_dst(grow_init="zero").model_copy(update={"moments": "reset"}),
            {"dense_gradients": True, "weight_decay": 1e-2},
        ),
    ],
    ids=[
        "static",
        "dst",
        "ours",
        "ours at every update",
        "rlx2",
        "rlx2 official",
        "dst instead of step",
        "dst official",
        "dense gradients",
        "dense gradients, moments reset",
    ],
)
def test_updates_equal_a_plain_network(config: RunConfig, switches: dict[str, Any]) -> None:
    network = build(config, heads=1)
    plain = Plain(network, **switches)
    data, same = Data(heads=1), Data(heads=1)
    changes = 0
    for _ in range(25):
        step(network, data)
        events = take_events(network)
        changes += len(events)
        x, y = same.next()
        masks = [mask[0, 0] for mask in masks_of(network)]
        plain.update(x[0], y[0, 0], masks if events else None)
        plain.assert_equals(network)
    assert (changes > 0) == (config.critic.topology.schedule != "static")


def test_a_grown_weight_of_sok_code_carries_one_adam_step() -> None:
    network = build(official_dst(drop_fraction=0.3, update_offset=1), heads=1)
    before = masks_of(network)
    step(network, Data(heads=1))  # update 1 changes the topology; Adam's first step is the rate
    for layer, mask in enumerate(masks_of(network)):
        grown = mask & ~before[layer]
        assert grown.any()
        sizes = network.params.weights[layer][grown].abs()
        reached = sizes > 0  # rectifiers may pass no gradient at all
        assert reached.any()
        torch.testing.assert_close(
            sizes[reached], torch.full_like(sizes[reached], 1e-2), rtol=1e-3, atol=0
        )
