"""The policy file and the policy that acts from it: hand-worked actions, refusals, fixed bytes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from policy_samples import B0, B1, M0, M1, W0, W1, actor, metadata, write_policy

from dstrl_cli.errors import InputError
from dstrl_cli.runs import policy
from dstrl_cli.runs.policy import Policy, dump, network_tensors

OBSERVATIONS = np.array([[1.0, 3.0], [-2.0, 0.0]], dtype=np.float32)
# hidden = relu([1*1 + 2*3 + .5, -1*1 + 0 (masked)]) = [7.5, 0]; out = .25*7.5 - .5 = 1.375
# hidden = relu([-2 + .5, 2]) = [0, 2]; out = 2 - .5 = 1.5
UNIT = np.tanh([[1.375], [1.5]])


def test_td3_acts_by_tanh_of_the_output(tmp_path):
    loaded = Policy.load(write_policy(tmp_path / "p"))
    actions = loaded.unit_action(OBSERVATIONS)
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, UNIT, rtol=1e-6)


def test_sac_acts_by_tanh_of_the_mean_half(tmp_path):
    tensors = network_tensors(
        "actor", [W0, np.hstack([W1, 9 * W1])], [B0, np.array([-0.5, 3.0])], [M0, np.ones((2, 2))]
    )
    loaded = Policy.load(write_policy(tmp_path / "p", tensors, algo="sac"))
    np.testing.assert_allclose(loaded.unit_action(OBSERVATIONS), UNIT, rtol=1e-6)


def test_actions_lie_in_the_bounds_of_the_environment(tmp_path):
    file = write_policy(tmp_path / "p", action_low=[-3.0], action_high=[1.0])
    # the middle is -1 and half the width 2
    np.testing.assert_allclose(Policy.load(file).act(OBSERVATIONS), -1 + 2 * UNIT, rtol=1e-6)
    wide = np.array([[1e6, 0.0]])  # the output is so large that tanh is 1: the upper bound
    assert Policy.load(write_policy(tmp_path / "q")).act(wide) == np.float32(0.1)


def test_one_observation_gives_one_action(tmp_path):
    loaded = Policy.load(write_policy(tmp_path / "p"))
    for act in (loaded.act, loaded.unit_action):
        batch, single = act(OBSERVATIONS), act(OBSERVATIONS[1])
        assert single.shape == (1,)
        np.testing.assert_allclose(single, batch[1], rtol=1e-6)
    assert loaded.act([1.0, 3.0]).shape == (1,)  # a list will do


@pytest.mark.parametrize("shape", [(3,), (4, 3), (1, 4, 2), ()])
def test_observations_of_another_shape_are_refused(tmp_path, shape):
    loaded = Policy.load(write_policy(tmp_path / "p"))
    with pytest.raises(InputError, match=r"but this policy takes \[2\] or \[N, 2\]"):
        loaded.act(np.zeros(shape))


def test_metadata_comes_back(tmp_path):
    loaded = Policy.load(write_policy(tmp_path / "p", task=3))
    assert (loaded.algo, loaded.env, loaded.task, loaded.step) == ("td3", "dstrl/2DNav-v1", 3, 300)
    assert Policy.load(write_policy(tmp_path / "q", task=None)).task is None


def test_the_same_content_gives_the_same_bytes_in_another_process(tmp_path):
    tensors = network_tensors("actor", [W0], [B0], [M0])
    code = (
        "import sys, numpy as np; from dstrl_cli.runs.policy import dump, network_tensors;"
        f"t = network_tensors('actor', [np.array({W0.tolist()})], [np.array({B0.tolist()})],"
        f" [np.array({M0.tolist()})]); sys.stdout.buffer.write(dump(t, {metadata()!r}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == dump(tensors, metadata())


def assert_refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Policy.load(path)


def test_unreadable_files_are_refused(tmp_path):
    assert_refused(tmp_path / "missing", "does not exist")
    (tmp_path / "text").write_text("not a policy")
    assert_refused(tmp_path / "text", "cannot be read")
    whole = write_policy(tmp_path / "p").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-5])
    assert_refused(tmp_path / "cut", "cannot be read")


def test_another_format_is_refused(tmp_path):
    tensors = network_tensors("actor", [W0], [B0], [M0])
    (tmp_path / "p").write_bytes(dump(tensors, {"format": "pt"}))
    assert_refused(tmp_path / "p", "not a policy file of dstrl")
    (tmp_path / "q").write_bytes(dump(tensors, {"format": policy.FORMAT}))
    assert_refused(tmp_path / "q", "damaged metadata")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"observation_size": 3}, r"layer 0 has weights \(2, 2\).*\(3, 2\)"),
        ({"action_size": 3, "action_low": [-1] * 3, "action_high": [1] * 3}, "layer 1"),
        ({"hidden_sizes": [2, 2]}, "2 actor layers, but the metadata announces 3"),
        ({"action_low": [-1.0, -1.0]}, "damaged metadata"),
    ],
)
def test_shapes_that_do_not_fit_the_metadata_are_refused(tmp_path, changes, match):
    assert_refused(write_policy(tmp_path / "p", **changes), match)


def test_missing_tensors_are_refused(tmp_path):
    assert_refused(
        write_policy(tmp_path / "p", network_tensors("critic1", [W0], [B0], [M0])), "no actor"
    )
    for name in ("actor.bias.1", "actor.mask.0"):
        tensors = actor()
        del tensors[name]
        assert_refused(write_policy(tmp_path / "p", tensors), "lacks the bias or mask")
    tensors["actor.mask.0"] = np.ones((1, 2), dtype=np.uint8)
    assert_refused(write_policy(tmp_path / "p", tensors), "but a mask")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    tensors = network_tensors("actor", [W0, W1 * np.nan], [B0, B1], [M0, M1])
    assert_refused(
        write_policy(tmp_path / "p", tensors), "actor layer 1 holds numbers that are not finite"
    )


def test_find_policy_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        policy.find_policy(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no policy\.safetensors"):
        policy.find_policy(tmp_path)
    file = write_policy(tmp_path / "policy.safetensors")
    assert policy.find_policy(tmp_path) == policy.find_policy(file) == file
    (tmp_path / "runs.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="is an archive of logs, without policies"):
        policy.find_policy(tmp_path / "runs.zip")


def test_weights_that_float32_cannot_hold_are_refused(tmp_path):
    tensors = actor()
    tensors["actor.weight.0"] = tensors["actor.weight.0"].astype(np.float64) * 1e300
    assert_refused(
        write_policy(tmp_path / "p", tensors), "actor layer 0 holds numbers that are not finite"
    )
