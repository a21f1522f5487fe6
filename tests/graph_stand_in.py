"""A stand-in for a CUDA graph, for tests without an accelerator.

`Recorded` notes every operation of one call with the very tensors that went in and came out. From
then on it executes those operations alone and writes their results into the tensors of the first
time, as a graph does: no Python runs, and no tensor changes its address. It refuses what a graph
would refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dstrl_cli.training.capture import Function

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.item}
SIZED_BY_VALUES = {aten.nonzero, aten.masked_select, aten._unique2, aten.repeat_interleave}
FROM_HOST = {aten.lift_fresh, aten.lift_fresh_copy}
RANDOM = {aten.uniform_, aten.normal_, aten.rand, aten.randn, aten.random_, aten.bernoulli_}
Operation = tuple[Any, Any, Any, Any]
"""What was called, its arguments, and its result."""
FORBIDDEN = READS | SIZED_BY_VALUES | FROM_HOST | RANDOM


class Uncapturable(Exception):
    """A CUDA graph would not take this operation, or would freeze its result."""


class Watch(TorchDispatchMode):
    """Notes every operation with its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        by_value = packet in (aten.index, aten.index_put, aten.index_put_) and any(
            index.dtype == torch.bool for index in tree_leaves(args[1]) if index is not None
        )
        if packet in FORBIDDEN or by_value or any(tensor.is_meta for tensor in tensors):
            raise Uncapturable(str(func))
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result


def replay(operations: Sequence[Operation]) -> None:
    """Execute operations alone, their results written to where they went the first time."""
    for operation, args, kwargs, first in operations:
        again = operation(*args, **kwargs)
        for old, new in zip(tree_leaves(first), tree_leaves(again), strict=True):
            if old.data_ptr() != new.data_ptr():  # in place and views are there already
                old.copy_(new)


class Recorded:
    """A function that is replayed as a CUDA graph would be: see the head of this file."""

    def __init__(self, function: Function) -> None:
        self.function, self.watch = function, Watch()
        self.calls, self.replays = 0, 0
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: Any = None

    def __call__(self, *arguments: Tensor) -> Any:
        self.calls += 1
        if self.calls == 1:
            return self.function(*arguments)
        if self.calls == 2:
            self.inputs = tuple(argument.clone() for argument in arguments)
            # a tensor made without naming a device would lie on the host: let it stand out
            with torch.device("meta"), self.watch:
                self.outputs = self.function(*self.inputs)
            return self.outputs
        self.replays += 1
        for static, argument in zip(self.inputs, arguments, strict=True):
            static.copy_(argument)
        replay(self.watch.operations)
        return self.outputs


class Recordings:
    """A `Capture` that keeps what it made."""

    def __init__(self) -> None:
        self.made: list[Recorded] = []

    def __call__(self, function: Function) -> Function:
        self.made.append(Recorded(function))
        return self.made[-1]


def eager(function: Function) -> Function:
    return function
