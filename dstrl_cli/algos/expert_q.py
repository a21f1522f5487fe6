"""TD3 and SAC whose critics learn a trained critic's values instead of TD targets (RLX Fig. 2).

RLX call it TE+Q*: "replacing TD targets with expert Q-values, i.e., Q-values from a fully trained
expert critic with a dense network". The target of a stored pair (s, a) is the smaller of the
expert's values of that very pair; rewards, n-step and the run's own targets have no part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from typing_extensions import override

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.algos.sac import SAC
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.nets.frozen import FrozenNetworks
from dstrl_cli.replay.batch import Batch


def expert_critics(algorithm: Algorithm) -> FrozenNetworks:
    """Return the critics that the members' `expert_q` names."""
    names = algorithm.critic.plan.head_names
    return FrozenNetworks.of(algorithm.configs, "expert_q", names, 1, algorithm.device)


def smaller_value(critics: FrozenNetworks, batch: Batch) -> Tensor:
    """Return the smaller of the critics' values of the batch's states and actions [P, B]."""
    return critics(batch.state_action).squeeze(-1).amin(1)


class ExpertTD3(TD3):
    """TD3 with the expert's values as targets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expert = expert_critics(self)

    @override
    def td_target(self, batch: Batch, smoothing: Tensor) -> Tensor:
        """Return the expert's values [P, B]."""
        return smaller_value(self.expert, batch)


class ExpertSAC(SAC):
    """SAC with the expert's values, which hold the entropy of its own policy, as targets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expert = expert_critics(self)

    @override
    def soft_target(self, batch: Batch, noise: Sequence[Tensor]) -> Tensor:
        """Return the expert's values [P, B]."""
        return smaller_value(self.expert, batch)
