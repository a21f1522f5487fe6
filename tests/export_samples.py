"""Networks and policies to export, and C that is compiled and run, for the tests."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from policy_samples import write_policy

from dstrl_cli.export import c_code
from dstrl_cli.export.clocks import find_compiler
from dstrl_cli.export.network import Network
from dstrl_cli.runs.policy import Policy, network_tensors

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")

needs_compiler = pytest.mark.skipif(
    find_compiler() is None, reason="no C compiler (cc, gcc or clang) on this machine"
)

# 3 observations, hidden layers of 4 and 3 neurons, 1 action. In the first hidden layer
#   neuron 0 sees observations 0 and 2;
#   neuron 1 sees nothing: always relu(0.5) = 0.5;
#   neuron 2 leads nowhere;
#   neuron 3 leads to neuron 2 of the second layer alone, which leads nowhere.
# In the second
#   neuron 0 sees neurons 0 and 1, and the constant one goes into its bias: 0.25 + 4 * 0.5 = 2.25;
#   neuron 1 sees the constant neuron alone: always relu(-1 + 3 * 0.5) = 0.5;
#   neuron 2 leads nowhere.
# The output gets neuron 1 as a constant: its bias is 0.125 + 2 * 0.5 = 1.125.
WORKED_WEIGHTS = (
    np.array([[1, 0, 7, 0], [0, 0, 0, 5], [-2, 0, 0, 0]], np.float32),
    np.array([[0.5, 0, 0], [4, 3, 0], [0, 0, 0], [0, 0, 6]], np.float32),
    np.array([[0.5], [2], [0]], np.float32),
)
WORKED_BIASES = (
    np.array([0.75, 0.5, 1, 1], np.float32),
    np.array([0.25, -1, 9], np.float32),
    np.array([0.125], np.float32),
)


def write_actor(path: Path, weights: Any, biases: Any, masks: Any = None, **changes: Any) -> Path:
    """Write a policy file with these layers; masks are where weights are not zero by default.

    `action_size` is one of the changes where the outputs are not the action alone.
    """
    masks = [weight != 0 for weight in weights] if masks is None else masks
    acts = changes.pop("action_size", weights[-1].shape[1])
    about = {
        "observation_size": len(weights[0]),
        "action_size": acts,
        "action_low": [-1.0] * acts,
        "action_high": [1.0] * acts,
        "hidden_sizes": [weight.shape[1] for weight in weights[:-1]],
    }
    tensors = network_tensors("actor", weights, biases, masks)
    return write_policy(path, tensors, **(about | changes))


def worked(folder: Path) -> Policy:
    """Return the policy that is worked out above."""
    return Policy.load(write_actor(folder / "worked", WORKED_WEIGHTS, WORKED_BIASES))


def random_layers(
    sizes: list[int], density: float, seed: int
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Return weights of which a share is not zero, and biases."""
    draw = np.random.default_rng(seed)
    weights, biases = [], []
    for shape in pairwise(sizes):  # [in, out]
        values = draw.standard_normal(shape) * (draw.random(shape) < density)
        weights.append(values.astype(np.float32))
        biases.append(draw.standard_normal(shape[1]).astype(np.float32))
    return weights, biases


_MAIN = """
#include <math.h>
#include <stdio.h>
#ifdef OUTPUTS
#define tanhf(value) (value)
#endif
#include "policy.c"

int main(void)
{
    static float observation[POLICY_OBSERVATIONS];
    static TYPE action[POLICY_ACTIONS];
    while (fread(observation, sizeof observation, 1, stdin) == 1) {
        policy_act(observation, action);
        if (fwrite(action, sizeof action, 1, stdout) != 1)
            return 1;
    }
    return 0;
}
"""


def compiled_actions(
    network: Network, observations: NDArray[np.float32], folder: Path, outputs: bool = False
) -> NDArray[Any]:
    """Return the actions [N, act] that the C code of a network gives, compiled strictly.

    With `outputs`, what enters tanh: `tanhf` is then a macro that changes nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in c_code.files(network, folder / "policy", ["a test"]).items():
        path.write_bytes(content)
    (folder / "main.c").write_text(_MAIN)
    compiler = find_compiler()
    assert compiler is not None
    flags = [*STRICT, f"-DTYPE={c_code.action_type(network)}"]
    program = str(folder / "program")
    plain = ["-DOUTPUTS"] if outputs else []
    command = [compiler, *flags, *plain, str(folder / "main.c"), "-o", program, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([program], input=observations.tobytes(), capture_output=True, check=True)
    found = np.frombuffer(done.stdout, network.scale.low.dtype)
    return found.reshape(len(observations), network.action_size)


def sums_in_order(network: Network, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what enters tanh [N, act], added in float32 in the order of the C code."""
    value = observations
    for number, layer in enumerate(network.layers):
        total = np.broadcast_to(layer.bias, (len(value), layer.outputs)).copy()
        for source in range(layer.inputs):
            weight = layer.weight[source]
            product = value[:, source : source + 1] * weight
            total = np.where(weight != 0, total + product, total)
        value = total if number == len(network.layers) - 1 else np.maximum(total, np.float32(0))
    return value
