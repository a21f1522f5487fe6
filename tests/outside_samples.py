"""What a user adds to dstrl from a folder of his own: the files that the README shows, and scores.

Tests write the files to a temporary folder; the scores below are named `outside_samples:Class`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dstrl_cli.config.models import TopologyConfig
from dstrl_cli.topology.rule import NetworkView, Score
from dstrl_cli.topology.schedules import Schedule

SCORE = '''\
"""Drop the connections whose removal changes the loss least: |w|^power x |gradient|."""

from torch import Tensor

from dstrl_cli.topology.rule import NetworkView, Score, ScoreParams


class SaliencyParams(ScoreParams):
    power: float = 1.0


class Saliency(Score):
    Params = SaliencyParams
    needs_gradient = True

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        return view.weights[layer].abs() ** self.params.power * view.gradients[layer].abs()
'''
"""`saliency.py`"""

METHOD = """\
label: Saliency
extends: rlx2
all:
  topology.drop: saliency:Saliency
  critic.topology.params.power: 0.5
"""
"""`saliency.yaml`"""

TEST = """\
import torch
from saliency import Saliency

from dstrl_cli.config.models import TopologyConfig
from dstrl_cli.topology.rule import NetworkView


def test_a_connection_counts_by_its_weight_and_its_gradient():
    weight = torch.tensor([[[[4.0, -1.0], [0.0, 9.0]]]])  # [members, heads, inputs, outputs]
    gradient = torch.tensor([[[[0.5, 3.0], [7.0, -2.0]]]])
    view = NetworkView(weights=[weight], masks=[weight != 0], gradients=[gradient])
    rule = TopologyConfig(drop="saliency:Saliency", params={"power": 0.5})
    score = Saliency(rule).drop(view, 0, fraction=0.5)
    assert score.tolist() == [[[[1.0, 3.0], [0.0, 6.0]]]]
"""
"""`test_saliency.py`"""


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
