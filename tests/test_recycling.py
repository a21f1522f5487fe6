"""ReDo: which units begin anew, with which weights, in both engines and in populations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import run, train
from update_samples import finish_update

from dstrl_cli.config.effects import never_acting, without_effect
from dstrl_cli.config.parse import Origin
from dstrl_cli.config.resolving import resolve
from dstrl_cli.nets.masked import Flat, MaskedNetwork
from dstrl_cli.nets.network import Network, Overwritten
from dstrl_cli.nets.plan import NetworkPlan
from dstrl_cli.nets.sparse.engine import SparseNetwork
from dstrl_cli.training.recycling import Layers, begun_anew, dormant_units, fresh_weights


def layers() -> Layers:
    """Two inputs, four hidden units, one output, one head.

    On the input (1, 1) the units give 4, 0 (negative sum), 0 (no input, negative bias) and 0.04.
    """
    weight = torch.tensor([[[2.0, -1, 0, 0.04], [2, 0, 0, 0]]])
    out = torch.tensor([[[1.0], [1], [1], [0]]])
    return [
        (weight, torch.tensor([[0.0, 0, -1, 0]]), weight != 0),
        (out, torch.zeros(1, 1), out != 0),
    ]


def test_units_at_or_below_the_threshold_are_dormant_unless_they_have_no_input():
    inputs = torch.ones(3, 2)
    exactly_silent, nearly, everyone = (
        dormant_units(layers(), inputs, threshold)[0][0].tolist() for threshold in (0.0, 0.05, 9.0)
    )
    assert exactly_silent == [False, True, False, False]
    assert nearly == [False, True, False, True]  # 0.04 over a mean of 1.01
    assert everyone == [True, True, False, True]
    assert not dormant_units(layers(), inputs, 9.0)[1].any()  # the output layer is left alone


def test_recycled_units_get_fresh_inputs_and_outputs_of_zero():
    given = layers()
    dormant = dormant_units(given, torch.ones(3, 2), 0.05)
    fresh = [torch.full_like(weight, 7.0) for weight, _, _ in given]
    first, second = begun_anew(given, dormant, fresh)
    # inputs of units 1 and 3, where the mask has any
    assert first.where[0].tolist() == [[False, True, False, True], [False] * 4]
    assert (first.values[first.where] == 7).all()
    assert first.biases[0].tolist() == [False, True, False, True]
    # the output of unit 1; unit 3 has none
    assert second.where[0].squeeze(1).tolist() == [False, True, False, False]
    assert (second.values[second.where] == 0).all()
    assert not second.biases.any()


def test_a_connection_between_two_recycled_units_is_zero():
    mask = torch.ones(1, 1, 1, dtype=torch.bool)
    chain = [(torch.ones(1, 1, 1), torch.zeros(1, 1), mask)] * 3
    units = [torch.ones(1, 1, dtype=torch.bool)] * 2 + [torch.zeros(1, 1, dtype=torch.bool)]
    found = begun_anew(chain, units, [torch.full((1, 1, 1), 7.0)] * 3)
    assert [each.values.item() for each in found] == [7.0, 0.0, 0.0]


def test_fresh_weights_of_a_dense_layer_are_glorots():
    drawn = fresh_weights(
        torch.ones(2, 300, 200, dtype=torch.bool), torch.Generator().manual_seed(0)
    )
    bound = math.sqrt(6 / (300 + 200))
    assert bound * 0.999 < drawn.abs().max() <= bound
    assert not torch.equal(drawn[0], drawn[1])


def test_fresh_weights_of_a_sparse_layer_go_by_its_connections():
    mask = torch.zeros(1, 10, 4, dtype=torch.bool)
    mask[0, :5, 0] = mask[0, :, 1] = True  # 5 and 10 inputs; 1.5 outputs on average
    drawn = [
        fresh_weights(mask, torch.Generator().manual_seed(seed))[0].abs() for seed in range(60)
    ]
    largest = torch.stack(drawn).amax((0, 1))
    for unit, inputs in ((0, 5), (1, 10)):
        bound = math.sqrt(6 / (inputs + 1.5))
        assert 0.95 * bound < largest[unit] <= bound


def network(engine: type[Network]) -> Network:
    config = run("sst", sets=["grown_bias_correction=connection"])
    return engine(NetworkPlan("critic", (4, 12, 12, 1), 2, [config], "cpu"))


def moments_and_steps(of: Network) -> list[np.ndarray]:
    """First and second moment and steps since growth, of active connections, in one order."""
    if isinstance(of, SparseNetwork):
        own = of.own_steps
        assert own is not None
        dense = [
            of.dense(of.params.topology, flat[: of.params.split])
            for flat in (of.first_moment, of.second_moment, own)
        ]
        return [np.concatenate([layer.ravel() for layer in each]) for each in dense]
    assert isinstance(of, MaskedNetwork)
    flats = [Flat(each, of.plan).weights for each in (of.adam.first, of.adam.second)]
    found = [np.concatenate([layer[0].numpy().ravel() for layer in each]) for each in flats]
    power = Flat(of.adam.powers[0], of.plan).weights
    mask = np.concatenate([layer[0].numpy().ravel() for layer in of.mask.weights])
    left = np.concatenate([layer[0].numpy().ravel() for layer in power])
    return [*found, np.round(np.log(left) / np.log(0.9)) * mask]


def test_both_engines_overwrite_the_same_and_nothing_else():
    found = {}
    for engine in (MaskedNetwork, SparseNetwork):
        made = network(engine)
        inputs = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(1))
        for _ in range(3):
            made.backward(2 * made.forward(inputs))
            finish_update(made)
        before = [tuple(part.clone() for part in layer) for layer in made.layers(0)]
        parts = []
        for layer, (weight, bias, mask) in enumerate(before):
            units = torch.zeros_like(bias, dtype=torch.bool)
            units[1, layer % bias.shape[1]] = True
            where = (units.unsqueeze(1) & mask).contiguous()
            parts.append(Overwritten(torch.full_like(weight, 0.5), where, units))
        made.overwrite(0, parts)
        for (weight, bias, mask), part, (now, its_bias, its_mask) in zip(
            before, parts, made.layers(0), strict=True
        ):
            assert torch.equal(mask, its_mask)
            assert torch.equal(now, torch.where(part.where, part.values, weight))
            assert torch.equal(its_bias, bias.masked_fill(part.biases, 0.0))
        touched = np.concatenate([part.where.numpy().ravel() for part in parts])
        first, second, steps = moments_and_steps(made)
        assert not first[touched].any()
        assert not second[touched].any()
        assert not steps[touched].any()
        assert (steps[~touched] == 3).sum() > 0
        made.backward(2 * made.forward(inputs))  # and training goes on
        finish_update(made)
        found[engine] = made.layers(0)
    for (weight, bias, _), (other, its_bias, _) in zip(*found.values(), strict=True):
        torch.testing.assert_close(weight, other)
        torch.testing.assert_close(bias, its_bias)


REDO = ("redo_interval=9", "redo_threshold=0.8")


def digests(folder: Path) -> str:
    return (folder / "hashes.csv").read_text()


@pytest.mark.parametrize("method", ["rlx2", "our-dst", "dense"])
def test_recycling_keeps_the_topology_valid_and_changes_the_weights(tmp_path, method):
    (with_redo,) = train([run(method, sets=REDO)], tmp_path / "with")
    (without,) = train([run(method)], tmp_path / "without")
    assert digests(with_redo) != digests(without)
    (again,) = train([run(method, sets=REDO)], tmp_path / "again")
    assert digests(with_redo) == digests(again)


def test_members_recycle_by_their_own_keys(tmp_path):
    both = train([run("sst", 0, sets=REDO), run("sst", 1)], tmp_path / "both")
    alone = train([run("sst", 1)], tmp_path / "alone")
    rows = [(each / "eval.csv").read_text().split() for each in (both[1], alone[0])]
    values = [[float(row.split(",")[2]) for row in each[1:]] for each in rows]
    np.testing.assert_allclose(*values, rtol=1e-3)
    (one,) = train([run("sst", 0, sets=REDO)], tmp_path / "one")
    (other,) = train([run("sst", 0)], tmp_path / "other")
    assert digests(one) != digests(other)


def test_the_keys_stand_for_both_networks_and_say_when_they_are_idle():
    config = resolve("sst", sets=["redo_interval=7", "critic.redo_interval=5"])
    assert (config.actor.redo_interval, config.critic.redo_interval) == (7, 5)
    assert resolve("sst").critic.redo_interval is None
    late = resolve("sst", sets=["actor.redo_interval=10000", "steps=30000"])
    assert never_acting(late) == [
        "dormant units of the actor never begin anew: redo_interval is 10,000, and there are "
        "2,500 updates; lower it with --set actor.redo_interval=N"
    ]
    key = Origin("redo_threshold", "--set")
    told = without_effect(resolve("sst"), {f"{r}.redo_threshold": key for r in ("actor", "critic")})
    assert told == ["redo_threshold has no effect: redo_interval is null"]
