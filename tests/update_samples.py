"""Whole updates of networks and of algorithms, one after the other and without capture."""

from __future__ import annotations

import torch
from torch import Tensor

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.nets.network import Network
from dstrl_cli.replay.batch import Batch


def finish_update(
    network: Network, alive: Tensor | None = None, td_error: Tensor | None = None, rows: int = 1
) -> None:
    """Take the update of a network that follows `backward`, of all members unless `alive` says."""
    everyone = torch.ones(network.plan.members, dtype=torch.bool)
    network.begin_update()
    network.apply_update(everyone if alive is None else alive, td_error, rows)


def take_update(algorithm: Algorithm, batch: Batch) -> None:
    """Take an update of an algorithm on one batch per member."""
    due = algorithm.begin_update()
    algorithm.train_step(batch, algorithm.noise(len(batch.path)), due)
