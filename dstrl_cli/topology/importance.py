"""Drop and grow the connections of critics by the importance of their neurons (XU eqs. 2-10).

A neuron gathers importance from the batch's TD error and from the strength of its connections:
incoming ones for hidden and output neurons, outgoing ones for input neurons. A connection is
dropped by its magnitude times its neuron's importance, and grown by the importance of the two
neurons that it would join. The sums start at zero and are never reset; `importance_decay`, which is
not XU's, lets what was added before fade.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.shapes import check
from dstrl_cli.topology.rule import NetworkView, Score

TD_ERROR = {
    "sum": lambda view: view.td_error,
    "mean": lambda view: view.td_error / view.batch_size,
    "off": lambda view: torch.zeros_like(view.td_error),
}
"""How the batch's |TD| (eq. 3) enters the importance of a neuron; XU prints the sum."""


def neuron_importance(of_neurons: Sequence[Tensor], td_error: Tensor) -> list[Tensor]:
    """Return one update's increment of importance per neuron layer, [M, K, n_0] to [M, K, n_L].

    Args:
        of_neurons: their strengths, [M, K, n_0] to [M, K, n_L].
        td_error: [M, K].

    Eq. (5) for input neurons, eqs. (6) and (4) for hidden and output neurons.
    """
    check("td_error", td_error, "M K")
    return [(td_error.unsqueeze(-1) + strength) / 2 for strength in of_neurons]


def strengths(weights: Sequence[Tensor]) -> list[Tensor]:
    """Return the sums of |weight| of every neuron, [M, K, n_0] to [M, K, n_L].

    Those of input neurons are over outgoing, all others over incoming connections; the first hidden
    layer follows the same rule as the others. Sums are in float64: |TD| is the same for all neurons
    and can be millions of times their strengths, whose differences alone decide growth.

    Args:
        weights: [M, K, in, out] per layer, zero where inactive.
    """
    for weight in weights:
        check("weight", weight, "M K in out")
    outgoing = weights[0].abs().sum(-1, dtype=torch.float64)
    return [outgoing, *(weight.abs().sum(-2, dtype=torch.float64) for weight in weights)]


def drop_score(weight: Tensor, before: Tensor, after: Tensor, layer: int) -> Tensor:
    """Return |w| S (eq. 7) [M, K, in, out]: S before the first layer, else S after the layer."""
    check("weight", weight, "M K in out")
    check("before", before, "M K in")
    check("after", after, "M K out")
    strength = weight.abs()
    return strength * before.unsqueeze(-1) if layer == 0 else strength * after.unsqueeze(-2)


def grow_score(before: Tensor, after: Tensor) -> Tensor:
    """Return S_i + S_{i-1} (eq. 8) [M, K, in, out] of the two neurons that a connection joins."""
    check("before", before, "M K in")
    check("after", after, "M K out")
    return before.unsqueeze(-1) + after.unsqueeze(-2)


class Importance(Score):
    """XU's score for dropping (eq. 7) and growing (eq. 8) connections of critics.

    The key `accumulate` says whether importance is added up at topology updates or at every update
    of the critics, and `td_error` whether |TD| enters as the batch's sum, its mean, or not at all.
    """

    needs_td_error = True
    observes_weights = False

    def __init__(self, config: TopologyConfig) -> None:
        super().__init__(config)
        self.observes_updates = config.accumulate == "critic_update"
        self.importance: list[Tensor] | None = None

    def observe(self, view: NetworkView) -> None:
        """Accumulate this update."""
        self.accumulate(view)

    def prepare(self, view: NetworkView) -> None:
        """Accumulate this topology update, unless it was observed like every other."""
        if not self.observes_updates:
            self.accumulate(view)

    def accumulate(self, view: NetworkView) -> None:
        """Add the increment of eqs. (4)-(6) to every neuron's importance."""
        td_error = TD_ERROR[self.config.td_error](view)
        increment = neuron_importance(view.strengths or strengths(view.weights), td_error)
        sums = self.importance or [torch.zeros_like(item) for item in increment]
        kept = self.config.importance_decay
        self.importance = [kept * total + item for total, item in zip(sums, increment, strict=True)]

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return |w| S [M, K, in, out]."""
        before, after = self.neurons(layer)
        return drop_score(view.weights[layer], before, after, layer)

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return S_i + S_{i-1} [M, K, in, out]."""
        return grow_score(*self.neurons(layer))

    def neurons(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return the importance of the neurons before [M, K, in] and after [M, K, out] a layer."""
        assert self.importance is not None
        return self.importance[layer], self.importance[layer + 1]
