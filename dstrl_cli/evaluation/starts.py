"""The start states of evaluation: the same ones during training and in `dstrl eval`.

A run evaluates every time from the starts that follow from its own seed. Imports no torch.
"""

from __future__ import annotations

from dstrl_cli.streams import derived_seed


def start_seeds(seed: int, episodes: int) -> list[int]:
    """Return the seed with which the environment of each evaluation episode is reset.

    The first of them do not depend on how many episodes there are.

    Args:
        seed: the seed of the run.
        episodes: how many episodes one evaluation has.
    """
    return [derived_seed(seed, "evaluation", episode) % 2**31 for episode in range(episodes)]
