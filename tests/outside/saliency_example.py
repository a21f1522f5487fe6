"""A score |w x gradient|, as a user would write it: drop what changes the loss least."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dstrl_cli.topology.rule import NetworkView, Score


class Saliency(Score):
    """|w g| for dropping and |g| for growing, raised to a power of the user's."""

    needs_gradient = True

    class Params(BaseModel):
        """Keys below `topology.params`."""

        model_config = ConfigDict(frozen=True, extra="forbid")
        power: float = Field(default=1.0, gt=0)

    def drop(self, view: NetworkView, layer: int, fraction: float) -> Tensor:
        """Return |w g|^power [M, K, in, out]."""
        assert view.gradients is not None
        return (view.weights[layer] * view.gradients[layer]).abs() ** self.params.power

    def grow(self, view: NetworkView, layer: int) -> Tensor:
        """Return |g| [M, K, in, out]."""
        assert view.gradients is not None
        return view.gradients[layer].abs()
