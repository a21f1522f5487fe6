"""Capturing functions on an accelerator as CUDA graphs; on the CPU a function stays as it is.

Launching the many small kernels of an update one by one takes longer than running them; a graph
launches them all at once. A function may be captured if it consists of torch operations alone: it
reads nothing back to the host, does not branch on a tensor's value, makes no tensor from host data,
and changes state only in place. Tensors that it uses besides its arguments must keep their
addresses for as long as the graph lives; their contents may change in place between two replays.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

Capture = Callable[[Function], Function]
"""From a function of tensors to one that does the same, perhaps captured."""

WARM_UP_CALLS = 2
"""Calls before the capture: libraries choose kernels and make their handles in the first ones."""


def capture(function: Function, *, device: str, compiled: bool = False) -> Function:
    """Return `function`, captured at its first calls if `device` is an accelerator.

    Its arguments must keep their shapes from call to call, and the tensors that a captured function
    returns are valid until the next call. Every call does the function's work once; the first
    `WARM_UP_CALLS` run it without a graph. With `compiled`, torch.compile fuses its operations, on
    any device.
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
        self.copy_to_inputs(arguments)
        if self.warm_up_calls:
            self.warm_up_calls -= 1
            return self.run_on_side_stream()
        if self.graph is None:
            self.graph = self.captured()
        self.graph.replay()
        return self.outputs

    def copy_to_inputs(self, arguments: tuple[Tensor, ...]) -> None:
        """Copy the arguments to the tensors from which the function reads them.

        Those are made at the first warm-up call, contiguous: so the warm-up calls see the layout
        that is captured, whatever the strides of the arguments.
        """
        if not self.inputs:
            packed = torch.contiguous_format
            self.inputs = tuple(each.clone(memory_format=packed) for each in arguments)
            return
        for static, argument in zip(self.inputs, arguments, strict=True):
            static.copy_(argument)

    def run_on_side_stream(self) -> Any:
        """Run the function on the stream of the capture, in order with the current stream."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            outputs = self.function(*self.inputs)
        current.wait_stream(self.stream)
        return outputs

    def captured(self) -> torch.cuda.CUDAGraph:
        """Return the recorded function; recording does none of its work.

        Only this thread's calls are checked: other threads may copy between devices meanwhile. No
        garbage is collected while recording: a graph that dies then would break the recording.
        """
        graph = torch.cuda.CUDAGraph()
        gc.collect()
        collecting = gc.isenabled()
        gc.disable()
        try:
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                self.outputs = self.function(*self.inputs)
        finally:
            if collecting:
                gc.enable()
        return graph
