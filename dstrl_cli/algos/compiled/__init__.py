"""The updates of TD3 and SAC on the sparse engine, each as one call of compiled code.

`algos.td3` and `algos.sac` say what an update is; the files here say the same, function by function
under the same names, in loops over tiles of the batch. Tests hold both against each other. Both
work on the same arrays, so that a run may take each of its updates in either way: those in which a
topology rule takes part are taken by the algorithms themselves.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.replay.base import Replay
from dstrl_cli.streams import Stream

if TYPE_CHECKING:
    from dstrl_cli.algos.compiled.update import CompiledUpdate
    from dstrl_cli.config.models import RunConfig
    from dstrl_cli.nets.sparse.partner import Partner


def compiled_update(
    algorithm: Algorithm, replay: Replay, sampling: Stream
) -> CompiledUpdate | None:
    """Return what takes an algorithm's updates by compiled code, or None where nothing does.

    An algorithm names it in its row. It serves that very class: one that is derived from it may
    have another update.

    Args:
        algorithm: networks and what is counted.
        replay: the buffer to sample from.
        sampling: the stream that chooses batches.
    """
    if algorithm.engine != "sparse" or not algorithm.row.compiled:
        return None
    module, name = algorithm.row.compiled.split(":")
    kind: type[CompiledUpdate] = getattr(importlib.import_module(module), name)
    if type(algorithm) is not kind.ALGORITHM or not kind.samples_from(replay):
        return None
    return kind(algorithm, replay, sampling, partner_for(algorithm.config))


def partner_for(config: RunConfig) -> Partner | None:
    """Return a second thread for compiled updates, or None where a run may have only one."""
    if config.thread_count < 2:
        return None
    from dstrl_cli.nets.sparse.partner import Partner

    return Partner()
