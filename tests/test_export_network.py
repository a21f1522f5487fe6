"""What is left of a policy: idle connections and neurons go, constants move into biases."""

from __future__ import annotations

import numpy as np
import pytest
from export_samples import random_layers, worked, write_actor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstrl_cli.errors import InputError
from dstrl_cli.export.cost import Cost, dense_cost
from dstrl_cli.export.network import Network, check_overflow, dense_like, needed_part
from dstrl_cli.runs.policy import Policy


def acted(network: Network, observations: np.ndarray) -> np.ndarray:
    """Return the outputs of tanh [N, act] of a network, in float64."""
    value = observations.astype(np.float64)
    for layer in network.layers[:-1]:
        value = np.maximum(value @ layer.weight + layer.bias, 0)
    return np.tanh(value @ network.layers[-1].weight + network.layers[-1].bias)


def test_a_worked_net_keeps_one_neuron_of_each_layer(tmp_path):
    network = needed_part(worked(tmp_path))
    weights = [layer.weight.tolist() for layer in network.layers]
    biases = [layer.bias.tolist() for layer in network.layers]
    assert weights == [[[1.0], [0.0], [-2.0]], [[0.5]], [[0.5]]]
    assert biases == [[0.75], [2.25], [1.125]]
    assert (network.no_output, network.no_input) == (3, 2)
    assert (network.hidden_sizes, network.connections) == ([1, 1], 4)


def test_the_worked_net_acts_as_before(tmp_path):
    policy = worked(tmp_path)
    # first: relu(0.25 - 2 * 0.5 + 0.75) = 0, relu(0.5 * 0 + 2.25) = 2.25, 0.5 * 2.25 + 1.125
    # second: relu(1 + 2 * 0.125 + 0.75) = 2, relu(0.5 * 2 + 2.25) = 3.25, 0.5 * 3.25 + 1.125
    observations = np.array([[0.25, 3, 0.5], [1, -4, -0.125]], np.float32)
    expected = np.tanh([[2.25], [2.75]])
    np.testing.assert_allclose(acted(needed_part(policy), observations), expected, rtol=1e-12)
    np.testing.assert_allclose(policy.unit_action(observations), expected, rtol=1e-6)


def test_where_no_observation_reaches_an_action_only_biases_are_left(tmp_path):
    weights = [np.eye(2, dtype=np.float32), np.array([[0], [3]], np.float32)]
    weights[0][1, 1] = 0  # neuron 1, the only one that leads on, is constant: relu(2)
    biases = [np.array([5, 2], np.float32), np.array([-7], np.float32)]
    network = needed_part(Policy.load(write_actor(tmp_path / "p", weights, biases)))
    assert [layer.weight.tolist() for layer in network.layers] == [[[0.0], [0.0]]]
    assert network.layers[0].bias.tolist() == [-1.0]
    assert network.connections == 0


def test_a_constant_below_zero_adds_nothing(tmp_path):
    weights = [np.array([[1, 0]], np.float32), np.array([[1], [3]], np.float32)]
    biases = [np.array([0, -2], np.float32), np.array([0.5], np.float32)]
    network = needed_part(Policy.load(write_actor(tmp_path / "p", weights, biases)))
    assert network.layers[1].bias.tolist() == [0.5]


def test_an_output_without_connections_stays(tmp_path):
    weights = [np.array([[1]], np.float32), np.array([[2, 0]], np.float32)]
    biases = [np.array([0], np.float32), np.array([0, 0.25], np.float32)]
    network = needed_part(Policy.load(write_actor(tmp_path / "p", weights, biases)))
    assert network.layers[1].weight.tolist() == [[2.0, 0.0]]
    assert network.layers[1].bias.tolist() == [0.0, 0.25]


def test_sacs_outputs_that_do_not_act_are_left_out_and_what_leads_to_them_alone(tmp_path):
    weights = [np.array([[1, 4]], np.float32), np.array([[2, 0], [0, 5]], np.float32)]
    biases = [np.zeros(2, np.float32), np.array([1, 2], np.float32)]
    file = write_actor(tmp_path / "p", weights, biases, algo="sac", action_size=1)
    network = needed_part(Policy.load(file))
    assert [layer.weight.tolist() for layer in network.layers] == [[[1.0]], [[2.0]]]
    assert (network.no_output, network.layers[1].bias.tolist()) == (1, [1.0])
    assert dense_like(Policy.load(file)).layers[1].weight.shape == (2, 1)


def test_costs_of_whole_matrices_are_counted(tmp_path):
    policy = worked(tmp_path)
    # 3 + 1 + 1 products and 1 + 1 + 1 biases; one buffer of 1 for layers 0 and 2, one for layer 1
    assert dense_cost(needed_part(policy)) == Cost(5, 4 * (5 + 3), 4 * 2)
    # 3*4 + 4*3 + 3*1 products, 4 + 3 + 1 biases, buffers of max(4, 1) and 3
    assert dense_cost(dense_like(policy)) == Cost(27, 4 * (27 + 8), 4 * 7)
    wide = write_actor(
        tmp_path / "p", *random_layers([2, 1], 1, 0), action_low=[-2.0], action_high=[1.0]
    )
    # 2 products, 1 bias, and 4 numbers for the bounds of the only action
    assert dense_cost(needed_part(Policy.load(wide))) == Cost(2, 4 * (2 + 1 + 4), 4)


def test_a_dense_policy_of_the_same_shape_has_no_gap(tmp_path):
    dense = dense_like(worked(tmp_path))
    assert dense.connections == 27
    assert dense.hidden_sizes == [4, 3]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=5),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
def test_pruning_and_folding_keep_every_action(tmp_path, sizes, density, seed):
    file = write_actor(tmp_path / "p", *random_layers(sizes, density, seed))
    policy = Policy.load(file)
    network = needed_part(policy)
    observations = np.random.default_rng(seed).standard_normal((7, sizes[0])).astype(np.float32)
    expected = observations.astype(np.float64)
    for weight, bias in zip(policy.weights[:-1], policy.biases[:-1], strict=True):
        expected = np.maximum(expected @ weight + bias, 0)
    expected = np.tanh(expected @ policy.weights[-1] + policy.biases[-1])
    np.testing.assert_allclose(acted(network, observations), expected, rtol=1e-5, atol=1e-5)
    for layer in network.layers[:-1]:
        assert (layer.weight != 0).any(0).all()  # every hidden neuron has an input
    for layer in network.layers[1:]:
        assert (layer.weight != 0).any(1).all()  # and leads on


@pytest.mark.parametrize(("layer", "values"), [(0, (1.6e35, 0.25)), (1, (1.0, 0.8e35))])
def test_weights_that_may_overflow_are_refused(tmp_path, layer, values):
    # Two inputs of 1000 each give 2 * 1000 * 1.6e35 in layer 0, or 2 * 2000 * 0.8e35 in layer 1:
    # 3.2e38, just below float32's largest number, 3.4e38.
    first, second = (np.float32(value) for value in values)
    weights = [np.full((2, 2), first), np.full((2, 1), second)]
    biases = [np.zeros(2, np.float32), np.zeros(1, np.float32)]
    file = write_actor(tmp_path / "p", weights, biases)
    check_overflow(needed_part(Policy.load(file)), "policy")
    weights[layer] *= np.float32(1.1)
    file = write_actor(tmp_path / "p", weights, biases)
    with pytest.raises(InputError, match=f"policy: its weights overflow: .* layer {layer} beyond"):
        check_overflow(needed_part(Policy.load(file)), "policy")


def test_a_constant_that_overflows_is_refused(tmp_path):
    weights = [np.array([[0]], np.float32), np.array([[2e38]], np.float32)]
    biases = [np.array([2e38], np.float32), np.array([0], np.float32)]
    network = needed_part(Policy.load(write_actor(tmp_path / "p", weights, biases)))
    with pytest.raises(InputError, match="its weights overflow"):
        check_overflow(network, "policy")
