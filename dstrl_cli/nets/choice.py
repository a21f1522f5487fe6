"""Which engine a run gets: the one place that knows what each engine can do, and when it pays.

Imports neither torch nor the compiler; whether the sparse engine's kernels compile is tried only
when a run is about to start.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from dstrl_cli.config import NetworkConfig, RunConfig
from dstrl_cli.errors import InputError

SPARSE_PAYS_BELOW = 0.4
"""Share of active connections below which the sparse engine is faster on a CPU.

At 256-256 units and a batch of 256 the engines meet near one half: `dstrl bench update --algo
td3,sac --sparsity 0.5,0.6,0.8 --engine masked,sparse`.
"""

COMPILED = ("dstrl_cli.nets.kernels", "dstrl_cli.replay_kernels")
"""Modules that a run on the sparse engine needs compiled."""

REMEDY = "use --engine masked, or auto"


@dataclass(frozen=True)
class Choice:
    """An engine and why it was taken; `warning` is what the user should know of it."""

    engine: str
    reason: str
    warning: str | None = None


def obstacle(config: RunConfig, device: str) -> str | None:
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


def density(config: RunConfig) -> float:
    """Return the share of active connections, the critics weighing four times the actor.

    That is about their part in an update (RLX Table 5).
    """

    def of(network: NetworkConfig) -> float:
        return 1.0 if network.all_active else 1.0 - network.sparsity

    return (of(config.actor) + 4 * of(config.critic)) / 5


def choose(
    config: RunConfig, device: str, tell: Callable[[str], None] | None = None, members: int = 1
) -> Choice:
    """Return the engine for a run on `device`.

    With `tell`, the run is about to start: the kernels are made ready, and where they cannot be,
    `auto` falls back to the masked engine.

    Raises:
        InputError: for an engine that was asked for and cannot be had.
    """
    reason = obstacle(config, device)
    if config.engine == "sparse":
        if reason:
            raise InputError(f"engine: sparse does not go with {reason}; {REMEDY}")
        if problem := trouble(tell):
            raise InputError(f"engine: sparse: {problem}; {REMEDY}")
        return Choice("sparse", "as asked for")
    if config.engine != "auto":
        return Choice(config.engine, "as asked for")
    if members > 1:
        return Choice("masked", f"a population of {members}")
    if reason:
        return Choice("masked", reason)
    active = density(config)
    if active > SPARSE_PAYS_BELOW:
        return Choice("masked", f"{active:.0%} of the connections are active")
    if problem := trouble(tell):
        return Choice("masked", problem, f"the sparse engine is off: {problem}")
    return Choice("sparse", f"{active:.0%} of the connections are active")


def trouble(tell: Callable[[str], None] | None) -> str | None:
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
