"""Runs that start from another run's masks or weights: checked, and completed, when planned.

What is found there becomes part of the configuration: `init_mask_source` and its like say which run
and which file it is, and the masks decide how many connections the layers have.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import TYPE_CHECKING

from dstrl_cli.config.identity import env_name
from dstrl_cli.config.limits import shown
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.network_sizes import network_sizes
from dstrl_cli.config.sizes import layer_weights
from dstrl_cli.errors import InputError
from dstrl_cli.registry import algorithm, algorithm_name
from dstrl_cli.report.papers import task_name
from dstrl_cli.runs.starting import FILES, Start, find, first_weights, key, named
from dstrl_cli.topology.budgets import layer_budgets
from dstrl_cli.topology.feasible import first_beyond

if TYPE_CHECKING:
    from dstrl_cli.envs import EnvSpec

ROLES = ("actor", "critic")


def started(config: RunConfig, spec: EnvSpec, chosen: Collection[str] = ()) -> RunConfig:
    """Return a configuration with what it starts from filled in; itself where that is nothing.

    Args:
        config: of a run, layer sizes resolved.
        spec: its environment.
        chosen: dotted keys that the user chose; a sparsity of them must be that of the masks.

    Raises InputError where the run cannot start from what is named, or that is no more what it was.
    """
    for what in FILES:
        start = find(config, what)
        if start is None:
            continue
        _refuse_other_task(config, spec, what, start)
        _refuse_other_sizes(config, spec, what, start)
        source, before = start.source, getattr(config, f"init_{what}_source")
        if before not in (None, source):
            raise InputError(
                f"{key(what)} = '{named(config, what)}': is no more what this run started from; "
                f"then {before}, now {source}"
            )
        place = str(named(config, what))
        config = config.model_copy(update={key(what): place, f"init_{what}_source": source})
        if what == "mask":
            config = _with_budgets(config, spec, start, chosen)
        else:
            first_weights(config)  # raises where the weights cannot be followed
    return config


def _refuse_other_task(config: RunConfig, spec: EnvSpec, what: str, start: Start) -> None:
    """Raise InputError where a file is of another algorithm or task; versions may differ."""
    algo, env = start.metadata.get("algo"), start.metadata.get("env", "")
    ours = algorithm_name(config.algo), task_name(env_name(spec.id))
    theirs = algo, task_name(env_name(env))
    if theirs != ours:
        raise InputError(
            f"{key(what)} = '{named(config, what)}': is of {theirs[0]} on {theirs[1]}, and this "
            f"run is {ours[0]} on {ours[1]}; choose a run of the same algorithm and environment"
        )


def _sizes(config: RunConfig, spec: EnvSpec) -> dict[str, tuple[int, ...]]:
    found = network_sizes(config, spec.observation_size, spec.action_size)
    return dict(zip(ROLES, found, strict=True))


def heads(config: RunConfig, role: str) -> list[str]:
    """Return the names of a role's networks in policy files."""
    count = algorithm(config.algo).critics
    return [role] if role == "actor" else [f"{role}{number + 1}" for number in range(count)]


def _refuse_other_sizes(config: RunConfig, spec: EnvSpec, what: str, start: Start) -> None:
    for role, sizes in _sizes(config, spec).items():
        for head in heads(config, role):
            found: list[tuple[int, ...]] = []
            while (name := f"{head}.mask.{len(found)}") in start.tensors:
                found.append(start.tensors[name].shape)
            if found != list(pairwise(sizes)):
                theirs = " + ".join(f"{i}x{o}" for i, o in found) or "none"
                ours = " + ".join(f"{i}x{o}" for i, o in pairwise(sizes))
                raise InputError(
                    f"{key(what)} = '{named(config, what)}': the layers of its {head} are "
                    f"{theirs}, and this run's are {ours}; set hidden_sizes and the environment as "
                    "that run had them"
                )


def _with_budgets(
    config: RunConfig, spec: EnvSpec, start: Start, chosen: Collection[str]
) -> RunConfig:
    """Return a configuration whose layers have as many connections as the masks.

    The sparsity stays as it is where it gives these numbers, or is that of the other run where
    that does; else it follows from the numbers.
    """
    place, update = named(config, "mask"), {}
    for role, sizes in _sizes(config, spec).items():
        network: NetworkConfig = getattr(config, role)
        shapes, names = list(pairwise(sizes)), heads(config, role)
        counts = [
            round(sum(int((start.tensors[f"{h}.mask.{n}"] != 0).sum()) for h in names) / len(names))
            for n in range(len(shapes))
        ]
        _refuse_rule(network, role, str(place), counts, layer_weights(sizes))
        _refuse_limits(network, role, str(place), start, names)
        if layer_budgets(network, shapes) == counts:
            continue
        if f"{role}.sparsity" in chosen:
            raise InputError(
                f"{role}.sparsity = {network.sparsity:g}: {key('mask')} fixes it, and the masks "
                f"of '{place}' have other numbers of connections; leave the sparsity out"
            )
        theirs = None if start.config is None else getattr(start.config, role)
        update[role] = _of_counts(network, theirs, shapes, counts)
    return config.model_copy(update=update)


def _refuse_rule(
    network: NetworkConfig, role: str, place: str, counts: list[int], whole: list[int]
) -> None:
    """Raise InputError for a network that cannot start with these numbers of connections."""
    if network.moves_budget:
        raise InputError(
            f"{key('mask')} = '{place}': the {role}'s number of connections is to move from "
            f"initial_sparsity on (topology.budget: {network.topology.budget}), not from a mask; "
            "choose a method whose budget is constant, as in --dst sst"
        )
    if network.all_active and counts != whole:
        raise InputError(
            f"{key('mask')} = '{place}': its {role} is sparse, and this run's is dense; choose a "
            "sparse method, as in --dst sst"
        )
    if empty := [n for n, count in enumerate(counts) if not count]:
        raise InputError(f"{key('mask')} = '{place}': layer {empty[0]} of its {role} is empty")


def _refuse_limits(
    network: NetworkConfig, role: str, place: str, start: Start, names: list[str]
) -> None:
    """Raise InputError where masks are beyond the limits on the inputs of neurons."""
    for name in names:
        layers = [each for each in start.tensors if each.startswith(f"{name}.mask.")]
        masks = [start.tensors[f"{name}.mask.{n}"] != 0 for n in range(len(layers))]
        layer = None if network.all_active else first_beyond(network, masks)
        if layer is not None:
            rule = network.topology
            own, value, none = "fan_in", rule.fan_in, "free"
            if rule.n_of_m is not None:
                own, value, none = "n_of_m", shown(rule.n_of_m), "null"
            raise InputError(
                f"{key('mask')} = '{place}': layer {layer} of its {name} is beyond "
                f"{role}.topology.{own} = {value}; set {own} as that run had it, or "
                f"{role}.topology.{own}={none}"
            )


def _of_counts(
    network: NetworkConfig,
    theirs: NetworkConfig | None,
    shapes: list[tuple[int, int]],
    counts: list[int],
) -> NetworkConfig:
    """Return a network whose layers have so many connections, by the other run's keys if it can."""
    keys = ("sparsity", "allocation", "lambdas", "layers")
    if theirs is not None and not theirs.all_active:
        asked = network.model_copy(update={name: getattr(theirs, name) for name in keys})
        if layer_budgets(asked, shapes) == counts:
            return asked
    layers = tuple(1 - count / (i * o) for count, (i, o) in zip(counts, shapes, strict=True))
    sparsity = 1 - sum(counts) / sum(i * o for i, o in shapes)
    values = {"sparsity": sparsity, "allocation": "layers", "lambdas": None, "layers": layers}
    return network.model_copy(update=values)
