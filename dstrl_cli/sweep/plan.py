"""Which runs a sweep has: from its axes to runs.

Nothing is trained or written here. `sweep.states` looks at the folders, `sweep.place` decides where
runs train, and `launcher` starts them.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrl_cli.config import effects
from dstrl_cli.config.identity import differences, env_identity, env_name, run_path
from dstrl_cli.config.keys import expand as key_names
from dstrl_cli.config.keys import flatten
from dstrl_cli.config.lengths import with_default_steps
from dstrl_cli.config.models import NetworkConfig, RunConfig
from dstrl_cli.config.network_sizes import compared_sizes, network_sizes, resolve_sizes
from dstrl_cli.config.parts import EnvConfig
from dstrl_cli.config.presets import Case, SweepPreset
from dstrl_cli.config.refusals import refuse_unreached_sparsity
from dstrl_cli.config.resolving import Resolved, resolve_explicit
from dstrl_cli.config.shrink import at_scale
from dstrl_cli.config.sizes import layer_weights
from dstrl_cli.config.starts import PLACES
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.starting import Promised, started, takes_something
from dstrl_cli.topology import budgets, feasible
from dstrl_cli.training.run import Run

if TYPE_CHECKING:
    from dstrl_cli.envs import EnvSpec
    from dstrl_cli.sweep.stages import Earlier

SPARSITY_TOLERANCE = 0.005
"""A realised sparsity that is further from the one asked for is told."""


@dataclass(frozen=True)
class Axes:
    """What a sweep varies. An empty axis has one value, which presets and defaults decide.

    `sets` are further dotted keys, each with its values. `variants` are changes of which a run has
    none or one, and the runs that they are for.
    """

    algos: Sequence[str] = ()
    methods: Sequence[str] = ()
    envs: Sequence[str] = ()
    tasks: Sequence[int] = ()
    sparsities: Sequence[float] = ()
    seeds: Sequence[int] = ()
    sets: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    variants: Sequence[Case] = ()

    def over(
        self, preset: SweepPreset | None, sets: Sequence[str], scale: float | None = None
    ) -> Axes:
        """Return these axes with the preset's where these are empty, those at its `scale`.

        An axis of the preset ends where a `--set` fixes all keys that it stands for. An axis of one
        value is left to the preset, whose cases may then change it. Raises InputError where a
        `--set` fixes only some of the keys of an axis, which would go on to set them.
        """
        if preset is None:
            return self
        theirs, fixed = preset.sweep, [text.partition("=")[0].strip() for text in sets]

        def goes_on(key: str) -> bool:
            return not any(_fixes(each, key, preset.name) for each in fixed)

        def pick(own: Sequence[Any], other: Sequence[Any], key: str) -> Sequence[Any]:
            return own or (other if len(other) > 1 and goes_on(key) else ())

        return Axes(
            algos=self.algos or theirs.algo,
            methods=self.methods or theirs.dst,
            envs=pick(self.envs, theirs.env, "env.id"),
            tasks=pick(self.tasks, theirs.task, "env.task"),
            sparsities=pick(self.sparsities, theirs.sparsity, "sparsity"),
            seeds=self.seeds or (theirs.seeds if "seed" not in fixed else ()),
            sets=at_scale(
                {k: v for k, v in theirs.set.items() if len(v) > 1 and goes_on(k)}, scale
            ),
            variants=[each for each in theirs.variants if all(map(goes_on, flatten(each.config)))],
        )

    def changes(self, config: RunConfig, scale: float | None) -> list[dict[str, Any]]:
        """Return the changes that a run has in turn, dotted: none, then those that are for it."""
        config_of = [
            flatten(each.config)
            for each in self.variants
            if each.when.matches(config.algo, config.method, config.env.id)
        ]
        shrunk = [at_scale({key: [value] for key, value in c.items()}, scale) for c in config_of]
        return [{}, *({key: values[0] for key, values in each.items()} for each in shrunk)]

    def varied(self) -> list[str]:
        """Return the keys, beside the usual axes, that runs differ in: their names are suffixes."""
        changed = [key for each in self.variants for key in flatten(each.config)]
        return list(dict.fromkeys((*self.sets, *changed)))


def _fixes(written: str, axis: str, preset: str) -> bool:
    """Whether a key of `--set` fixes all that an axis of a preset sets."""
    given, set_there = set(key_names(written)), set(key_names(axis))
    if given & set_there and not set_there <= given:
        raise InputError(
            f"--set {written}: preset '{preset}' gives values to {axis}, which holds it, and would "
            f"set it again; give --set {axis}, or leave it out"
        )
    return written == axis or (bool(set_there) and set_there <= given)


# --- from axes to runs --------------------------------------------------------------------------


def expand(
    axes: Axes,
    *,
    ours: bool | None = None,
    preset: SweepPreset | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    scale: float | None = None,
    earlier: Earlier | None = None,
    algos: Collection[str] = (),
) -> list[Run]:
    """Return the run of every combination of the axes, each once: a dense one has one sparsity.

    `flags` are further explicit flags; `scale` is the share of the length that runs have; `earlier`
    are the stages before, and `algos` the algorithms of all stages. Raises
    InputError for values that are not valid, an unknown environment, or a sparsity that a network
    cannot have.
    """
    axes, flags = axes.over(preset, sets, scale), flags or {}
    with_task = len(axes.tasks) > 1
    shared_names = _shared_names(axes.envs)
    families = _Families(
        functools.partial(resolve_explicit, ours=ours, preset=preset, sets=sets, scale=scale),
        flags,
    )
    # a flag beats an axis of the preset
    tasks = axes.tasks if flags.get("env.task") is None else ()
    seeds = axes.seeds if flags.get("seed") is None else ()
    found: dict[str, Run] = {}
    for algo, env, task, sparsity, method, extra in product(
        _values(axes.algos),
        _values(axes.envs),
        _values(tasks),
        _values(axes.sparsities),
        _values(axes.methods),
        list(_combinations(axes.sets)),
    ):
        keys = {"env.id": env, "env.task": task, "sparsity": sparsity, **extra}
        given = {key: value for key, value in keys.items() if value is not None}
        for change in axes.changes(families.configuration(algo, method, given)[0], scale):
            config, spec, notes, chosen = families.configuration(algo, method, given | change)
            name = suffix(extra | change, axes.varied())
            with_module = env_name(config.env.id) in shared_names
            for seed in _values(seeds):
                seeded = config if seed is None else config.model_copy(update={"seed": seed})
                promised: dict[str, Promised] = {}
                if takes_something(seeded):
                    if earlier is not None:
                        seeded, promised = earlier.completed(seeded)
                    seeded = sized(started(seeded, spec, chosen, promised), spec)
                path = run_path(seeded, name, with_task=with_task, with_module=with_module)
                label = str(path)
                if label in found:
                    _refuse_sharing(label, found[label].config, seeded)
                    continue
                of_seed = spec.for_seed(seeded.seed)
                needs = tuple(dict.fromkeys(each.label for each in promised.values()))
                path = Path(seeded.out) / path
                found[label] = Run(seeded, of_seed, path, label, notes=notes, needs=needs)
    effects.refuse_unread(sets, algos or {run.config.algo for run in found.values()})
    return list(found.values())


class _Families:
    """Resolves and sizes configurations that differ in the task alone once, and copies the rest.

    That takes most of the time of a plan of thousands of runs.
    """

    def __init__(self, resolve: Callable[..., Resolved], flags: Mapping[str, Any]) -> None:
        self._resolve, self._flags = resolve, flags
        self._resolved: dict[str, Resolved] = {}
        self._sized: dict[tuple[str, int, int, int | None], tuple[RunConfig, tuple[str, ...]]] = {}
        self._tasks: set[Any] = set()

    def configuration(
        self, algo: str | None, method: str | None, given: Mapping[str, Any]
    ) -> tuple[RunConfig, EnvSpec, tuple[str, ...], Collection[str]]:
        """Return a configuration, its environment, what the user should know, the keys they chose.

        `given` are the keys that the axes set. The first configuration with each task is resolved
        rather than copied, so that every task is checked.
        """
        task = given.get("env.task")
        others = {key: value for key, value in given.items() if key != "env.task"}
        family = repr((algo, method, others))
        if family not in self._resolved or task not in self._tasks:
            self._resolved[family] = self._resolve(method, algo, flags={**given, **self._flags})
            self._tasks.add(task)
        config, explicit = self._resolved[family]
        env = config.env if task is None else config.env.model_copy(update={"task": task})
        spec = env_spec(env)
        shape = family, spec.observation_size, spec.action_size, spec.time_limit
        if shape not in self._sized:
            config = with_default_steps(config, explicit, spec.time_limit)
            full = sized(config, spec)
            exempt = limit_notes(full, spec)
            told = (*effects.notes(config, explicit), *sparsity_notes(full, spec), *exempt)
            self._sized[shape] = full, told
        full, notes = self._sized[shape]
        env = env.model_copy(update={"id": spec.id})
        full = full.model_copy(update={"env": env})
        return full, spec, (*notes, *spec.notes), explicit


def _shared_names(env_ids: Iterable[str]) -> set[str]:
    """Return the names that several environments have: those of different modules."""
    names = Counter(env_name(env_id) for env_id in set(map(env_identity, env_ids)))
    return {name for name, count in names.items() if count > 1}


def _refuse_sharing(path: str, one: RunConfig, other: RunConfig) -> None:
    """Raise InputError where two runs with different numbers would share a folder."""
    differing = [] if one == other else differences(one, other)
    if differing:
        raise InputError(
            f"two runs of this sweep would share the folder {path}; they differ in "
            f"{'; '.join(differing)}"
        )


def refuse_several(
    axes: Axes, flags: Mapping[str, Any], sets: Sequence[str], preset: SweepPreset
) -> None:
    """Raise InputError where a preset names several values and one run cannot tell which."""
    joint = axes.over(preset, sets)
    several = {
        "--algo": (joint.algos, "algo"),
        "--dst": (joint.methods, "dst"),
        "--env": (joint.envs, "env.id"),
        "--sparsity": (joint.sparsities, "sparsity"),
        "--task": (joint.tasks, "env.task"),
        **{f"--set {key}": (values, key) for key, values in joint.sets.items()},
    }
    for flag, (values, key) in several.items():
        if len(values) > 1 and flags.get(key) is None:
            shown = ", ".join(map(str, values))
            raise InputError(
                f"{flag}: preset '{preset.name}' names several ({shown}); choose one, or train "
                "them all with dstrl sweep"
            )


def _values(axis: Sequence[Any]) -> list[Any]:
    return list(axis) or [None]


def _combinations(sets: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in product(*sets.values()):
        yield dict(zip(sets, values, strict=True))


def suffix(extra: Mapping[str, Any], keys: Iterable[str]) -> str:
    """Return what the method's folder says of further keys: `+nstep5`.

    The last part of a key is enough, unless two of `keys` share it.
    """
    leaves = Counter(key.rpartition(".")[2] for key in keys)
    parts = []
    for key, value in extra.items():
        if key in PLACES:  # `run_path` says what lies there
            continue
        leaf = key.rpartition(".")[2]
        parts.append(f"+{leaf if leaves[leaf] == 1 else key}{_readable(value)}")
    return "".join(parts)


def _readable(value: Any) -> str:
    """Return a value as part of a folder's name."""
    if isinstance(value, bool) or value is None:
        return f"-{value}".lower()
    if isinstance(value, int | float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return "".join(f"-{name}{_readable(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return "x".join(_readable(item) for item in value)
    return "-" + re.sub(r"[^A-Za-z0-9._-]+", "-", str(value))


# --- from a configuration to a run --------------------------------------------------------------


def prepare(config: RunConfig, path: Path) -> Run:
    """Return the run of a configuration in the folder `path`, relative to the results.

    Raises InputError for an unknown environment, a sparsity that its networks cannot have, or a
    user's own score, schedule or initial mask that does not fit.
    """
    spec = env_spec(config.env).for_seed(config.seed)
    env = config.env.model_copy(update={"id": spec.id})
    config = sized(config.model_copy(update={"env": env}), spec)
    if takes_something(config):
        config = sized(started(config, spec), spec)
    return Run(config, spec, Path(config.out) / path, str(path), notes=spec.notes)


def sized(config: RunConfig, spec: EnvSpec) -> RunConfig:
    """Return a configuration with all layer sizes; check its budgets and a user's own code.

    Raises InputError where a budget is impossible, exceeds a limit on the inputs of neurons, or
    would not arrive within the run, or a user's own score, schedule or initial mask does not fit.
    """
    config = resolve_sizes(config, spec.observation_size, spec.action_size)
    layer_budgets(config, spec)
    for role, shapes in network_shapes(config, spec).items():
        feasible.check_limits(role, getattr(config, role), shapes)
    refuse_unreached_sparsity(config)
    if config.actor.is_extended or config.critic.is_extended:
        from dstrl_cli.topology.extensions import check_extensions

        check_extensions(config)
    return config


def layer_budgets(config: RunConfig, spec: EnvSpec) -> dict[str, list[int]]:
    """Return the active connections per layer of the actor and of one critic."""
    sizes = network_sizes(config, spec.observation_size, spec.action_size)
    found = {}
    for role, widths in zip(("actor", "critic"), sizes, strict=True):
        try:
            found[role] = _budgets(getattr(config, role), widths)
        except InputError as error:
            raise InputError(f"{role}.{error}") from None
    return found


def sparsity_notes(config: RunConfig, spec: EnvSpec) -> list[str]:
    """Return where a network's realised sparsity is not the one that was asked for.

    A layer has a whole number of connections and a matched network a whole number of units, so
    small networks miss the sparsity.
    """
    active = layer_budgets(config, spec)
    sizes = network_sizes(config, spec.observation_size, spec.action_size)
    found = []
    for role, widths in zip(effects.ROLES, sizes, strict=True):
        if role not in effects.roles_of(config):
            continue
        network: NetworkConfig = getattr(config, role)
        dense, kept = sum(layer_weights(compared_sizes(config, role, widths))), sum(active[role])
        realised = 1 - kept / dense
        if not network.dense and abs(realised - network.sparsity) > SPARSITY_TOLERANCE:
            each = "the actor" if role == "actor" else "each critic"
            found.append(
                f"{each} realises a sparsity of {realised:.3g}, not {network.sparsity:.10g}: "
                f"{kept:,} of {dense:,} connections ({layers_in_words(active[role])} in its layers)"
            )
    return found


def limit_notes(config: RunConfig, spec: EnvSpec) -> list[str]:
    """Return which layers are exempt from a limit on the inputs of neurons."""
    return [
        note
        for role, shapes in network_shapes(config, spec).items()
        for note in feasible.limit_notes(role, getattr(config, role), shapes)
    ]


def network_shapes(config: RunConfig, spec: EnvSpec) -> dict[str, list[budgets.Shape]]:
    """Return (inputs, outputs) of the layers of the actor and, where there are any, of a critic."""
    sizes = network_sizes(config, spec.observation_size, spec.action_size)
    shapes = dict(zip(effects.ROLES, sizes, strict=True))
    return {role: list(pairwise(shapes[role])) for role in effects.roles_of(config)}


def layers_in_words(budgets: Sequence[int]) -> str:
    """Return the active connections per layer: `1,200 + 31 + 7`."""
    return " + ".join(f"{count:,}" for count in budgets)


def env_spec(env: EnvConfig) -> EnvSpec:
    """Return the environment of a configuration, made once and checked (`envs.spec`).

    Raises InputError.
    """
    from dstrl_cli import envs

    return envs.spec(
        env.id,
        env.task,
        env.kwargs,
        flatten=env.flatten,
        noise_features=env.noise_features,
        timeout=env.timeout,
    )


@cache
def _budgets(network: NetworkConfig, widths: tuple[int, ...]) -> list[int]:
    return budgets.layer_budgets(network, list(pairwise(widths)))
