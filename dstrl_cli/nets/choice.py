"""Which engine a run gets: the one place that knows what each engine can do, and when it pays.

Imports neither torch nor the compiler; whether the sparse engine's kernels compile is tried only
when a run is about to start.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.errors import InputError

PAYS_BELOW = ((256, 1.0), (1024, 0.7), (2048, 0.55))
"""Width of the hidden layers, and the share of active connections from which on dense products win.

On one thread; measured by `dstrl bench update --algo td3,sac --width 64,256,1024,2048 --sparsity
0,0.5,0.8,0.9,0.95,0.98 --engine masked,sparse` (`results/bench/growth.csv`): at 256 units the
sparse engine is faster even for dense networks, at 2048 its activations leave the nearest cache.
"""

PER_THREAD = 0.78
"""How much of each thread dense products gain; the sparse engine has one, however many there are.

Two threads: 1.55 times as many whole steps of SAC (`dstrl bench train --threads 1,2`).
"""

COMPILED = ("dstrl_cli.nets.sparse.kernels", "dstrl_cli.replay.kernels")
"""Modules that a run on the sparse engine needs compiled."""

REMEDY = "use --engine masked, or auto"


@dataclass(frozen=True)
class Choice:
    """An engine and why it was taken; `warning` is what the user should know of it."""

    engine: str
    reason: str
    warning: str | None = None


def unsupported_reason(config: RunConfig, device: str) -> str | None:
    """Return what keeps a run from the sparse engine, as `key: value` and why, or None.

    What only authors' code does needs inactive weights to exist; a target that is not masked while
    its network's topology changes has no budget; a score that watches every update would need
    dense matrices at every update.
    """
    if device != "cpu":
        return f"device: {device} (the sparse engine runs on the CPU)"
    for key, value in (("gradients", "dense"), ("moments", "keep"), ("initial_targets", "dense")):
        if getattr(config, key) == value:
            return f"{key}: {value} (it needs weights where no connection is)"
    for role in ("actor", "critic"):
        network: NetworkConfig = getattr(config, role)
        rule = network.topology
        if network.all_active or rule.schedule == "static":
            continue
        if rule.grow_init == "adam_step":
            return f"{role}.topology.grow_init: adam_step (it needs dense gradients)"
        if rule.final_drop:
            return f"{role}.topology.final_drop: true (budgets are fixed)"
        if rule.accumulate == "critic_update" and "importance" in (rule.drop, rule.grow):
            return f"{role}.topology.accumulate: critic_update (it looks at every update)"
        if config.target_masking == "none":
            return "target_masking: none (the target would outgrow its budget)"
    return None


def networks(config: RunConfig) -> tuple[NetworkConfig, NetworkConfig]:
    """Return the keys of the actor and of the critics."""
    return config.actor, config.critic


def density(config: RunConfig) -> float:
    """Return the share of active connections, the critics weighing four times the actor.

    That is about their part in an update (RLX Table 5).
    """
    actor, critic = (1.0 if each.all_active else 1.0 - each.sparsity for each in networks(config))
    return (actor + 4 * critic) / 5


def widest(config: RunConfig) -> int:
    """Return the units of the widest hidden layer."""
    sizes = [(network.hidden_sizes or config.hidden_sizes) for network in networks(config)]
    return max((width for layers in sizes for width in layers), default=1)


def pays_below(width: int, threads: int) -> float:
    """Return the share of active connections from which on the masked engine is faster.

    Between the measured widths, a straight line over the logarithm of the width.
    """
    share = PAYS_BELOW[-1][1]
    for (narrow, more), (wide, less) in pairwise(PAYS_BELOW):
        if width <= narrow:
            share = more
            break
        if width <= wide:
            share = more + (less - more) * math.log(width / narrow) / math.log(wide / narrow)
            break
    return share / max(1.0, PER_THREAD * threads)


def choose(
    config: RunConfig, device: str, tell: Callable[[str], None] | None = None, members: int = 1
) -> Choice:
    """Return the engine for a run on `device`.

    With `tell`, the run is about to start: the kernels are made ready, and where they cannot be,
    `auto` falls back to the masked engine.

    Raises:
        InputError: for an engine that was asked for and cannot be had.
    """
    reason = unsupported_reason(config, device)
    if config.engine == "sparse":
        if reason:
            raise InputError(f"engine: sparse does not go with {reason}; {REMEDY}")
        if problem := compile_error(tell):
            raise InputError(f"engine: sparse: {problem}; {REMEDY}")
        return Choice("sparse", "as asked for")
    if config.engine != "auto":
        return Choice(config.engine, "as asked for")
    if members > 1:
        return Choice("masked", f"a population of {members}")
    if reason:
        return Choice("masked", reason)
    active = density(config)
    if active > pays_below(widest(config), config.threads):
        return Choice("masked", f"{100 * active:.3g}% of the connections are active")
    if problem := compile_error(tell):
        return Choice("masked", problem, f"the sparse engine is off: {problem}")
    return Choice("sparse", f"{100 * active:.3g}% of the connections are active")


def compile_error(tell: Callable[[str], None] | None) -> str | None:
    """Return why the sparse engine's kernels cannot be had, or None; compile them if about to run.

    Without `tell` only the presence of the compiler is looked at.
    """
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install numba)"
    if tell is None:
        return None
    try:
        compiler = importlib.import_module("dstrl_cli.compiler")
        kernels = [importlib.import_module(name) for name in COMPILED]
        if not all(compiler.are_cached(each.FUNCTIONS, each.SOURCES) for each in kernels):
            tell("compiling the sparse kernels, once for this installation")
        for each in kernels:
            each.compile_all()
    except Exception as error:  # a compiler can fail in any way; the run must not
        return f"numba cannot compile here ({type(error).__name__}: {error})"
    return None
