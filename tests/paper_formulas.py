"""Sizes and FLOPs as the papers print them, for the tests of `algos.flops`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from dstrl_cli.algos import flops
from dstrl_cli.registry import algorithm


def forward_flops_eq12(sizes: Sequence[int], sparsities: Sequence[float]) -> float:
    """FLOPs of a forward pass as RLX eq. 12 has it: sum of (1 - S)(2I - 1)O."""
    layers = zip(pairwise(sizes), sparsities, strict=True)
    return sum((1 - sparsity) * (2 * i - 1) * o for (i, o), sparsity in layers)


def sok_size(actor: float, critic: float) -> float:
    """SOK's network size: the actor and two critics, without targets (SOK eq. 10)."""
    return actor + 2 * critic


def sok_train_flops(
    a: float, c: float, *, batch_size: int, iterations: int, policy_delay: int = 2
) -> float:
    """The training FLOPs that SOK print: a forward and a backward pass of each network.

    TD targets and the actor's pass through the critic are not in their number.
    """
    passes = 1 + flops.BACKWARD
    return batch_size * iterations * (passes * 2 * c + passes * a / policy_delay)


def rlx_train_flops(
    algo: str, a: float, c: float, *, batch_size: int, updates: int, policy_delay: int, nstep: int
) -> float:
    """The FLOPs of `updates` training iterations (RLX App. C.3).

    TD3 with a policy delay of 2 costs 2.5 A + 8.5 C a sample, SAC (3 + n) A + 10 C.
    """
    row = algorithm(algo)
    per_sample = flops.flops_per_sample(row, a, c, policy_delay=policy_delay, nstep=nstep)
    return batch_size * updates * per_sample
