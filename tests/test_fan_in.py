"""Networks whose neurons have limited inputs: after every update, on both engines, and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget_samples import RULES, UPDATES, moving
from network_samples import ROWS, SIZES, Data, build, dst, ours, rlx2, step, take_events
from torch import Tensor

from dstrl_cli.config.models import RunConfig
from dstrl_cli.nets.initial import initial_layers
from dstrl_cli.nets.masked import MaskedNetwork
from dstrl_cli.nets.network import Network
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.topology.budgets import layer_budgets, layer_moves
from dstrl_cli.topology.initial.random import random_mask
from dstrl_cli.topology.limits import Constant
from dstrl_cli.topology.masks import fitted

ENGINES = (MaskedNetwork, SparseNetwork)
WIDE = (4, 8, 12, 2)
"""Sizes of which every number of inputs is a multiple of four."""


def limited(kind: str, fan_in: str, seed: int = 0, sparsity: float = 0.6, **keys: Any) -> RunConfig:
    """A run of one of many kinds of rules, under a limit."""
    keys = {"fan_in": fan_in} | keys
    if kind in RULES:
        return moving(seed, sparsity, kind, **keys)
    if kind == "sign":
        return dst(seed, sparsity, **keys)
    if kind == "importance":
        return ours(seed, sparsity, **keys)
    rule = {"drop": "magnitude", "grow": "gradient", "schedule": "cosine", "update_interval": 3}
    rule |= {"drop_fraction": 0.3, **keys}
    return rlx2(seed, sparsity, topology=rule, allocation="uniform", rewire="after_step")


KINDS = ("sign", "importance", "gradient", *RULES)


def alone(
    engine: type[Network], run: RunConfig, sizes: tuple[int, ...] = SIZES, heads: int = 2
) -> Network:
    return engine(NetworkPlan("critic", sizes, heads, [run], "cpu"))


def fan_ins(network: Network, member: int = 0) -> list[Tensor]:
    """Inputs of every neuron of a member [K, out], layer by layer."""
    return [mask.sum(1) for _, _, mask in network.layers(member)]


def assert_within(network: Network, run: RunConfig, member: int = 0) -> None:
    """Check every layer of a member against `fan_in`, in words of its own."""
    rule = run.critic.topology
    for layer, fan_in in enumerate(fan_ins(network, member)):
        inputs = network.plan.shapes[layer][0]
        outputs = fan_in.shape[1]
        mean = fan_in.sum(1) / outputs  # [K]
        if rule.fan_in == "constant":
            fewest = fan_in
            if rule.ablate_below is not None and layer < len(network.plan.shapes) - 1:
                fewest = fan_in.masked_fill(fan_in == 0, inputs)
            assert (fan_in.amax(1) - fewest.amin(1) <= 1).all()
        elif rule.fan_in.endswith("x"):
            assert (fan_in.amax(1) <= (2 * mean).clamp(min=1)).all()
        elif rule.fan_in != "free":
            most = int(rule.fan_in.partition(":")[2])
            assert (fan_in.amax(1)[mean < inputs] <= most).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fan_in", ["constant", "at_most:2x"])
@pytest.mark.parametrize("kind", KINDS)
def test_limits_hold_after_every_update(engine: type[Network], kind: str, fan_in: str) -> None:
    run = limited(kind, fan_in)
    network, data, changes = alone(engine, run), Data(), 0
    assert_within(network, run)
    moves = layer_moves(run.critic, network.plan.shapes)
    assert network.active()[0, 0].tolist() == [move.budgets[0] for move in moves]
    for _ in range(UPDATES):
        before = network.active()
        step(network, data)  # type: ignore[arg-type]
        assert_within(network, run)
        events = take_events(network)
        changes += sum(map(sum, (event.dropped[0] for event in events)))
        for event in events:
            now = before[0] + torch.tensor(event.grown) - torch.tensor(event.dropped)
            assert torch.equal(network.active()[0], now)
    assert network.active()[0, 0].tolist() == [move.budgets[1] for move in moves]
    assert changes > 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("seed", range(4))
def test_at_most_so_many_inputs_after_every_update(engine: type[Network], seed: int) -> None:
    # 20, 28 and 7 connections over 8, 7 and 2 neurons; at random, some would have more than 4
    free = [
        each
        for layer in range(3)
        for each in fan_ins(alone(engine, limited("sign", "free", seed, 0.5)))
    ]
    assert max(int(each.max()) for each in free) > 4
    run = limited("sign", "at_most:4", seed, 0.5, drop_fraction=0.5)
    network, data = alone(engine, run), Data()
    for _ in range(UPDATES):
        step(network, data)  # type: ignore[arg-type]
        assert_within(network, run)
        assert network.active()[0].tolist() == [[20, 28, 7]] * 2


def test_a_largest_number_of_inputs_holds_once_a_layer_is_no_longer_dense() -> None:
    run = limited("at_once", "at_most:3", sparsity=0.7)
    network, data = build(run), Data()
    assert network.active()[0, 0].tolist() == [40, 56, 14]
    for update in range(1, UPDATES + 1):
        step(network, data)
        assert (network.active()[0, 0, 0] == 40) == (update < 8)
        assert_within(network, run)


MIXED = (
    limited("sign", "constant", 0),
    limited("sign", "free", 1),
    limited("gradient", "constant", 2, ablate_below=0.5),
    limited("granet", "at_most:2x", 3, 0.7),
    limited("sign", "constant", 4, 0.8),  # shares the rule with the first, not the budget
    limited("gmp", "constant", 5, 0.3),
)


def test_members_with_different_limits_are_as_if_alone() -> None:
    runs = [run.model_copy(update={"steps": UPDATES, "learning_starts": 0}) for run in MIXED]
    network, data = build(*runs), Data(len(runs))
    single = [(build(run), Data()) for run in runs]
    for _ in range(UPDATES):
        step(network, data)
        for member, (other, same) in enumerate(single):
            step(other, same)
            assert_within(network, runs[member], member)
            assert torch.equal(network.active()[member], other.active()[0])
    for member, (other, _) in enumerate(single):
        for (_, _, mask), (_, _, theirs) in zip(
            network.layers(member), other.layers(0), strict=True
        ):
            assert torch.equal(mask, theirs)


def test_a_member_that_stands_still_keeps_its_topology() -> None:
    runs = [limited("gradient", "constant", seed, ablate_below=3) for seed in (0, 1)]
    network, data = build(*runs), Data(2)
    step(network, data)
    before = [mask.clone() for _, _, mask in network.layers(1)]
    for _ in range(UPDATES):
        step(network, data, torch.tensor([True, False]))
    for mask, (_, _, now) in zip(before, network.layers(1), strict=True):
        assert torch.equal(mask, now)
    assert all(event.dropped == [[0] * 3] * 2 for event in take_events(network) if event.member)


@pytest.mark.parametrize(
    "run",
    [
        limited("sign", "constant"),
        limited("sign", "at_most:2x"),
        limited("gradient", "constant", ablate_below=0.5),
        limited("granet", "constant"),
        limited("growth", "at_most:2x"),
    ],
    ids=["constant", "at_most", "ablation", "shrinking", "growing"],
)
def test_both_engines_agree_and_go_on_from_the_middle(run: RunConfig) -> None:
    masked, sparse = alone(MaskedNetwork, run), alone(SparseNetwork, run)
    ours, theirs = Data(), Data()
    for update in range(UPDATES):
        for network, data in ((masked, ours), (sparse, theirs)):
            step(network, data)  # type: ignore[arg-type]
            network.update_target(0.1)
        for (a, _, mask), (b, _, other) in zip(masked.layers(0), sparse.layers(0), strict=True):
            assert torch.equal(mask, other)
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        if update == UPDATES // 2:
            again = [alone(type(network), run) for network in (masked, sparse)]
            for network, copy in zip((masked, sparse), again, strict=True):
                copy.set_state([network.state(0)])
            later = [Data() for _ in again]
            for each in later:
                for _ in range(update + 1):
                    each.next()
    for network, copy, rest in zip((masked, sparse), again, later, strict=True):
        for _ in range(UPDATES - UPDATES // 2 - 1):
            step(copy, rest)  # type: ignore[arg-type]
            copy.update_target(0.1)
        for mine, same in zip(network.layers(0), copy.layers(0), strict=True):
            for a, b in zip(mine, same, strict=True):
                assert torch.equal(a, b)


def test_gradual_pruning_at_constant_fan_in_never_returns_a_connection() -> None:
    network, data = build(limited("gmp", "constant", sparsity=0.7)), Data()
    before = [mask for _, _, mask in network.layers(0)]
    for _ in range(UPDATES):
        step(network, data)
        now = [mask for _, _, mask in network.layers(0)]
        assert not any((new & ~old).any() for new, old in zip(now, before, strict=True))
        before = now


def test_neurons_are_given_up_and_the_others_take_their_connections() -> None:
    # a high bar: four salient connections of the two or three that a neuron has on average
    run = limited("gradient", "constant", ablate_below=4)
    network, data = build(run), Data()
    emptied = 0
    for _ in range(UPDATES):
        step(network, data)
        first, second, last = fan_ins(network)
        emptied += int((first == 0).sum() + (second == 0).sum())
        assert (last > 0).all()
        assert network.active()[0, 0].tolist() == layer_budgets(run.critic, network.plan.shapes)
    assert emptied > 0


# --- N of M ---------------------------------------------------------------------------------------


def groups(network: Network, m: int, member: int = 0) -> list[Tensor]:
    """Connections of every group of M inputs [K, in / M, out], layer by layer."""
    return [mask.unflatten(1, (-1, m)).sum(2) for _, _, mask in network.layers(member)]


def n_of_m(written: Any, seed: int = 0, grow: str = "gradient", **keys: Any) -> RunConfig:
    rule = {"drop": "magnitude", "grow": grow, "schedule": "constant", "update_interval": 2}
    rule |= {"drop_fraction": 0.4, "n_of_m": written} | keys
    return rlx2(seed, 0.9, topology=rule, rewire="after_step")


class WideData(Data):
    """Inputs and targets for networks of `WIDE`."""

    def next(self) -> tuple[Tensor, Tensor]:
        x, y = (
            torch.randn(1, *shape, generator=self.generator)
            for shape in ((ROWS, WIDE[0]), (self.heads, ROWS, WIDE[-1]))
        )
        return x.expand(self.members, -1, -1), y.expand(self.members, -1, -1, -1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("grow", "regrow"), [("gradient", True), ("random", False)])
def test_every_group_keeps_n_of_m_after_every_update(
    engine: type[Network], grow: str, regrow: bool
) -> None:
    written = ("1:1", "2:4", "1:4")
    network = alone(engine, n_of_m(written, grow=grow, regrow_dropped=regrow), WIDE)
    data, dropped = WideData(), 0
    for _ in range(20):
        first, second, last = groups(network, 4)
        assert (first == 4).all()
        assert (second == 2).all()
        assert (last == 1).all()
        step(network, data)  # type: ignore[arg-type]
        for event in take_events(network):
            assert event.dropped == event.grown
            assert event.active == [[32, 48, 6]] * 2
            dropped += sum(event.dropped[0])
    assert dropped > 20


def test_members_of_other_groups_train_together() -> None:
    runs = [n_of_m("2:4", 0), n_of_m("1:2", 1), n_of_m(("1:1", "1:8", "3:4"), 2)]
    network, data = build(*runs, sizes=WIDE), WideData(3)
    for _ in range(10):
        step(network, data)
    assert all((each == 2).all() for each in groups(network, 4, 0))
    assert all((each == 1).all() for each in groups(network, 2, 1))
    assert (groups(network, 4, 2)[2] == 3).all()
    assert network.active()[:, 0].tolist() == [[16, 48, 12], [16, 48, 12], [32, 12, 18]]


# --- first masks ----------------------------------------------------------------------------------


def first_masks(run: RunConfig, sizes: tuple[int, ...] = (20, 30, 40, 1)) -> list[Any]:
    return initial_layers(NetworkPlan("critic", sizes, 2, [run], "cpu"), 0)


@pytest.mark.parametrize("mask", ["random", "magnitude", "bernoulli"])
@pytest.mark.parametrize("fan_in", ["constant", "at_most:2x", "at_most:10"])
def test_every_first_mask_meets_every_limit(mask: str, fan_in: str) -> None:
    run = dst(3, 0.7, fan_in=fan_in)
    run = run.model_copy(update={"critic": run.critic.model_copy(update={"initial_mask": mask})})
    free = dst(3, 0.7)
    free = free.model_copy(update={"critic": free.critic.model_copy(update={"initial_mask": mask})})
    for (weight, _, found), (same, _, drawn) in zip(
        first_masks(run), first_masks(free), strict=True
    ):
        assert torch.equal(weight, same)  # no other number moves
        assert torch.equal(found.sum((1, 2)), drawn.sum((1, 2)))
        assert (found & drawn).sum() > 0.7 * drawn.sum()  # what was drawn stays if it may
        fan_ins = found.sum(1)  # [K, out]
        if fan_ins.shape[1] == 1:
            continue
        limit = {"constant": fan_ins.amin(1) + 1, "at_most:10": 10}.get(
            fan_in, 2 * fan_ins.double().mean(1)
        )
        assert (fan_ins.amax(1) <= limit).all()


def test_magnitude_at_constant_fan_in_takes_the_largest_of_every_neuron() -> None:
    run = rlx2(0, 0.75, topology={"fan_in": "constant"}, allocation="uniform")
    weight, _, mask = first_masks(run)[0]  # 150 of 20x30: five of every neuron
    expected = torch.zeros_like(mask).scatter(1, weight.abs().topk(5, dim=1).indices, True)
    assert torch.equal(mask, expected)


def test_random_first_masks_at_constant_fan_in_have_no_favourite_position() -> None:
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(4, 5)
    for _ in range(3000):
        drawn = random_mask(torch.ones(4, 5), 0.4, 8, generator)
        total += fitted(drawn, Constant(), torch.rand(4, 5, generator=generator))
    # 8 of 20, 3000 times: .4 each, with a standard deviation of .009
    assert total / 3000 == pytest.approx(torch.full((4, 5), 0.4), abs=0.04)
