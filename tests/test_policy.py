"""The policy file and the policy that acts from it: hand-worked actions, refusals, fixed bytes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dstrl_cli.errors import InputError
from dstrl_cli.runs import policy
from dstrl_cli.runs.policy import Policy, dump, network_tensors, policy_metadata

W0 = np.array([[1.0, -1.0], [2.0, 5.0]])  # [2 observations, 2 hidden]
B0 = np.array([0.5, 0.0])
M0 = np.array([[1, 1], [1, 0]])
W1 = np.array([[0.25], [1.0]])  # [2 hidden, 1 action]
B1 = np.array([-0.5])
M1 = np.ones((2, 1))


def metadata(**changes) -> dict[str, str]:
    values: dict[str, Any] = {
        "algo": "td3",
        "env": "dstrl/2DNav-v1",
        "task": 0,
        "observation_size": 2,
        "action_size": 1,
        "action_low": [-0.1],
        "action_high": [0.1],
        "hidden_sizes": [2],
        "step": 300,
    }
    return policy_metadata(**(values | changes))


def write(path: Path, tensors=None, **changes) -> Path:
    tensors = network_tensors("actor", [W0, W1], [B0, B1], [M0, M1]) if tensors is None else tensors
    path.write_bytes(dump(tensors, metadata(**changes)))
    return path


def test_td3_acts_by_tanh_of_the_output(tmp_path):
    loaded = Policy.load(write(tmp_path / "p"))
    # hidden = relu([1*1 + 2*3 + .5, -1*1 + 0 (masked)]) = [7.5, 0]; out = .25*7.5 - .5 = 1.375
    # hidden = relu([-2 + .5, 2]) = [0, 2]; out = 2 - .5 = 1.5
    actions = loaded.act(np.array([[1.0, 3.0], [-2.0, 0.0]], dtype=np.float32))
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, np.tanh([[1.375], [1.5]]), rtol=1e-6)


def test_sac_acts_by_tanh_of_the_mean_half(tmp_path):
    tensors = network_tensors(
        "actor", [W0, np.hstack([W1, 9 * W1])], [B0, np.array([-0.5, 3.0])], [M0, np.ones((2, 2))]
    )
    loaded = Policy.load(write(tmp_path / "p", tensors, algo="sac"))
    np.testing.assert_allclose(loaded.act(np.array([[1.0, 3.0]])), np.tanh([[1.375]]), rtol=1e-6)


def test_metadata_comes_back(tmp_path):
    loaded = Policy.load(write(tmp_path / "p", task=3))
    assert (loaded.algo, loaded.env, loaded.task, loaded.step) == ("td3", "dstrl/2DNav-v1", 3, 300)
    assert Policy.load(write(tmp_path / "q", task=None)).task is None


def test_the_same_content_gives_the_same_bytes_in_another_process(tmp_path):
    tensors = network_tensors("actor", [W0], [B0], [M0])
    code = (
        "import sys, numpy as np; from dstrl_cli.runs.policy import dump, network_tensors;"
        f"t = network_tensors('actor', [np.array({W0.tolist()})], [np.array({B0.tolist()})],"
        f" [np.array({M0.tolist()})]); sys.stdout.buffer.write(dump(t, {metadata()!r}))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert other == dump(tensors, metadata())


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Policy.load(path)


def test_unreadable_files_are_refused(tmp_path):
    refused(tmp_path / "missing", "does not exist")
    (tmp_path / "text").write_text("not a policy")
    refused(tmp_path / "text", "cannot be read")
    whole = write(tmp_path / "p").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-5])
    refused(tmp_path / "cut", "cannot be read")


def test_another_format_is_refused(tmp_path):
    tensors = network_tensors("actor", [W0], [B0], [M0])
    (tmp_path / "p").write_bytes(dump(tensors, {"format": "pt"}))
    refused(tmp_path / "p", "not a policy file of dstrl")
    (tmp_path / "q").write_bytes(dump(tensors, {"format": policy.FORMAT}))
    refused(tmp_path / "q", "damaged metadata")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"observation_size": 3}, r"layer 0 has weights \(2, 2\).*\(3, 2\)"),
        ({"action_size": 3}, "layer 1"),
        ({"hidden_sizes": [2, 2]}, "2 actor layers, but the metadata announces 3"),
    ],
)
def test_shapes_that_do_not_fit_the_metadata_are_refused(tmp_path, changes, match):
    refused(write(tmp_path / "p", **changes), match)


def test_missing_tensors_are_refused(tmp_path):
    refused(write(tmp_path / "p", network_tensors("critic1", [W0], [B0], [M0])), "no actor")
    for name in ("actor.bias.1", "actor.mask.0"):
        tensors = network_tensors("actor", [W0, W1], [B0, B1], [M0, M1])
        del tensors[name]
        refused(write(tmp_path / "p", tensors), "lacks the bias or mask")
    tensors["actor.mask.0"] = np.ones((1, 2), dtype=np.uint8)
    refused(write(tmp_path / "p", tensors), "but a mask")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    tensors = network_tensors("actor", [W0, W1 * np.nan], [B0, B1], [M0, M1])
    refused(write(tmp_path / "p", tensors), "actor layer 1 holds numbers that are not finite")


def test_find_policy_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        policy.find_policy(tmp_path / "none")
    with pytest.raises(InputError, match=r"holds no policy\.safetensors"):
        policy.find_policy(tmp_path)
    file = write(tmp_path / "policy.safetensors")
    assert policy.find_policy(tmp_path) == policy.find_policy(file) == file
