"""Networks of the masked engine: gradients, first weights and masks, and the order of an update."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from network_samples import (
    ROWS,
    SIZES,
    Data,
    build,
    copies,
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
from torch import Tensor
from update_samples import finish_update

from dstrl_cli.nets.initial import initial_layers
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.topology.budgets import layer_budgets

# --- gradients ------------------------------------------------------------------------------------


def autograd(network: MaskedNetwork, x: Tensor, grad: Tensor, heads: int) -> dict[str, Any]:
    """What torch's autograd gives for the first `heads` heads."""
    x = x.clone().requires_grad_()
    weights = [w[:, :heads].detach().clone().requires_grad_() for w in network.params.weights]
    biases = [b[:, :heads].detach().clone().requires_grad_() for b in network.params.biases]
    out = x.unsqueeze(1).expand(-1, heads, -1, -1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        out = out @ weight + bias
        out = out if layer == len(weights) - 1 else out.relu()
    out.backward(grad)
    return {
        "out": out.detach(),
        "weights": [w.grad for w in weights],
        "biases": [b.grad for b in biases],
        "input": x.grad,
    }


def batch(members: int, heads: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(members, ROWS, SIZES[0], generator=g)
    return x, torch.randn(members, heads, ROWS, SIZES[-1], generator=g)


@pytest.mark.parametrize("heads", [1, 2])
def test_backward_equals_autograd(heads: int) -> None:
    network = build(run(0, 0.8), run(1, 0.0), dst(2), heads=heads)
    x, grad = batch(3, heads)
    expected = autograd(network, x, grad, heads)
    torch.testing.assert_close(network.forward(x), expected["out"])
    torch.testing.assert_close(network.backward(grad, inputs=True), expected["input"])
    for layer in range(3):
        # dense: inactive connections have a gradient too
        torch.testing.assert_close(network.grads.weights[layer], expected["weights"][layer])
        torch.testing.assert_close(network.grads.biases[layer], expected["biases"][layer])
    inactive = ~masks_of(network)[1][0]
    assert network.gradients([0])[1][0][inactive].ne(0).any()


def test_one_head_of_two_gives_only_its_input_gradient() -> None:
    network = build(run(0, 0.8), dst(1))
    x, grad = batch(2, 1)
    network.grads.flat.fill_(7.0)
    expected = autograd(network, x, grad, 1)
    torch.testing.assert_close(network.forward(x, heads=1), expected["out"])
    found = network.backward(grad, weights=False, inputs=True)
    torch.testing.assert_close(found, expected["input"])
    assert (network.grads.flat == 7.0).all()


def test_predict_is_forward_without_memory_and_the_target_starts_equal() -> None:
    network = build(run(0, 0.8), dst(1))
    x, grad = batch(2, 2)
    out = network.forward(x)
    network.predict(torch.zeros_like(x))
    torch.testing.assert_close(network.predict(x), out, rtol=0, atol=0)
    torch.testing.assert_close(network.target(x), out, rtol=0, atol=0)
    expected = autograd(network, x, grad, 2)["input"]  # of the last forward, not of predict
    torch.testing.assert_close(network.backward(grad, inputs=True), expected)


# --- initial weights and masks --------------------------------------------------------------------


def test_members_and_heads_start_differently_and_a_seed_decides() -> None:
    network = build(run(0), run(1), dst(0, 0.5))
    for layer in range(2):
        weight, mask = network.params.weights[layer], masks_of(network)[layer]
        assert not torch.equal(mask[0, 0], mask[0, 1])
        assert not torch.equal(mask[0], mask[1])
        assert not torch.equal(weight[0, 0], weight[0, 1])
        assert torch.equal(weight[0], weight[2])  # the same seed and masks, another rule
        assert torch.equal(mask[0], mask[2])
    assert not torch.equal(network.params.biases[0][0], network.params.biases[0][1])


def test_initial_masks_fill_the_budgets_and_weights_are_not_rescaled() -> None:
    runs = [run(0, 0.5), rlx2(1, 0.8), run(2, 0.9, allocation="erdos_renyi")]
    plan = NetworkPlan("critic", (17, 64, 64, 1), 2, runs, "cpu")
    for member, config in enumerate(runs):
        budgets = layer_budgets(config.critic, plan.shapes)
        for layer, (weight, _, mask) in enumerate(initial_layers(plan, member)):
            assert mask.sum((-2, -1)).tolist() == [budgets[layer]] * 2
            assert weight.abs().max() <= 1 / math.sqrt(weight.shape[1])
            if config.critic.initial_mask == "magnitude" and not mask.all():
                for head in range(2):
                    size = weight[head].abs()
                    assert size[mask[head]].min() >= size[~mask[head]].max()
    network = MaskedNetwork(plan)
    assert network.active()[:, :, 2].tolist()[1] == [64, 64]  # the output is dense


def test_bernoulli_masks_hold_the_drawn_count() -> None:
    network = build(run(0, initial_mask="bernoulli"), sizes=(40, 40, 40, 1))
    active = network.active()
    assert len({int(count) for count in active[0, :, :2].flatten()}) > 1
    assert active[0, :, :2].double() == pytest.approx(800, abs=100)  # sd 20


# --- the order of an update -----------------------------------------------------------------------


def test_a_topology_update_after_the_step_leaves_staying_weights_to_adam() -> None:
    # the same seed: the static member shows what Adam alone does
    network, data = build(run(3), dst(3)), Data(2)
    for _ in range(3):
        step(network, data)
    before = masks_of(network)
    assert torch.equal(network.params.flat[0], network.params.flat[1])
    step(network, data)
    for layer, mask in enumerate(masks_of(network)):
        weight = network.params.weights[layer]
        stays, grown = mask[1] & before[layer][1], mask[1] & ~before[layer][1]
        assert grown.any()
        assert torch.equal(weight[1][stays], weight[0][stays])
        assert (weight[1][grown] == 0).all()
        for moment in moments(network):
            assert torch.equal(moment[layer][1][stays], moment[layer][0][stays])
            assert (moment[layer][1][grown] == 0).all()
        assert torch.equal(network.params.biases[layer][0], network.params.biases[layer][1])
    step(network, data)
    assert network.params.weights[1][1][grown_since(network, before, 1)].ne(0).any()


def grown_since(network: MaskedNetwork, before: list[Tensor], layer: int) -> Tensor:
    return masks_of(network)[layer][1] & ~before[layer][1]


def test_a_topology_update_instead_of_the_step_moves_no_weight() -> None:
    network, data = build(run(3), rlx2(4)), Data(2)
    for _ in range(4):
        step(network, data)
    before, weights = masks_of(network), copies(network.params.weights)
    biases, powers = network.params.biases[0].clone(), network.adam.powers[0].clone()
    step(network, data)
    changed = 0
    for layer, mask in enumerate(masks_of(network)):
        weight, stays = network.params.weights[layer], mask[1] & before[layer][1]
        changed += int((mask[1] & ~stays).sum())
        assert torch.equal(weight[1], weights[layer][1] * stays)
        assert not torch.equal(weight[0], weights[layer][0])
    assert changed > 0
    assert torch.equal(network.params.biases[0][1], biases[1])
    assert not torch.equal(network.params.biases[0][0], biases[0])
    assert network.adam.powers[0, 1] == powers[1]  # Adam's step count, too
    assert network.adam.powers[0, 0] < powers[0]


def test_gradient_growth_takes_the_batch_of_the_update_itself() -> None:
    network, data = build(rlx2()), Data()
    for _ in range(4):
        step(network, data)
    before = masks_of(network)
    x, y = data.next()
    network.backward(2 * (network.forward(x) - y))
    gradients = copies(network.grads.weights)
    finish_update(network)
    for layer, mask in enumerate(masks_of(network)):
        for head in range(2):
            grown = mask[0, head] & ~before[layer][0, head]
            free = ~mask[0, head]
            score = gradients[layer][0, head].abs()
            if grown.any() and free.any():
                assert score[grown].min() >= score[free].max()


def test_random_growth_draws_anew_at_every_update_and_from_each_members_seed() -> None:
    network, data = build(dst(0), dst(1), dst(0)), Data(3)
    drawn = []
    for _ in range(2):
        step(network, data)
        drawn.append(network.growth_numbers([0, 1, 2], 1))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0][0], drawn[0][1])
    assert not torch.equal(drawn[0][0, 0], drawn[0][0, 1])  # nor do heads share
    assert torch.equal(drawn[0][0], drawn[0][2])


def test_events_tell_counts_of_every_head_and_layer() -> None:
    network, data = build(run(0), dst(1, regrow_dropped=False), ours(2)), Data(3)
    for _ in range(12):
        step(network, data)
    events = take_events(network)
    assert [event.member for event in events] == [2, 1, 2, 1, 2, 1, 2]  # updates 3 4 6 8 9 12 12
    active = network.active()
    for event in events:
        assert event.active == active[event.member].tolist()
        assert event.dropped == event.grown
        fraction = 0.3 if event.member == 1 else 0.2
        assert event.fraction == fraction
        budgets = active[event.member].tolist()
        assert event.dropped == [[int(fraction * n) for n in head] for head in budgets]
    assert take_events(network) == []


def test_a_member_that_is_not_alive_keeps_everything() -> None:
    network, data = build(dst(0), ours(1), rlx2(2), dst(3)), Data(4)
    for _ in range(2):
        step(network, data)
    network.update_target(0.1)
    parts = [network.params.flat, network.adam.first, network.adam.second, network.mask.flat]
    before = copies(parts)
    alive = torch.tensor([True, False, False, False])
    for _ in range(13):
        x, y = data.next()
        error = (network.forward(x) - y) * torch.where(alive, 1.0, math.nan).view(4, 1, 1, 1)
        network.backward(error)
        finish_update(network, alive, error.abs().sum((-2, -1)), ROWS)
    for part, was in zip(parts, before, strict=True):
        assert torch.equal(part[1:], was[1:])
        assert not torch.equal(part[0], was[0])


# --- what always holds ----------------------------------------------------------------------------


def test_inactive_weights_and_moments_are_exactly_zero_and_budgets_stay() -> None:
    runs = [
        run(0, dense=True),
        run(1, 0.9),
        dst(2, 0.3),
        dst(3, 0.8, drop_fraction=0.9, update_interval=2, sign_split="half"),
        dst(4, 0.6, regrow_dropped=False, grow="gradient"),
        rlx2(5, 0.9),
        rlx2(6, 0.2, rewire="after_step"),
        ours(7, 0.6),
        ours(8, 0.85, accumulate="critic_update", update_interval=1, td_error="off"),
        rlx2(9, 0.7, initial_mask="bernoulli", allocation="uniform"),
    ]
    network, data = build(*runs), Data(len(runs))
    budgets = network.active()
    first = masks_of(network)
    for number in range(60):
        step(network, data)
        if number % 2:
            network.update_target(0.05)
        for layer, mask in enumerate(masks_of(network)):
            assert (network.params.weights[layer][~mask] == 0).all()
            for moment in moments(network):
                assert (moment[layer][~mask] == 0).all()
        assert torch.equal(network.active(), budgets)
    moved = [
        (now != was).flatten(1).any(1) for now, was in zip(masks_of(network), first, strict=True)
    ]
    assert torch.stack(moved).any(0).tolist() == [False, False] + [True] * 8
    assert network.params.flat.isfinite().all()


def test_weights_of_official_runs_are_zero_where_inactive_though_moments_are_not() -> None:
    network, data = build(official_dst(), rlx2(1, moments="keep")), Data(2)
    for _ in range(30):
        step(network, data)
        for layer, mask in enumerate(masks_of(network)):
            assert (network.params.weights[layer][~mask] == 0).all()
    first, _ = moments(network)
    assert first[1][~masks_of(network)[1]].ne(0).any()
