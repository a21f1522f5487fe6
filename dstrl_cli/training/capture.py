"""Replaying functions on an accelerator: CUDA graphs; elsewhere a function is what it was.

A single agent's update is bound by the launches of its kernels, which a graph replays as one. What
may be captured is a function of tensors that consists of torch operations alone: it reads nothing
back to the host, decides nothing by a tensor's value, makes no tensor of host data, and changes
state only in place. Tensors that it finds anywhere but in its arguments must stay at their
addresses for good; between replays they may be changed in place by whom it pleases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

Capture = Callable[[Function], Function]
"""From a function of tensors to one that does the same."""

WARM_UP_CALLS = 2
"""Calls before the capture: libraries choose kernels and make their handles in the first ones."""


def capture(function: Function, *, device: str, compiled: bool = False) -> Function:
    """Return `function`, which the rules above allow, as one that is replayed on an accelerator.

    There its arguments must keep their shapes from call to call, and the tensors that it returns
    are valid until the next call. Every call does the function's work once: the first ones, which
    warm up, run it as it is. With `compiled`, torch.compile fuses its operations, on any device.
    """
    if compiled:
        function = torch.compile(function)
    return Graph(function, device) if torch.device(device).type == "cuda" else function


class Graph:
    """One function as one CUDA graph, captured at the first call after the warm-up."""

    def __init__(self, function: Function, device: str) -> None:
        self.function, self.device = function, torch.device(device)
        self.stream = torch.cuda.Stream(self.device)
        self.warm_up_calls = WARM_UP_CALLS
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: Any = None

    def __call__(self, *arguments: Tensor) -> Any:
        """Do the function's work once, in the order of the current stream."""
        self.take(arguments)
        if self.warm_up_calls:
            self.warm_up_calls -= 1
            return self.run_beside()
        if self.graph is None:
            self.graph = self.captured()
        self.graph.replay()
        return self.outputs

    def take(self, arguments: tuple[Tensor, ...]) -> None:
        """Copy the arguments to where the function reads them, from the first warm-up on.

        Packed: what warms up is then what is captured, whatever the strides of the arguments.
        """
        if not self.inputs:
            packed = torch.contiguous_format
            self.inputs = tuple(each.clone(memory_format=packed) for each in arguments)
            return
        for static, argument in zip(self.inputs, arguments, strict=True):
            static.copy_(argument)

    def run_beside(self) -> Any:
        """Run the function on the stream of the capture, between two waits."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self.function(*self.inputs)
        current.wait_stream(self.stream)
        return outputs

    def captured(self) -> torch.cuda.CUDAGraph:
        """Record the function; the recording does no work itself.

        Only this thread's calls are watched: others may copy meanwhile.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            self.outputs = self.function(*self.inputs)
        return graph
