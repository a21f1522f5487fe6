"""The C code: compiled strictly, compared with NumPy, and counted."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from export_samples import (
    compiled_actions,
    needs_compiler,
    random_layers,
    sums_in_order,
    worked,
    write_actor,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstrl_cli.errors import InputError
from dstrl_cli.export import c_code
from dstrl_cli.export.cost import Cost
from dstrl_cli.export.network import dense_like, needed_part
from dstrl_cli.runs.policy import Policy


def observations(policy: Policy, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.standard_normal((20, policy.observation_size)).astype(np.float32)


def random_policy(
    file: Path, sizes: list[int], density: float = 0.3, seed: int = 0, **changes
) -> Policy:
    return Policy.load(write_actor(file, *random_layers(sizes, density, seed), **changes))


# --- arithmetic ---------------------------------------------------------------------------------


@needs_compiler
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_c_adds_as_numpy_does_in_the_same_order(tmp_path, sizes, density, seed):
    policy = random_policy(tmp_path / "p", sizes, density, seed)
    network, seen = needed_part(policy), observations(policy, seed)
    outputs = compiled_actions(network, seen, tmp_path / "c", outputs=True)
    np.testing.assert_array_equal(outputs, sums_in_order(network, seen))
    expected = policy.unit_action(seen)
    np.testing.assert_allclose(np.tanh(outputs), expected, rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.skipif(not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++")
def test_a_program_in_cpp_links_the_code(tmp_path):
    policy = random_policy(tmp_path / "p", [3, 4, 2], 1.0, 0)
    for path, content in c_code.files(needed_part(policy), tmp_path / "policy", []).items():
        path.write_bytes(content)
    (tmp_path / "main.cpp").write_text(
        '#include <cstdio>\n#include "policy.h"\n'
        "int main() { float seen[3] = {1, 2, 3}, action[2]; policy_act(seen, action);"
        ' std::printf("%.9g %.9g", action[0], action[1]); }\n'
    )
    for command in ("gcc -c policy.c", "g++ -c main.cpp", "g++ main.o policy.o -lm -o program"):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    expected = policy.act(np.array([1, 2, 3], np.float32))
    np.testing.assert_allclose([*map(float, done.stdout.split())], expected, rtol=1e-5)


@needs_compiler
def test_td3_acts_in_its_bounds(tmp_path):
    bounds = {"action_low": [-3.0, 0.0], "action_high": [1.0, 0.1]}
    policy = random_policy(tmp_path / "p", [5, 32, 24, 2], **bounds)
    seen = observations(policy)
    actions = compiled_actions(needed_part(policy), seen, tmp_path / "c")
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, policy.act(seen), rtol=1e-5, atol=1e-6)
    extreme = compiled_actions(needed_part(policy), 300 * seen, tmp_path / "c")
    assert (extreme >= policy.action_low).all()
    assert (extreme <= policy.action_high).all()


@needs_compiler
def test_sac_acts_by_its_mean_in_double_where_the_environment_does(tmp_path):
    policy = random_policy(
        tmp_path / "p",
        [4, 16, 16, 6],
        algo="sac",
        action_size=3,
        action_low=[-1 / 3, -1.0, -0.1],
        action_high=[0.1, 1.0, 2 / 3],
        action_dtype="float64",
    )
    seen = observations(policy)
    actions = compiled_actions(needed_part(policy), seen, tmp_path / "c")
    assert actions.dtype == policy.act(seen).dtype == np.float64
    np.testing.assert_allclose(actions, policy.act(seen), rtol=1e-5, atol=1e-6)
    high = compiled_actions(needed_part(policy), 1e4 * seen, tmp_path / "c").max(0)
    np.testing.assert_array_equal(high, policy.act(1e4 * seen).max(0))  # the bounds, all digits


@needs_compiler
def test_wide_layers_and_dense_ones_compile_too(tmp_path):
    sparse, denser = (
        random_policy(tmp_path / "p", [270, 12, 1], density) for density in (0.05, 0.98)
    )
    seen = observations(sparse)
    for number, each in enumerate((needed_part(sparse), needed_part(denser), dense_like(sparse))):
        outputs = compiled_actions(each, seen, tmp_path / str(number), outputs=True)
        np.testing.assert_array_equal(outputs, sums_in_order(each, seen))


@needs_compiler
def test_a_policy_without_connections_acts_by_its_biases(tmp_path):
    policy = random_policy(tmp_path / "p", [3, 4, 2], density=0)
    seen = observations(policy)
    actions = compiled_actions(needed_part(policy), seen, tmp_path / "c")
    np.testing.assert_allclose(actions, policy.act(seen), rtol=1e-6)


# --- what is stored -----------------------------------------------------------------------------


def test_only_active_connections_are_stored(tmp_path):
    network = needed_part(worked(tmp_path))
    source = c_code.files(network, tmp_path / "policy", [])[tmp_path / "policy.c"].decode()
    arrays = dict(re.findall(r"static const \w+ (\w+)\[\d+\] = \{\s*(.*?),\s*\};", source, re.S))
    assert {name: text.split(", ") for name, text in arrays.items()} == {
        "weight_0": ["0x1p+0f", "-0x1p+1f"],
        "input_0": ["0", "2"],
        "count_0": ["2"],
        "bias_0": ["0x1.8p-1f"],
        "weight_1": ["0x1p-1f"],  # without any gap: the weights alone
        "bias_1": ["0x1.2p+1f"],
        "weight_2": ["0x1p-1f"],
        "bias_2": ["0x1.2p+0f"],
    }
    # 4 weights and 3 biases of 4 bytes, 2 inputs and 1 number of one byte; 2 values between layers
    assert c_code.cost(network) == Cost(4, 4 * 7 + 3, 8)


def test_inputs_and_numbers_take_two_bytes_where_one_is_too_small(tmp_path):
    weights = [np.zeros((257, 2), np.float32)]
    weights[0][:256, 0] = 1
    policy = Policy.load(write_actor(tmp_path / "p", weights, [np.zeros(2, np.float32)]))
    # 256 weights, inputs up to 256 and numbers up to 256 of two bytes, 2 biases
    assert c_code.cost(needed_part(policy)).constant_bytes == 256 * (4 + 2) + 2 * 2 + 2 * 4
    weights[0][255, 0] = 0  # now at most 255 connections lead to a neuron: one byte each
    policy = Policy.load(write_actor(tmp_path / "p", weights, [np.zeros(2, np.float32)]))
    assert c_code.cost(needed_part(policy)).constant_bytes == 255 * (4 + 2) + 2 * 1 + 2 * 4


def test_bounds_are_stored_where_they_are_needed(tmp_path):
    sizes, plain = [2, 1], {"density": 1.0}
    usual = c_code.cost(needed_part(random_policy(tmp_path / "p", sizes, **plain))).constant_bytes
    for dtype, size in (("float32", 4), ("float64", 8)):
        bounds = {"action_low": [-2.0], "action_high": [2.0], "action_dtype": dtype}
        policy = random_policy(tmp_path / "p", sizes, **plain, **bounds)
        assert c_code.cost(needed_part(policy)).constant_bytes == usual + 4 * size


# --- names and text -----------------------------------------------------------------------------


@needs_compiler
def test_text_of_a_run_cannot_leave_its_comment(tmp_path):
    evil = ["env: */ int evil; /* ??/", "algo: \\", 'a "quote" \u202e \x1b[31m', "x" * 10_000]
    for path, content in c_code.files(
        needed_part(worked(tmp_path)), tmp_path / "policy", evil
    ).items():
        text = content.decode("ascii")
        comment, code = text.split("*/\n", 1)
        assert "evil" in comment
        assert "evil" not in code
        assert len(text) < 5000, path


@pytest.mark.parametrize(
    ("name", "expected"),
    [("policy", "policy"), ("my-net.v2", "my_net_v2"), ("2net", "policy_2net"), ("__x", "x")],
)
def test_names_in_c_follow_the_file(name, expected):
    assert c_code.identifier(name) == expected


@pytest.mark.parametrize("name", ['a"b', "-x", "a b", "ä", "a\\b", ".c"])
def test_names_that_an_include_cannot_hold_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="names no C file"):
        c_code.paths(tmp_path / name)


def test_the_ending_of_either_file_may_be_given(tmp_path):
    expected = [tmp_path / "net.c", tmp_path / "net.h"]
    for name in ("net", "net.c", "net.h"):
        assert c_code.paths(tmp_path / name) == expected
    assert c_code.paths(tmp_path / "net.v2") == [tmp_path / "net.v2.c", tmp_path / "net.v2.h"]
