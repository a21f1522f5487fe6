"""The environments: what may be trained on, and batches of it.

Importing this package adds dstrl's tasks to Gymnasium's registry (``gymnasium.make(
"dstrl_cli.envs:dstrl/2DNav-v1")`` works in any program) and imports neither torch nor MuJoCo.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dstrl_cli.envs.registration import register_tasks
from dstrl_cli.envs.specs import EnvSpec, make_env, spec

if TYPE_CHECKING:
    import torch

    from dstrl_cli.envs.base import BatchEnv

__all__ = ["EnvSpec", "computed_on_device", "make_batch", "make_batches", "make_env", "spec"]

# Environments that are computed on the training device itself.
_DEVICE_BATCHES = {
    "dstrl/2DNav-v1": "dstrl_cli.envs.tasks.navigation_batch:NavigationBatch",
    "dstrl/2DNav-v2": "dstrl_cli.envs.tasks.navigation_batch:NavigationBatch",
}

register_tasks()


def computed_on_device(spec: EnvSpec) -> bool:
    """Return whether a batch of these environments is computed on the training device itself."""
    return spec.id in _DEVICE_BATCHES


def make_batch(
    spec: EnvSpec,
    num_envs: int,
    device: str | torch.device = "cpu",
    workers: int | Literal["auto"] = 0,
) -> BatchEnv:
    """Make ``num_envs`` environments of one specification whose results lie on ``device``.

    Args:
        spec: the environment.
        num_envs: how many.
        device: where observations and rewards are needed.
        workers: processes that step them; 0: this one; ``auto``: see ``workers.worker_count``.
            Environments that are computed on the device need none.

    Raises:
        DstrlError: a worker cannot make the environment.
    """
    return make_batches(spec, [num_envs], device, workers)[0]


def make_batches(
    spec: EnvSpec,
    counts: Sequence[int],
    device: str | torch.device = "cpu",
    workers: int | Literal["auto"] = 0,
) -> list[BatchEnv]:
    """Make one batch per entry of ``counts``, all in the same worker processes.

    A process sleeps while none of its batches is stepped; the processes end when all are closed.
    See ``make_batch`` for the rest.
    """
    import torch

    where = torch.device(device)
    if spec.id in _DEVICE_BATCHES:
        module, _, name = _DEVICE_BATCHES[spec.id].partition(":")
        make = getattr(importlib.import_module(module), name)
        return [make(spec, count, where) for count in counts]

    from dstrl_cli.envs.gymnasium import GymnasiumBatch
    from dstrl_cli.envs.workers.pool import WorkerPool, worker_count
    from dstrl_cli.machine import cores

    processes = [worker_count(workers, count, where.type, cores()) for count in counts]
    hosted = [count for count, number in zip(counts, processes, strict=True) if number]
    groups = iter(WorkerPool(spec, hosted, max(processes)).groups if hosted else ())
    return [
        GymnasiumBatch(spec, count, where, next(groups) if number else None)
        for count, number in zip(counts, processes, strict=True)
    ]
