"""The environments: what may be trained on, and batches of it.

Importing this package adds dstrl's tasks to Gymnasium's registry (``gymnasium.make(
"dstrl_cli.envs:dstrl/2DNav-v1")`` works in any program) and imports neither torch nor MuJoCo.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dstrl_cli.envs.registration import register_tasks
from dstrl_cli.envs.specs import EnvSpec, make_env, spec

if TYPE_CHECKING:
    import torch

    from dstrl_cli.envs.base import BatchEnv

__all__ = ["EnvSpec", "computed_on_device", "make_batch", "make_env", "spec"]

_GYMNASIUM_BATCH = "dstrl_cli.envs.gymnasium:GymnasiumBatch"
# Environments that are computed on the training device itself.
_DEVICE_BATCHES = {
    "dstrl/2DNav-v1": "dstrl_cli.envs.navigation_batch:NavigationBatch",
    "dstrl/2DNav-v2": "dstrl_cli.envs.navigation_batch:NavigationBatch",
}

register_tasks()


def computed_on_device(spec: EnvSpec) -> bool:
    """Return whether a batch of these environments is computed on the training device itself."""
    return spec.id in _DEVICE_BATCHES


def make_batch(spec: EnvSpec, num_envs: int, device: str | torch.device = "cpu") -> BatchEnv:
    """Make ``num_envs`` environments of one specification whose results lie on ``device``."""
    import torch

    module, _, name = _DEVICE_BATCHES.get(spec.id, _GYMNASIUM_BATCH).partition(":")
    batch: BatchEnv = getattr(importlib.import_module(module), name)(
        spec, num_envs, torch.device(device)
    )
    return batch
