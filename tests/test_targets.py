"""Targets: how they start, how they move, and the three ways in which they are masked."""

from __future__ import annotations

import pytest
import torch
from network_samples import (
    Data,
    build,
    copies,
    dst,
    masks_of,
    official_dst,
    rlx2,
    run,
    step,
    take_events,
)
from torch import Tensor

from dstrl_cli.config.methods import list_methods
from dstrl_cli.config.resolving import resolve
from dstrl_cli.nets.initial import initial_layers


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


@pytest.mark.parametrize("others", [(), ("none", "online_mask")])
def test_a_trimmed_target_keeps_the_budget_or_as_many_as_are_not_zero(others: tuple[str]) -> None:
    # SOK's code counts the network's weights that are not exactly zero, which grown ones can be
    keys = {"sparsity": 0.2, "allocation": "erdos_renyi"}  # 5 of 6, and a full output layer
    trims = [
        run(0, target_masking="magnitude_trim", target_trim=trim, **keys)
        for trim in ("budget", "nonzero")
    ]
    network = build(
        *trims, *(run(0, target_masking=each, **keys) for each in others), heads=1, sizes=(2, 3, 1)
    )
    members = list(range(len(trims) + len(others)))
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]]).bool().expand(len(members), 1, -1, -1)
    full = torch.ones(len(members), 1, 3, 1, dtype=torch.bool)
    network.set_masks(members, [mask, full])
    first, last = network.params.weights
    first[:], last[:] = torch.tensor([[3.0, 0, 0], [0, -2, 0]]), torch.tensor([[1.0], [0], [4]])
    target, target_last = network.target_params.weights
    target[:], target_last[:] = (
        torch.tensor([[1.0, 0, 0.5], [0, -2, 0]]), torch.tensor([[1.0], [-8], [4]])
    )  # fmt: skip
    network.update_target(0.5)
    # blends: 2 .25 -2 and 1 -4 4; the masks have 3 and 3 connections, of which 2 and 2 are not zero
    assert target[0, 0].tolist() == [[2, 0, 0.25], [0, -2, 0]]
    assert target[1, 0].tolist() == [[2, 0, 0], [0, -2, 0]]
    assert target_last[:2, 0].flatten(1).tolist() == [[1, -4, 4], [0, -4, 4]]


def test_only_the_authors_dst_trims_to_what_is_not_zero() -> None:
    found = {name: resolve(name, "td3").target_trim for name in list_methods()}
    official = ["dst-official", "our-dst-official"]
    assert [name for name, trim in found.items() if trim == "nonzero"] == official


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
    assert [event.grown != [[0] * 3] * 2 for event in take_events(network)] == [True, False]
    for layer, target in enumerate(network.target_params.weights):
        assert (target.ne(0).sum((-2, -1)) <= after[..., layer]).all()
