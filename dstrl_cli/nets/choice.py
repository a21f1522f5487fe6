"""Which engine a run gets: the one place that knows what each engine can do, and which is faster.

Imports neither torch nor the compiler. Whether the sparse engine's kernels compile is tried only
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
from dstrl_cli.registry import algorithm
from dstrl_cli.topology.moves import mean_moved

PAYS_BELOW = ((256, 1.0), (1024, 0.8), (2048, 0.5))
"""Width of the hidden layers, and the share of active connections above which `masked` is faster.

On one thread; measured by `dstrl bench update --algo td3,sac --width 64,256,1024,2048 --sparsity
0,0.5,0.8,0.9,0.95,0.98 --engine masked,sparse` (`results/bench/growth.csv`): up to 256 units the
sparse engine is faster even for dense networks. Wider ones have 0.77 to 1.03 of the masked engine's
speed with all connections; with half of them 1.3 to 1.4 times it at 1024 units, and 0.97 to 1.14
times it at 2048.
"""

PER_THREAD, WITH_TWO = 0.78, 1.6
"""What each thread adds to the speed of the masked engine, and what a second one makes of the
sparse engine, which uses no more.

With two threads the masked engine is 2 * 0.78 times as fast: 1.55 times as many whole steps of SAC
were measured (`dstrl bench train --threads 1,2`).
"""

COMPILED = (
    "dstrl_cli.nets.sparse.passes",
    "dstrl_cli.replay.kernels",
)
"""Modules that a run on the sparse engine needs compiled, besides those of its algorithm."""

REMEDY = "use --engine masked, or auto"


@dataclass(frozen=True)
class Choice:
    """An engine and why it was taken; `warning` is for the user to read, where there is one."""

    engine: str
    reason: str
    warning: str | None = None


def unsupported_reason(config: RunConfig, device: str) -> str | None:
    """Return what keeps a run from the sparse engine, as `key: value` and why, or None.

    Switches of the authors' code need inactive weights, which this engine does not have. A target
    that is not masked while its network's topology changes has no budget.
    """
    if device != "cpu":
        return f"device: {device} (the sparse engine runs on the CPU)"
    for key, value in (("gradients", "dense"), ("moments", "keep"), ("initial_targets", "dense")):
        if getattr(config, key) == value:
            return f"{key}: {value} (it needs weights where no connection is)"
    if config.target_masking == "magnitude_trim" and config.target_trim == "nonzero":
        return "target_trim: nonzero (targets are trimmed to fixed budgets)"
    for role, network in zip(("actor", "critic"), networks(config), strict=True):
        if not network.changes_topology:
            continue
        rule = network.topology
        if rule.grow_init == "adam_step":
            return f"{role}.topology.grow_init: adam_step (it needs dense gradients)"
        if rule.final_drop:
            return f"{role}.topology.final_drop: true (budgets are fixed)"
        if config.target_masking == "none":
            return "target_masking: none (the target would outgrow its budget)"
    return None


def networks(config: RunConfig) -> tuple[NetworkConfig, NetworkConfig]:
    """Return the keys of the actor and of the critics."""
    return config.actor, config.critic


def density(config: RunConfig) -> float:
    """Return the share of active connections, the critics weighing four times the actor.

    That is about their part in an update (RLX Table 5). Where budgets move, it is the mean of the
    run: the engine stays the same throughout.
    """
    actor, critic = map(_mean_density, networks(config))
    return (actor + 4 * critic) / 5


def _mean_density(network: NetworkConfig) -> float:
    if network.all_active:
        return 1.0
    last = 1.0 - network.sparsity
    if not network.moves_budget:
        return last
    first = 1.0 - (network.initial_sparsity or 0.0)
    return first + (last - first) * mean_moved(network.topology)


def widest(config: RunConfig) -> int:
    """Return the units of the widest hidden layer."""
    sizes = [(network.hidden_sizes or config.hidden_sizes) for network in networks(config)]
    return max((width for layers in sizes for width in layers), default=1)


def pays_below(width: int, threads: int) -> float:
    """Return the share of active connections above which the masked engine is faster.

    Between the measured widths it is interpolated, linearly in the logarithm of the width.
    """
    share = PAYS_BELOW[-1][1]
    for (narrow, more), (wide, less) in pairwise(PAYS_BELOW):
        if width <= narrow:
            share = more
            break
        if width <= wide:
            share = more + (less - more) * math.log(width / narrow) / math.log(wide / narrow)
            break
    sparse = WITH_TWO if threads > 1 else 1.0
    return share / max(1.0, PER_THREAD * threads / sparse)


def choose(
    config: RunConfig, device: str, tell: Callable[[str], None] | None = None, members: int = 1
) -> Choice:
    """Return the engine for a run on `device`, as one of `members` of a population.

    With `tell`, which takes a line for the user, the run is about to start: the kernels are
    compiled, and where that fails, `auto` falls back to the masked engine.

    Raises:
        InputError: for an engine that was asked for and cannot be had.
    """
    reason = unsupported_reason(config, device)
    if config.engine == "sparse":
        if reason:
            raise InputError(f"engine: sparse does not go with {reason}; {REMEDY}")
        if members > 1:
            raise InputError(f"engine: sparse does not go with a population of {members}; {REMEDY}")
        if problem := compile_error(config.algo, tell):
            raise InputError(f"engine: sparse: {problem}; {REMEDY}")
        return Choice("sparse", "as asked for")
    if config.engine != "auto":
        return Choice(config.engine, "as asked for")
    if members > 1:
        return Choice("masked", f"a population of {members}")
    if reason:
        return Choice("masked", reason)
    active = density(config)
    if active > pays_below(widest(config), config.thread_count):
        return Choice("masked", f"{100 * active:.3g}% of the connections are active")
    if problem := compile_error(config.algo, tell):
        return Choice("masked", problem, f"the sparse engine is off: {problem}")
    return Choice("sparse", f"{100 * active:.3g}% of the connections are active")


def threads_for(config: RunConfig, device: str, cores: int) -> int:
    """Return the threads of a run whose `threads` is `auto`.

    A second one where it only saves time: on the sparse engine, which must stay the faster one, it
    takes updates beside the environment's steps, and its share of each, and changes no number.
    `dstrl bench train --threads 1,2` measures what that gains.

    Args:
        config: the run.
        device: that it trains on.
        cores: that it has for itself while as many runs of its plan train as may at once.

    Raises InputError for an engine that was asked for and cannot be had.
    """
    if cores < 2 or not algorithm(config.algo).compiled:
        return 1
    with_two = config.model_copy(update={"threads": 2})
    return 2 if choose(with_two, device).engine == "sparse" else 1


def torch_threads(config: RunConfig) -> int:
    """Return the threads of torch's own products in a run whose engine is chosen.

    The sparse engine has hardly any; on one thread their numbers do not depend on `threads`.
    """
    return 1 if config.engine == "sparse" else config.thread_count


_ready: set[str] = set()
"""Algorithms whose kernels this process has."""


def modules_to_compile(algo: str) -> list[str]:
    """Return the modules that a run of an algorithm on the sparse engine needs compiled."""
    update, _, _ = algorithm(algo).compiled.partition(":")
    return [*COMPILED, update] if update else [*COMPILED]


def compile_error(algo: str, tell: Callable[[str], None] | None) -> str | None:
    """Return why the sparse engine's kernels cannot be compiled for an algorithm, or None.

    With `tell` they are compiled; without it, it is only checked that the compiler is installed.
    """
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install numba)"
    if tell is None or algo in _ready:
        return None
    try:
        compiler = importlib.import_module("dstrl_cli.compiler")
        kernels = [importlib.import_module(name) for name in modules_to_compile(algo)]
        if not all(compiler.are_cached(each.FUNCTIONS, each.SOURCES) for each in kernels):
            elsewhere = compiler.kept_elsewhere()
            kept = "once for this installation"
            if elsewhere:
                kept = f"into {elsewhere}; set NUMBA_CACHE_DIR to a folder that lasts"
            tell(f"compiling the sparse kernels, {kept}")
        compiler.compile_in_turns(kernels)
        _ready.add(algo)
    except Exception as error:  # a compiler can fail in any way; the run must not
        return f"numba cannot compile here ({type(error).__name__}: {error})"
    return None
