"""n-step returns: their sum, and n of each member, which may change during a run (RLX Alg. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dstrl_cli.config.models import RunConfig
from dstrl_cli.shapes import check


class NStepReturn(NamedTuple):
    """The return of m <= n steps from each start; the attributes mean what they do in `Batch`."""

    reward: Tensor  # [P, B]
    discount: Tensor  # [P, B]
    last: Tensor  # [P, B] int64
    path_discount: Tensor  # [P, B, n]


def nstep_return(
    reward: Tensor,
    not_terminated: Tensor,
    not_done: Tensor,
    nstep: Tensor,
    gamma: float,
    discounts: Tensor,
) -> NStepReturn:
    """Return the n-step return without its bootstrap: sum over k < m of gamma^k r_k (RLX Alg. 3).

    m is n, or fewer where the episode ends before.

    Args:
        reward: rewards of the n steps from each start [P, B, n], n the largest of all members.
        not_terminated: 1 unless the episode terminated at the step, else 0 [P, B, n].
        not_done: 1 unless it terminated or was truncated there, else 0 [P, B, n].
        nstep: n of each member [P, 1], integer, at least 1.
        gamma: discount factor.
        discounts: gamma^k [n].

    Raises ValueError where an argument has another rank, TypeError where it has another type.
    """
    check("reward", reward, "P B n")
    check("not_terminated", not_terminated, "P B n", like=reward)
    check("not_done", not_done, "P B n", like=reward)
    check("nstep", nstep, "P 1", torch.int64)
    check("discounts", discounts, "n")
    step = torch.arange(reward.shape[-1], device=reward.device)
    within = (step < nstep.unsqueeze(-1)).to(reward.dtype).expand_as(reward)
    before = torch.cat((torch.ones_like(not_terminated[..., :1]), not_done[..., :-1]), dim=-1)
    taken = within * before.cumprod(-1)  # 1 where step k was taken
    weight = discounts * taken
    path_discount = gamma * weight * not_terminated
    last = taken.sum(-1, keepdim=True).long() - 1
    return NStepReturn(
        reward=(weight * reward).sum(-1),
        discount=path_discount.gather(-1, last).squeeze(-1),
        last=last.squeeze(-1),
        path_discount=path_discount,
    )


class NSteps:
    """n of each member at each critic update: 1 until update T_0, then the member's `nstep`.

    Attributes:
        tensor: n of each member now [P, 1]; its address is fixed.
        values, max_nstep: the same as a list, and the largest of them.
    """

    def __init__(self, configs: Sequence[RunConfig], device: str) -> None:
        self.configs = configs
        self.changes = {config.nstep_delay for config in configs}
        self.nstep = torch.tensor([[c.nstep] for c in configs], device=device)  # [P, 1]
        self.delay = torch.tensor([[c.nstep_delay] for c in configs], device=device)  # T_0 [P, 1]
        self.tensor = torch.ones_like(self.nstep)
        self.set(1)

    def set(self, update: int) -> None:
        """Set n of each member to its value at `update` (from 1)."""
        self.values = [c.nstep if update >= c.nstep_delay else 1 for c in self.configs]
        self.tensor.copy_(torch.where(self.delay <= update, self.nstep, 1))
        self.max_nstep = max(self.values)

    def at(self, update: int) -> tuple[Tensor, int]:
        """Return n of each member [P, 1] and the largest at `update` (from 1)."""
        if update in self.changes:
            self.set(update)
        return self.tensor, self.max_nstep
