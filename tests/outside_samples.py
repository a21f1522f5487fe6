"""What a user adds to dstrl from a folder of his own: the files that the README shows, and scores.

Tests write the files to a temporary folder; the scores below are named `outside_samples:Class`.
"""

from __future__ import annotations

from typing import Any

import torch
from readme_samples import code_after
from torch import Tensor

from dstrl_cli.config.rulekeys import TopologyConfig
from dstrl_cli.topology.rule import NetworkView, Score
from dstrl_cli.topology.schedules import Schedule

SCORE = code_after("score-example")  # saliency.py
METHOD = code_after("score-method-example")  # saliency.yaml
TEST = code_after("score-test-example")  # test_saliency.py


class Watcher(Score):
    """Drops by magnitude and keeps every view that it was given."""

    observes_updates = True
    observes_gradients = True
    observes_moments = True

    def __init__(self, config: TopologyConfig) -> None:
        super().__init__(config)
        self.observed: list[NetworkView] = []
        self.prepared: list[NetworkView] = []

    def observe(self, view: NetworkView) -> None:
        self.observed.append(view)

    def prepare(self, view: NetworkView) -> None:
        self.prepared.append(view)

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        return view.weights[layer].abs()


class Steady(Score):
    """Drops where Adam's second moment is smallest; looks at topology updates only."""

    observes_moments = True
    seen: list[NetworkView]

    def __init__(self, config: TopologyConfig) -> None:
        super().__init__(config)
        self.seen = []

    def prepare(self, view: NetworkView) -> None:
        self.seen.append(view)

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        assert view.moments is not None
        return view.moments[layer][1]


class OfCritics(Score):
    """Grows at random, but says that it reads the TD error."""

    needs_td_error = True

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        assert view.uniform is not None
        return view.uniform(layer)


class Early(Schedule):
    """The whole fraction in the first half of a run, and then none."""

    def fraction(self, progress: float) -> float:
        return self.drop_fraction if progress < 0.5 else 0.0


def not_a_score(config: Any) -> None:
    """A function where a class is needed."""


class Hoarder(Score):
    """Drops by magnitude, smoothed over all updates, and keeps something of every kind."""

    observes_updates = True

    def __init__(self, config: TopologyConfig) -> None:
        super().__init__(config)
        self.magnitude = Tensor.abs  # code, no state
        self.smooth: list[Tensor] = []
        self.seen = 0
        self.kept: dict[Any, Any] = {"pairs": (1, 0.5, None), 3: ["a", True], "empty": {}}

    def observe(self, view: NetworkView) -> None:
        self.seen += 1
        now = [self.magnitude(weight) for weight in view.weights]
        before = self.smooth or now
        self.smooth = [0.9 * old + 0.1 * new for old, new in zip(before, now, strict=True)]
        total = self.kept.get("total", 0.0) + self.smooth[0].sum((1, 2, 3))  # [M]
        self.kept |= {"total": total, "layers": (torch.arange(7), {"deep": [total / 2]})}

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        return self.smooth[layer] * view.masks[layer]
