"""A policy as an ONNX model: whole matrices without idle neurons, for a batch of observations.

Needs the packages onnx and, to time it, onnxruntime: the extra `export`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np

from dstrl_cli.errors import InputError
from dstrl_cli.export.network import Network

OPSET, IR_VERSION = 17, 8
"""Old enough for runtimes of 2022; every operation here is older."""

INPUT, OUTPUT = "observation", "action"


def check_packages() -> None:
    """Raise InputError where a package is missing."""
    for module in ("onnx", "onnxruntime"):
        if find_spec(module) is None:
            raise InputError(
                f"--format onnx needs {module}, which is not installed: pip install 'dstrl[export]'"
            )


def model(network: Network, about: Mapping[str, str]) -> bytes:
    """Return the bytes of the model: `observation` [N, obs] float32 to `action` [N, act].

    Args:
        network: what is exported.
        about: metadata that the model carries.
    """
    from onnx import TensorProto, checker, helper

    graph = _Graph()
    value = INPUT
    for number, layer in enumerate(network.layers):
        weight = graph.constant(f"weight.{number}", layer.weight)
        bias = graph.constant(f"bias.{number}", layer.bias)
        value = graph.add("Gemm", value, weight, bias)
        value = graph.add("Relu" if number < len(network.layers) - 1 else "Tanh", value)
    value = _scaled(graph, network, value)
    graph.nodes.append(helper.make_node("Identity", [value], [OUTPUT]))
    action_type = helper.np_dtype_to_tensor_dtype(network.scale.dtype)
    made = helper.make_graph(
        graph.nodes,
        "policy",
        [_info(INPUT, TensorProto.FLOAT, network.observation_size)],
        [_info(OUTPUT, action_type, network.action_size)],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    found = helper.make_model(made, opset_imports=opsets, producer_name="dstrl")
    found.ir_version = IR_VERSION
    helper.set_model_props(found, dict(about))
    checker.check_model(found, full_check=True)
    return found.SerializeToString(deterministic=True)


def session(content: bytes) -> Any:
    """Return an onnxruntime session of a model, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class _Graph:
    """Nodes and constants of a graph that is a chain."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, array: np.ndarray) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its only output."""
        from onnx import helper

        output = f"value.{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [output], **attributes))
        return output


def _scaled(graph: _Graph, network: Network, value: str) -> str:
    """Add what leads from outputs of tanh to actions, in the type in which they are computed."""
    from onnx import helper

    scale = network.scale
    computed = scale.low.dtype
    if computed != np.float32:
        value = graph.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(computed))
    if scale.is_needed:
        bounds = {
            name: graph.constant(name, getattr(scale, name))
            for name in ("middle", "half", "low", "high")
        }
        value = graph.add("Mul", value, bounds["half"])
        value = graph.add("Add", value, bounds["middle"])
        value = graph.add("Max", value, bounds["low"])
        value = graph.add("Min", value, bounds["high"])
    if scale.dtype != computed:
        value = graph.add("Cast", value, to=helper.np_dtype_to_tensor_dtype(scale.dtype))
    return value


def _info(name: str, kind: int, size: int) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, ["N", size])
