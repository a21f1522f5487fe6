"""Runs that take something from another run: checked, and completed, when planned.

What is found there becomes part of the configuration: `init_mask_source` and its like say which
run and which file it is, and the masks decide how many connections the layers have. A run that is
still to be trained stands for what it will leave (`Promised`), so that a plan of several stages can
be made before the first one has run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from dstrl_cli.config.effects import ROLES
from dstrl_cli.config.identity import env_name, source_text
from dstrl_cli.config.limits import shown
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.network_sizes import network_sizes
from dstrl_cli.config.sizes import layer_weights
from dstrl_cli.config.starts import FRESH, PLACES, STARTS
from dstrl_cli.errors import InputError
from dstrl_cli.registry import algorithm, algorithm_name
from dstrl_cli.report.papers import task_name
from dstrl_cli.runs.starting import Start, draws_fresh, find, first_weights, key, named
from dstrl_cli.sweep.fitting import refuse_misfit
from dstrl_cli.topology.budgets import layer_budgets
from dstrl_cli.topology.feasible import first_beyond

if TYPE_CHECKING:
    from dstrl_cli.envs import EnvSpec

NO_CHECKSUM = "0" * 64
"""The checksum of a file that is not there yet."""


@dataclass(frozen=True)
class Promised:
    """What a run will leave that is still to be trained, as far as its configuration says.

    Attributes:
        config: its configuration, layer sizes resolved.
        spec: its environment.
        label: its folder, relative to the results.
        file: the policy file that is taken from it.
    """

    config: RunConfig
    spec: EnvSpec
    label: str
    file: str

    @property
    def algo(self) -> str:
        """The algorithm that trains it."""
        return algorithm_name(self.config.algo)

    @property
    def env(self) -> str:
        """Its environment."""
        return self.config.env.id

    @property
    def task(self) -> int:
        """The task of a navigation environment."""
        return self.config.env.task

    @property
    def source(self) -> str:
        """How configurations will name the file, but for its checksum."""
        return source_text(Path(self.label), self.file, NO_CHECKSUM)

    def shapes(self, head: str) -> list[tuple[int, ...]]:
        """Return (inputs, outputs) of each layer of a network; none of one that it has not."""
        role = head.rstrip("0123456789")
        there = head in heads(self.config, role)
        return list(pairwise(_sizes(self.config, self.spec)[role])) if there else []

    def active(self, head: str, layer: int) -> int:
        """Return the active connections of a layer at the end of the run."""
        role = head.rstrip("0123456789")
        network: NetworkConfig = getattr(self.config, role)
        return layer_budgets(network, list(pairwise(_sizes(self.config, self.spec)[role])))[layer]


Found = Start | Promised


def takes_something(config: RunConfig) -> bool:
    """Whether a run names another one, or should."""
    return bool(algorithm(config.algo).needs) or any(getattr(config, place) for place in PLACES)


def started(
    config: RunConfig,
    spec: EnvSpec,
    chosen: Collection[str] = (),
    promised: Mapping[str, Promised] | None = None,
) -> RunConfig:
    """Return a configuration with what it starts from filled in; itself where that is nothing.

    Args:
        config: of a run, layer sizes resolved.
        spec: its environment.
        chosen: dotted keys that the user chose; a sparsity of them must be that of the masks.
        promised: what runs will leave that are to be trained before, by what it is (`STARTS`).

    Raises InputError where the run cannot start from what is named, or that is no more what it was.
    """
    _refuse_unread_places(config)
    if draws_fresh(config):
        config = config.model_copy(update={"init_weights_source": FRESH})
    for what, row in STARTS.items():
        start = (promised or {}).get(what) or find(config, what)
        if start is None:
            continue
        _refuse_other_task(config, spec, what, start)
        _refuse_other_sizes(config, spec, what, start)
        if isinstance(start, Start) and what != "mask":
            refuse_misfit(config, what, start, networks_taken(config, what))
        source, before = start.source, getattr(config, row.source)
        if before not in (None, source):
            raise InputError(
                f"{key(what)} = '{named(config, what)}': is no more what this run started from; "
                f"then {before}, now {source}"
            )
        place = str(named(config, what))
        config = config.model_copy(update={row.key: place, row.source: source})
        if what == "mask":
            config = _with_budgets(config, spec, start, chosen)
        elif what == "weights" and isinstance(start, Start):
            first_weights(config)  # raises where the weights cannot be followed
    return config


def _refuse_unread_places(config: RunConfig) -> None:
    """Raise InputError where a run lacks what its algorithm needs, or names what it cannot use."""
    row, name = algorithm(config.algo), algorithm_name(config.algo)
    for what in row.needs:
        if named(config, what) is None:
            flag = STARTS[what].key.replace("_", "-")
            raise InputError(
                f"{key(what)} is missing: {name} learns from a trained run; give its folder with "
                f"--{flag} RUN"
            )
    refused = {
        "expert": "expert" not in row.needs and "it learns from rewards; choose --algo bc",
        "expert_q": not row.expert_q and "it has no critics, or no class for such targets",
        "prefill": "expert" in row.needs and "the expert acts from the first step on",
    }
    for what, why in refused.items():
        if named(config, what) is not None and why:
            raise InputError(
                f"{key(what)} = '{named(config, what)}': {name} does not use it, since {why}"
            )


def _refuse_other_task(config: RunConfig, spec: EnvSpec, what: str, start: Found) -> None:
    """Raise InputError where a file is of another algorithm or task; versions may differ.

    An algorithm that imitates has no other algorithm's critics, and takes actors of any.
    """
    own = algorithm_name(config.algo)
    any_algo = bool(algorithm(config.algo).needs)
    ours = (own, task_name(env_name(spec.id)))
    theirs = (own if any_algo else start.algo, task_name(env_name(start.env)))
    if theirs != ours:
        raise InputError(
            f"{key(what)} = '{named(config, what)}': is of {start.algo} on {theirs[1]}, and this "
            f"run is {ours[0]} on {ours[1]}; choose a run of the same algorithm and environment"
        )
    if start.task != config.env.task and what not in ("mask", "weights"):
        raise InputError(
            f"{key(what)} = '{named(config, what)}': is of task {start.task} of {ours[1]}, and "
            f"this run is of task {config.env.task}; choose a run of the same task"
        )


def _sizes(config: RunConfig, spec: EnvSpec) -> dict[str, tuple[int, ...]]:
    found = network_sizes(config, spec.observation_size, spec.action_size)
    return dict(zip(ROLES, found, strict=True))


def heads(config: RunConfig, role: str) -> list[str]:
    """Return the names of a role's networks in policy files."""
    count = algorithm(config.algo).critics
    return [role] if role == "actor" else [f"{role}{number + 1}" for number in range(count)]


def networks_taken(config: RunConfig, what: str) -> list[str]:
    """Return the names of the networks that are taken from a file."""
    roles = {"expert": ["actor"], "prefill": ["actor"], "expert_q": ["critic"]}.get(what, ROLES)
    return [head for role in roles for head in heads(config, role)]


def _refuse_other_sizes(config: RunConfig, spec: EnvSpec, what: str, start: Found) -> None:
    """Raise InputError where networks do not fit; one that only computes may have other layers."""
    for head in networks_taken(config, what):
        sizes = list(pairwise(_sizes(config, spec)[head.rstrip("0123456789")]))
        found = start.shapes(head)
        only_computes = what not in ("mask", "weights")
        ends = [(each[0][0], each[-1][-1]) for each in (found, sizes) if each]
        outputs = (sizes[-1][-1], 2 * spec.action_size)  # of SAC: means and log stds
        fits = found == sizes
        if only_computes and len(ends) == 2:
            same = ends[0][1] == ends[1][1] or (head == "actor" and ends[0][1] in outputs)
            fits = ends[0][0] == ends[1][0] and same
        if not fits:
            theirs = " + ".join(f"{i}x{o}" for i, o in found) or "none"
            ours = " + ".join(f"{i}x{o}" for i, o in sizes)
            as_there = "the environment" if only_computes else "hidden_sizes and the environment"
            raise InputError(
                f"{key(what)} = '{named(config, what)}': the layers of its {head} are "
                f"{theirs}, and this run's are {ours}; set {as_there} as that run had them"
            )


def _with_budgets(
    config: RunConfig, spec: EnvSpec, start: Found, chosen: Collection[str]
) -> RunConfig:
    """Return a configuration whose layers have as many connections as the masks.

    The sparsity stays as it is where it gives these numbers, or is that of the other run where
    that does; else it follows from the numbers. Without critics, theirs is the actor's.
    """
    place, update = named(config, "mask"), dict[str, NetworkConfig]()
    for role, sizes in _sizes(config, spec).items():
        network: NetworkConfig = getattr(config, role)
        shapes, names = list(pairwise(sizes)), heads(config, role)
        if not names:
            actor = update.get("actor", config.actor)
            update[role] = network.model_copy(update={"sparsity": actor.sparsity})
            continue
        counts = [
            round(sum(start.active(h, n) for h in names) / len(names)) for n in range(len(shapes))
        ]
        _refuse_rule(network, role, str(place), counts, layer_weights(sizes))
        if isinstance(start, Start):  # else when its masks are there
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
