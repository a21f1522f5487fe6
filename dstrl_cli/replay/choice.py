"""Which layout a population's replay buffer has, and where it is kept.

torch is imported only when a buffer is made.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dstrl_cli.config.models import RunConfig
from dstrl_cli.errors import InputError
from dstrl_cli.registry import load
from dstrl_cli.replay.layout import keeps_policy_actions, ring_bytes

if TYPE_CHECKING:
    from dstrl_cli.envs import EnvSpec
    from dstrl_cli.replay.base import Replay

LAYOUTS = {
    "paired": "dstrl_cli.replay.paired:PairedReplay",
    "once": "dstrl_cli.replay.once:OnceReplay",
    "compiled": "dstrl_cli.replay.compiled:CompiledReplay",
}


def is_on_host(config: RunConfig, device: str) -> bool:
    """Return whether the buffer stays in main memory while the networks are on an accelerator."""
    return device != "cpu" and config.replay_device == "cpu"


def layout(device: str, time_limit: int | None, engine: str) -> str:
    """Return the layout of a buffer on `device`.

    The sparse engine's loops are compiled, and so are those of its buffer, which stores each
    observation once. On an accelerator memory is scarce: there torch operations do so as well, if a
    time limit bounds how many episodes are truncated.
    """
    if engine == "sparse":
        return "compiled"
    return "paired" if device == "cpu" or time_limit is None else "once"


def counted_limit(device: str, time_limit: int | None, engine: str) -> int | None:
    """Return the `time_limit` that `ring_bytes` takes: None where observations are stored twice.

    The arguments are those of `layout`. Without a time limit episodes are counted as endless.
    """
    twice = layout(device, time_limit, engine) == "paired"
    return None if twice else time_limit or sys.maxsize


def make_replay(
    configs: Sequence[RunConfig], spec: EnvSpec, device: str, engine: str = "masked"
) -> Replay:
    """Return the empty buffer of a population, as large as its largest member needs.

    Args:
        configs: the members' configurations.
        spec: the environment.
        device: where the buffer is kept.
        engine: that computes the networks.

    Raises InputError where it does not fit on the accelerator.
    """
    chosen = layout(device, spec.time_limit, engine)
    largest = max(each.replay_capacity for each in configs)
    policy_actions = keeps_policy_actions(configs)
    more = {"time_limit": spec.time_limit} if chosen == "once" else {}
    if device != "cpu":
        import torch

        sizes = (largest, spec.observation_size, spec.action_size)
        limit = counted_limit(device, spec.time_limit, engine)
        needed = len(configs) * ring_bytes(*sizes, policy_actions, limit)
        check_memory(needed, torch.cuda.mem_get_info(device)[0], len(configs), largest, device)
    made: Replay = load(LAYOUTS, chosen)(
        len(configs),
        largest,
        spec.observation_size,
        spec.action_size,
        configs[0].gamma,
        device,
        policy_actions,
        **more,
    )
    return made


def check_memory(needed: int, free: int, members: int, capacity: int, device: str) -> None:
    """Raise InputError, with the sizes, where a buffer of `needed` bytes would not fit."""
    if needed <= free:
        return
    raise InputError(
        f"buffer_size: the replay of {members} members x {capacity:,} transitions needs "
        f"{needed / 1e9:.1f} GB, and {device} has {free / 1e9:.1f} GB free; train fewer members at "
        "once (--members-per-device), lower buffer_size, or keep it on the host "
        "(--set replay_device=cpu)"
    )
