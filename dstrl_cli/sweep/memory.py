"""How many bytes a population takes, by arithmetic on its configurations; and bytes as text.

The arithmetic follows what `replay.layout`, `nets.masked`, `streams` and an update allocate; the
tests compare it with the tensors of a real population. Allocates nothing and does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import pairwise

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.network_sizes import network_sizes
from dstrl_cli.config.ranges import shortened
from dstrl_cli.errors import InputError
from dstrl_cli.registry import algorithm
from dstrl_cli.replay.layout import FLOAT, keeps_policy_actions, ring_bytes
from dstrl_cli.streams import BLOCK_NUMBERS

DOUBLE = 8

RESERVE = 1_500_000_000
"""What CUDA itself takes of a device: context, library workspaces, graphs, fragmentation.

A context with its kernels is about 0.6 GB on the H100 class; the rest is margin.
"""

PARAMETER_COPIES = 7
"""Weights, masks, gradients, target weights, Adam's two moments and its scratch."""

UPDATES_HELD = 3
"""Updates whose activations exist at once: those of two captured graphs, and of an update that runs
outside a graph because a topology rule acts in it."""

TOPOLOGY_BYTES = (9, 100)
"""Of a topology update: per weight of the network (copies of weights, masks and gradients), and per
weight of the layer being rewired (scores and their sorting, of which 46 were measured on the CPU,
and 36 for the numbers that decide between equal scores)."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a population takes on its device, by purpose; `host` is main memory."""

    replay: int = 0
    networks: int = 0
    updates: int = 0
    streams: int = 0
    reserve: int = 0
    host: int = 0

    @property
    def growing(self) -> int:
        """Bytes on the device that grow with the members."""
        return self.replay + self.networks + self.updates + self.streams

    @property
    def device(self) -> int:
        """All bytes on the device."""
        return self.growing + self.reserve

    def as_dict(self) -> dict[str, int]:
        """Return the parts and the sum on the device, for programs."""
        return asdict(self) | {"device": self.device}

    def parts(self) -> str:
        """Return the parts in words, the largest first."""
        named = {
            "replay": self.replay,
            "networks": self.networks,
            "updates and evaluation": self.updates,
            "random numbers": self.streams,
            "CUDA": self.reserve,
        }
        shown = sorted((name for name in named if named[name]), key=lambda name: -named[name])
        return ", ".join(f"{name} {format_bytes(named[name])}" for name in shown)


# --- what a population takes --------------------------------------------------------------------


def population_memory(
    configs: Sequence[RunConfig],
    observation_size: int,
    action_size: int,
    reserve: int = RESERVE,
    time_limit: int | None = None,
) -> Memory:
    """Return what the members of one population take together.

    Args:
        configs: configurations that may share a population, of any number of members.
        observation_size, action_size: sizes of the environment.
        reserve: bytes that the device's own software takes.
        time_limit: of the environment's episodes, where the population trains on an accelerator.
    """
    on_host = configs[0].replay_device == "cpu"
    replay = replay_bytes(configs, observation_size, action_size, None if on_host else time_limit)
    return Memory(
        replay=0 if on_host else replay,
        networks=network_bytes(configs, observation_size, action_size),
        updates=working_bytes(configs, observation_size, action_size),
        streams=stream_bytes(configs, action_size),
        reserve=reserve,
        host=replay if on_host else 0,
    )


def replay_bytes(
    configs: Sequence[RunConfig],
    observation_size: int,
    action_size: int,
    time_limit: int | None = None,
) -> int:
    """Return the bytes of the replay buffer: one ring, as long as the longest member needs."""
    rows = max(config.replay_capacity for config in configs)
    policy_actions = keeps_policy_actions(configs)
    ring = ring_bytes(rows, observation_size, action_size, policy_actions, time_limit)
    return len(configs) * ring


def network_bytes(configs: Sequence[RunConfig], observation_size: int, action_size: int) -> int:
    """Return the bytes of both networks with masks, gradients, moments and targets.

    There is a further copy of the masks, all ones for exempt members, where some member has dense
    gradients; and another where only some members mask their targets with the online masks. Bias
    correction by connection takes the powers of both betas for every parameter of all members.
    """
    copies = PARAMETER_COPIES + any(config.gradients == "dense" for config in configs)
    copies += len({config.target_masking == "online_mask" for config in configs}) > 1
    sizes = _sizes(configs[0], observation_size, action_size)
    numbers = sum(
        _heads(configs[0], role) * sum(layer + outputs for layer, outputs in _layers(widths))
        for role, widths in sizes.items()
    )
    per_number = FLOAT * copies
    if any(config.corrects_by_connection for config in configs):
        per_number += 2 * DOUBLE
    return per_number * len(configs) * numbers


def stream_bytes(configs: Sequence[RunConfig], action_size: int) -> int:
    """Return the bytes of the random numbers that are drawn ahead."""
    config, rows = configs[0], configs[0].batch_size

    def block(per_step: int) -> int:
        return max(1, BLOCK_NUMBERS // per_step) * per_step

    row = algorithm(config.algo)
    noises = row.noises + row.noises_per_step * max(each.nstep for each in configs)
    acting = 2 * FLOAT * block(action_size)  # warm-up and exploration
    noise = noises * FLOAT * block(rows * action_size)
    return len(configs) * (acting + noise + DOUBLE * block(rows))


def working_bytes(configs: Sequence[RunConfig], observation_size: int, action_size: int) -> int:
    """Return the bytes of temporary tensors: in updates, topology updates and evaluations."""
    sizes = _sizes(configs[0], observation_size, action_size)
    changing = {
        role: _heads(configs[0], role)
        * sum(getattr(config, role).changes_topology for config in configs)
        for role in sizes
    }
    per_weight, per_weight_in_work = TOPOLOGY_BYTES
    topology = sum(
        changing[role]
        * (
            per_weight * sum(weights for weights, _ in _layers(widths))
            + per_weight_in_work * max(weights for weights, _ in _layers(widths))
        )
        for role, widths in sizes.items()
    )
    update = update_bytes(configs, observation_size, action_size)
    return UPDATES_HELD * update + topology + acting_bytes(configs, observation_size, action_size)


def update_bytes(configs: Sequence[RunConfig], observation_size: int, action_size: int) -> int:
    """Return the bytes of the batch, activations and their gradients of one update.

    Each layer's activations count twice: once as a forward pass keeps them, once as the gradient
    with respect to them, or as the next forward pass's before the old ones are freed.
    """
    config, sizes = configs[0], _sizes(configs[0], observation_size, action_size)
    activations = 2 * sum(_heads(configs[0], role) * sum(widths) for role, widths in sizes.items())
    max_nstep = max(each.nstep for each in configs)
    path = max_nstep * (2 * observation_size + action_size + 16) if max_nstep > 1 else 0
    return FLOAT * len(configs) * config.batch_size * (activations + path)


def acting_bytes(configs: Sequence[RunConfig], observation_size: int, action_size: int) -> int:
    """Return the bytes of the largest batch that only passes through the actor.

    That is an evaluation step, or the oldest transitions that a dynamic buffer compares.
    """
    widths = _sizes(configs[0], observation_size, action_size)["actor"]
    compared = [c.buffer.check_batches * c.batch_size for c in configs if c.buffer.dynamic]
    rows = max([configs[0].eval_episodes, *compared])
    return FLOAT * len(configs) * rows * (sum(widths) + observation_size + 2 * action_size)


def _sizes(config: RunConfig, observation_size: int, action_size: int) -> dict[str, Sequence[int]]:
    actor, critic = network_sizes(config, observation_size, action_size)
    return {"actor": actor, "critic": critic}


def _heads(config: RunConfig, role: str) -> int:
    """Return how many networks a role has: one actor, or the algorithm's critics."""
    return algorithm(config.algo).critics if role == "critic" else 1


def _layers(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Return (weights, outputs) of each layer."""
    return [(i * o, o) for i, o in pairwise(widths)]


# --- bytes in words -----------------------------------------------------------------------------

_UNITS = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb"))},
    **{unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib"), start=1)},
}


def parse_size(text: str, flag: str = "--device-memory") -> int:
    """Return the bytes of `80GB`, `80GiB`, `512MB` or `85899345920`.

    Raises InputError, naming the flag.
    """
    match = re.fullmatch(r"\s*(\d{1,30}(?:\.\d{1,30})?)\s*([a-z]*)\s*", text.lower(), re.ASCII)
    unit = _UNITS.get(match[2] or "b", 0) if match else 0
    found = int(Decimal(match[1]) * unit) if match else 0
    if found < 1:
        raise InputError(
            f"{flag}: {shortened(text)} is no size; write 80GB, 80GiB, 512MB or plain bytes"
        )
    return found


def format_bytes(count: float) -> str:
    """Return bytes in three digits: `29.1 GB`, `512 MB`; decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 999.5 else f"{count:,.0f} TB"
