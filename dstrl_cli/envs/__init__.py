"""The environments: what may be trained on, and batches of it.

Importing this package adds dstrl's tasks to Gymnasium's registry (`gymnasium.make(
"dstrl_cli.envs:dstrl/2DNav-v1")` works in any program) and imports neither torch nor MuJoCo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from dstrl_cli.envs.calls import seed_globals
from dstrl_cli.envs.registration import DEVICE_BATCHES, register_tasks
from dstrl_cli.envs.specs import EnvSpec, known_envs, make_env, spec
from dstrl_cli.envs.watch import Hung, say
from dstrl_cli.registry import load

if TYPE_CHECKING:
    import torch

    from dstrl_cli.envs.base import BatchEnv

__all__ = [
    "EnvSpec",
    "computed_on_device",
    "known_envs",
    "make_batch",
    "make_batches",
    "make_env",
    "spec",
]

register_tasks()


def computed_on_device(spec: EnvSpec) -> bool:
    """Return whether a batch of these environments is computed on the training device itself."""
    return spec.id in DEVICE_BATCHES and not spec.noise_features


def make_batch(
    spec: EnvSpec,
    num_envs: int,
    device: str | torch.device = "cpu",
    workers: int | Literal["auto"] = 0,
) -> BatchEnv:
    """Make `num_envs` environments of one specification.

    Args:
        spec: the environment.
        num_envs: how many.
        device: where observations and rewards are put.
        workers: processes that step the environments. 0: this process does; `auto`: see
            `workers.pool.worker_count`. Environments computed on the device use none.

    Raises:
        DstrlError: a worker cannot make the environment.
    """
    return make_batches(spec, [num_envs], device, workers)[0]


def make_batches(
    spec: EnvSpec,
    counts: Sequence[int],
    device: str | torch.device = "cpu",
    workers: int | Literal["auto"] = 0,
    hung: Hung = say,
    global_seed: int | None = None,
) -> list[BatchEnv]:
    """Make one batch of each size in `counts`, all stepped by the same worker processes.

    The processes sleep while no batch is stepped, and end when all batches are closed.

    Args:
        spec, device, workers: see `make_batch`.
        counts: the size of each batch.
        hung: is told of an environment that hangs in this process, before that process ends.
        global_seed: for the generators of Python and NumPy, here and in workers
            (`calls.seed_globals`); None leaves them as they are.
    """
    import torch

    seed_globals(global_seed)
    where = torch.device(device)
    if computed_on_device(spec):
        make = load(DEVICE_BATCHES, spec.id)
        return [make(spec, count, where) for count in counts]

    from dstrl_cli.envs.gymnasium import GymnasiumBatch
    from dstrl_cli.envs.workers.pool import WorkerPool, worker_count
    from dstrl_cli.machine import cores

    processes = [worker_count(workers, count, where.type, cores()) for count in counts]
    hosted = [count for count, number in zip(counts, processes, strict=True) if number]
    pool = WorkerPool(spec, hosted, max(processes), global_seed) if hosted else None
    groups = iter(pool.groups if pool else ())
    return [
        GymnasiumBatch(spec, count, where, next(groups) if number else None, hung)
        for count, number in zip(counts, processes, strict=True)
    ]
