"""The neurons of every member at its evaluations: the rows of `neurons.csv`, and a warning.

The networks are run on a batch of stored observations and actions, drawn from a stream of its own:
nothing else in a run depends on it, and a resumed run draws the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli import streams
from dstrl_cli.algos.base import Algorithm
from dstrl_cli.nets.neurons import (
    Wiring,
    activity,
    effective_rank,
    layer_outputs,
    saturated_share,
    wiring,
)
from dstrl_cli.replay.base import Replay

ROWS = 256
"""Stored transitions that the networks are run on."""

TOO_SATURATED = 0.9
"""A larger share of saturated actions, at two evaluations in a row, is told."""

WARNING = (
    "{:.0%} of the actor's actions are saturated (beyond 0.99 of the way to a bound) at two "
    "evaluations in a row: it hardly learns any more. Large observations that are not scaled, such "
    "as positions in pixels, are a frequent cause; scale them in a wrapper of the environment"
)


def stored_inputs(
    replay: Replay, seeds: Sequence[int], step: int, stream: str = "neurons"
) -> Tensor | None:
    """Return stored observations and actions [P, ROWS, obs + act], on the host.

    Which ones follows from the seeds, the step and the stream. None where nothing is stored yet.
    """
    if not int(replay.size.min()):
        return None
    drawn = [
        torch.rand(ROWS, generator=streams.generator(seed, stream, step), dtype=torch.float64)
        for seed in seeds
    ]
    return replay.inputs(torch.stack(drawn).to(replay.device)).cpu()


class Saturation(NamedTuple):
    """Whether a member's actions were saturated at its last evaluation, and whether it was told."""

    before: bool = False
    told: bool = False


class NeuronWatch:
    """Watches the networks of a population; `saturated` says of each member how its actions are."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.configs = algorithm.configs
        self.networks = [network.plan for network in (algorithm.actor, algorithm.critic)]
        self.action_size = algorithm.action_size
        self.saturated = [Saturation()] * len(algorithm.configs)

    def rows(
        self, member: int, step: int, tensors: Mapping[str, NDArray[Any]], inputs: Tensor | None
    ) -> list[dict[str, Any]]:
        """Return a member's rows of `neurons.csv`: one for each network and layer.

        Args:
            member: its index.
            step: environment steps so far.
            tensors: its networks, as a policy file holds them.
            inputs: observations and actions [ROWS, obs + act]; None leaves cells empty.
        """
        threshold = self.configs[member].dormant_threshold
        found = []
        for plan in self.networks:
            own = None if inputs is None else inputs[:, : plan.sizes[0]]  # the actor: no actions
            for name in plan.head_names:
                weights, biases, masks = (
                    [
                        torch.from_numpy(tensors[f"{name}.{kind}.{layer}"])
                        for layer in range(len(plan.shapes))
                    ]
                    for kind in ("weight", "bias", "mask")
                )
                cells = [self.wiring_cells(each) for each in wiring(masks)]
                outputs = [] if own is None else layer_outputs(weights, biases, own)
                if outputs and all(bool(each.isfinite().all()) for each in outputs):
                    self.add_activity(cells, outputs, threshold)
                    if plan.role == "actor":
                        actions = outputs[-1][:, : self.action_size].tanh()
                        cells[-1]["saturated"] = saturated_share(actions)
                found += [
                    {"step": step, "network": name, "layer": layer, **each}
                    for layer, each in enumerate(cells)
                ]
        return found

    @staticmethod
    def wiring_cells(found: Wiring) -> dict[str, Any]:
        """Return the cells of a layer that follow from its masks."""
        paths = int(found.paths) if math.isfinite(found.paths) else found.paths
        return {**vars(found), "paths": paths}

    @staticmethod
    def add_activity(
        cells: Sequence[dict[str, Any]], outputs: Sequence[Tensor], threshold: float
    ) -> None:
        """Add the cells of the hidden layers that follow from what the network puts out."""
        hidden = outputs[:-1]
        for cell, units in zip(cells, hidden, strict=False):
            cell["dormant"] = float((activity(units) <= threshold).double().mean())
        if hidden:
            cells[len(hidden) - 1]["rank"] = effective_rank(hidden[-1])

    def warning(self, member: int, rows: Sequence[Mapping[str, Any]]) -> str | None:
        """Return what the user should read after a member's evaluation, once in a run."""
        share = next((row["saturated"] for row in rows if "saturated" in row), 0.0)
        before, told = self.saturated[member]
        now = share > TOO_SATURATED
        due = before and now and not told
        self.saturated[member] = Saturation(now, told or due)
        return WARNING.format(share) if due else None
