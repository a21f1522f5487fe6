"""Networks of the masked engine: gradients, Adam, the order of an update, masks and targets.

A plain single network, written with autograd and `torch.optim.Adam`, is the reference for whole
sequences of updates; the drawn masks are the only thing that it copies.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict
from dstrl_cli.nets.adam import Adam
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.network import Plan, initial_layers, layer_budgets

SIZES, ROWS = (5, 8, 7, 2), 6


def run(seed: int = 0, sparsity: float = 0.5, **keys: Any) -> RunConfig:
    """A run whose two networks share the keys `topology` and `initial_mask`."""
    network = {"sparsity": sparsity, "topology": keys.pop("topology", {})}
    network["initial_mask"] = keys.pop("initial_mask", "random")
    network["allocation"] = keys.pop("allocation", "uniform")
    network["dense"] = keys.pop("dense", False)
    base = {"algo": "td3", "method": "test", "env": "Any-v0", "seed": seed, "learning_rate": 1e-2}
    return from_dict(base | {"critic": network} | keys)


def dst(seed: int = 0, sparsity: float = 0.5, **topology: Any) -> RunConfig:
    rule = {"drop": "sign", "grow": "random", "schedule": "constant", "drop_fraction": 0.3}
    rule |= {"update_interval": 4} | topology
    return run(seed, sparsity, topology=rule, target_masking="magnitude_trim")


def rlx2(seed: int = 0, sparsity: float = 0.7, **keys: Any) -> RunConfig:
    rule = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine", "update_interval": 5}
    base: dict[str, Any] = {"rewire": "instead_of_step", "target_masking": "online_mask"}
    base |= {"topology": rule, "initial_mask": "magnitude", "allocation": "erdos_renyi"}
    return run(seed, sparsity, **(base | keys))


def ours(seed: int = 0, sparsity: float = 0.6, **topology: Any) -> RunConfig:
    rule = {"drop": "importance", "grow": "importance", "schedule": "constant"}
    rule |= {"drop_fraction": 0.2, "update_interval": 3, "regrow_dropped": False} | topology
    return run(seed, sparsity, topology=rule, target_masking="magnitude_trim")


def build(*runs: RunConfig, heads: int = 2, sizes: tuple[int, ...] = SIZES) -> MaskedNetwork:
    return MaskedNetwork(Plan("critic", sizes, heads, runs, 1, "cpu"))


class Data:
    """The same random inputs and regression targets for everyone who asks in the same order."""

    def __init__(self, members: int = 1, heads: int = 2, seed: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.members, self.heads = members, heads

    def next(self) -> tuple[Tensor, Tensor]:
        """x [P, B, in] and y [P, K, B, out], the same for all members."""
        x = torch.randn(1, ROWS, SIZES[0], generator=self.generator)
        y = torch.randn(1, self.heads, ROWS, SIZES[-1], generator=self.generator)
        return x.expand(self.members, -1, -1), y.expand(self.members, -1, -1, -1)


def step(network: MaskedNetwork, data: Data, alive: Tensor | None = None) -> None:
    """One update towards the next targets, with the squared error's gradient."""
    x, y = data.next()
    error = network.forward(x) - y
    network.backward(2 * error)
    everyone = torch.ones(network.plan.members, dtype=torch.bool)
    td_error = error.abs().sum((-2, -1))
    network.update(everyone if alive is None else alive, td_error, ROWS)


def masks_of(network: MaskedNetwork) -> list[Tensor]:
    """Masks [P, K, in, out] per layer, bool, as copies."""
    return [mask > 0 for mask in network.mask.weights]


def copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def moments(network: MaskedNetwork) -> list[list[Tensor]]:
    """First and second moments of the weights per layer, as views."""
    flat = type(network.params)
    adam = network.adam
    return [flat(moment, network.plan).weights for moment in (adam.first, adam.second)]


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


def test_infer_is_forward_without_memory_and_the_target_starts_equal() -> None:
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
    plan = Plan("critic", (17, 64, 64, 1), 2, runs, 1, "cpu")
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


# --- Adam -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_equals_torch_for_members_that_sit_steps_out(weight_decay: float) -> None:
    g = torch.Generator().manual_seed(3)
    start = torch.randn(3, 2, 5, generator=g)
    parameters = start.clone()
    adam = Adam(parameters, 0.01, weight_decay)
    theirs = [nn.Parameter(member.clone()) for member in start]
    optimizers = [torch.optim.Adam([p], 0.01, weight_decay=weight_decay) for p in theirs]
    for number in range(60):
        gradient = torch.randn(3, 2, 5, generator=g) * 10 ** (number % 4 - 2)
        apply = torch.tensor([True, number % 5 != 3, number >= 20])
        for member, optimizer in enumerate(optimizers):
            if apply[member]:
                theirs[member].grad = gradient[member].clone()
                optimizer.step()
        adam.step(torch.where(apply.view(3, 1, 1), gradient, math.nan), apply)
        for member in range(3):
            torch.testing.assert_close(parameters[member], theirs[member].detach())
        if number == 10:
            assert torch.equal(parameters[2], start[2])


def test_the_first_adam_step_is_the_learning_rate() -> None:
    """Bias correction in double precision: 0.999 in single precision is off by 1e-5 here."""
    parameters = torch.zeros(1, 4)
    Adam(parameters, 0.01).step(torch.full((1, 4), 3.0), torch.tensor([True]))
    torch.testing.assert_close(parameters, torch.full((1, 4), -0.01), rtol=5e-7, atol=0)


# --- whole sequences against a plain network ------------------------------------------------------


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
            for ours, theirs in (
                (network.params.weights[layer], weight.detach()),
                (network.params.biases[layer].squeeze(-2), self.biases[layer].detach()),
                (first[layer], state["exp_avg"]),
                (second[layer], state["exp_avg_sq"]),
            ):
                torch.testing.assert_close(ours[0, 0], theirs, rtol=1e-3, atol=1e-6)


OFFICIAL_DST: dict[str, Any] = {
    "sign_split": "official",
    "grow_init": "adam_step",
    "update_offset": 2,
    "drop_fraction": 0.1,
}


def official_dst(**topology: Any) -> RunConfig:
    return dst(**(OFFICIAL_DST | topology)).model_copy(
        update={"gradients": "dense", "moments": "keep", "weight_decay": 1e-2}
    )


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
        events = network.take_events()
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
    network.update(torch.ones(1, dtype=torch.bool))
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
    network, data = build(run(0), dst(1), ours(2)), Data(3)
    for _ in range(12):
        step(network, data)
    events = network.take_events()
    assert [event.member for event in events] == [2, 1, 2, 1, 2, 1, 2]  # updates 3 4 6 8 9 12 12
    active = network.active()
    for event in events:
        assert event.active == active[event.member].tolist()
        assert event.dropped == event.grown
        fraction = 0.3 if event.member == 1 else 0.2
        assert event.fraction == fraction
        budgets = active[event.member].tolist()
        assert event.dropped == [[int(fraction * n) for n in head] for head in budgets]
    assert network.take_events() == []


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
        network.update(alive, error.abs().sum((-2, -1)), ROWS)
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


# --- targets --------------------------------------------------------------------------------------


def largest(values: Tensor, count: int) -> Tensor:
    """Keep the `count` largest magnitudes of a matrix, by sorting."""
    flat = values.flatten()
    order = sorted(range(flat.numel()), key=lambda i: -abs(flat[i].item()))
    kept = torch.zeros_like(flat)
    kept[order[:count]] = flat[order[:count]]
    return kept.view_as(values)


def test_the_three_target_maskings_side_by_side() -> None:
    rule = dst().critic.topology.model_dump()
    maskings = ["none", "online_mask", "magnitude_trim"]
    runs = [run(5, 0.6, topology=rule, target_masking=masking) for masking in maskings]
    network, data = build(*runs), Data(3)
    strayed = False
    for _ in range(20):
        step(network, data)
        before, online = copies(network.target_params.weights), network.params.weights
        network.update_target(0.1)
        for layer, mask in enumerate(masks_of(network)):
            target = network.target_params.weights[layer]
            moved = before[layer] + 0.1 * (online[layer] - before[layer])
            torch.testing.assert_close(target[0], moved[0])
            torch.testing.assert_close(target[1], moved[1] * mask[1])
            assert (target[1][~mask[1]] == 0).all()
            for head in range(2):
                budget = int(mask[2, head].sum())
                assert int(target[2, head].ne(0).sum()) <= budget
                torch.testing.assert_close(target[2, head], largest(moved[2, head], budget))
            strayed |= bool((target[2][~mask[2]] != 0).any())
    assert strayed  # a trimmed target has a topology of its own
    biases = network.target_params.biases[0]
    assert torch.equal(biases[0], biases[1])  # biases are never masked


def test_targets_start_sparse_or_dense() -> None:
    runs = [run(0, 0.8), rlx2(1, 0.8, initial_targets="dense"), run(2, 0.8)]
    network, data = build(*runs), Data(3)
    dense = [weight for weight, _, _ in initial_layers(network.plan, 1)]
    for layer in range(3):
        target, online = network.target_params.weights[layer], network.params.weights[layer]
        assert torch.equal(target[0], online[0])
        assert torch.equal(target[2], online[2])
        assert torch.equal(target[1], dense[layer])
    step(network, data)
    assert network.target_params.weights[1][1].ne(0).all()  # until it moves
    network.update_target(0.005)
    assert (network.target_params.weights[1][1][~masks_of(network)[1][1]] == 0).all()


def test_a_hard_update_copies_the_network() -> None:
    network, data = build(dst(0), rlx2(1)), Data(2)
    for _ in range(6):
        step(network, data)
    network.update_target(1.0)
    assert torch.equal(network.target_params.flat, network.params.flat)


def test_the_final_drop_shrinks_the_network_and_its_target_follows() -> None:
    # 12 updates in all; the first change due at or after update 6 is the last one
    keys = {"steps": 12, "learning_starts": 0}
    config = official_dst(stop_before_end=6, final_drop=True, drop_fraction=0.3)
    network, data = build(config.model_copy(update=keys)), Data()
    before = network.active()
    for number in range(1, 13):
        step(network, data)
        network.update_target(0.5)
        if number < 6:
            assert torch.equal(network.active(), before)
    after = network.active()
    assert (after < before).all()
    assert [event.grown != [[0] * 3] * 2 for event in network.take_events()] == [True, False]
    for layer, target in enumerate(network.target_params.weights):
        assert (target.ne(0).sum((-2, -1)) <= after[..., layer]).all()
