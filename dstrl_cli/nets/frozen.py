"""Networks of trained runs that only compute: the policy or the critics that members learn from.

They are stored with a run, not trained, not counted and not in its checkpoints: what they were is
fixed by the checksum in the member's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.config.models import RunConfig
from dstrl_cli.runs import starting

Layers = list[tuple[Tensor, Tensor]]
"""(weight [K, in, out], bias [K, 1, out]) per layer."""


class _Group(NamedTuple):
    """The members that have the same networks, and these."""

    members: Tensor
    layers: Layers


class FrozenNetworks:
    """A network of K heads from a policy file, for each of P members.

    Args:
        files: what the member's policy file holds, by a name of it; members may share one.
        heads: the names of the networks in the files: actor; critic1, critic2.
        outputs: how many outputs count (the policy file of SAC has means and log stds).
        device: torch device.
    """

    def __init__(
        self,
        files: Sequence[tuple[str, Mapping[str, NDArray[Any]]]],
        heads: Sequence[str],
        outputs: int,
        device: str,
    ) -> None:
        self.heads, self.outputs = len(heads), outputs
        names = [name for name, _ in files]
        self.groups = [
            _Group(
                torch.tensor([m for m, each in enumerate(names) if each == name], device=device),
                _layers(dict(files)[name], heads, device),
            )
            for name in dict.fromkeys(names)
        ]

    @classmethod
    def of(
        cls,
        configs: Sequence[RunConfig],
        what: str,
        heads: Sequence[str],
        outputs: int,
        device: str,
    ) -> FrozenNetworks:
        """Return the networks that the members take as `what` (`config.starts`) from others."""
        files = []
        for config in configs:
            start = starting.find(config, what)
            assert start is not None  # seen when the run was planned
            files.append((start.source, start.tensors))
        return cls(files, heads, outputs, device)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs [P, K, B, out] for inputs [P, B, in]."""
        if len(self.groups) == 1:
            return self._output(x, self.groups[0].layers)
        found = x.new_empty(len(x), self.heads, x.shape[1], self.outputs)
        for members, layers in self.groups:
            found.index_copy_(0, members, self._output(x.index_select(0, members), layers))
        return found

    def _output(self, x: Tensor, layers: Layers) -> Tensor:
        hidden = x.unsqueeze(1)  # [M, 1, B, in]
        for number, (weight, bias) in enumerate(layers):
            hidden = torch.matmul(hidden, weight).add_(bias)  # [M, K, B, out]
            if number + 1 < len(layers):
                hidden.relu_()
        return hidden[..., : self.outputs]


def _layers(tensors: Mapping[str, NDArray[Any]], heads: Sequence[str], device: str) -> Layers:
    """Return the layers of the heads, inactive connections zero as they were stored."""

    def stacked(kind: str, layer: int) -> Tensor:
        parts = [torch.from_numpy(tensors[f"{head}.{kind}.{layer}"]) for head in heads]
        return torch.stack(parts).float().to(device)

    layers = takewhile(lambda layer: f"{heads[0]}.weight.{layer}" in tensors, count())
    return [(stacked("weight", n), stacked("bias", n).unsqueeze(1)) for n in layers]
