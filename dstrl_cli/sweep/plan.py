"""What a sweep runs: axes to runs, and the states of their folders.

Nothing is trained or written here; `packing` forms populations, `local` carries a plan out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstrl_cli.config.identity import differences, run_path
from dstrl_cli.config.models import EnvConfig, NetworkConfig, RunConfig
from dstrl_cli.config.network_sizes import network_sizes, resolve_sizes
from dstrl_cli.config.presets import SweepPreset, resolve
from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import (
    check_free,
    check_unused,
    check_writable,
    read_config,
    read_status,
)
from dstrl_cli.topology import budgets
from dstrl_cli.training.run import Run

if TYPE_CHECKING:
    from dstrl_cli.envs import EnvSpec


@dataclass(frozen=True)
class Axes:
    """What a sweep varies. An empty axis has one value, which presets and defaults decide.

    `sets` are further dotted keys, each with its values.
    """

    algos: Sequence[str] = ()
    methods: Sequence[str] = ()
    envs: Sequence[str] = ()
    tasks: Sequence[int] = ()
    sparsities: Sequence[float] = ()
    seeds: Sequence[int] = ()
    sets: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def over(self, preset: SweepPreset | None, sets: Sequence[str]) -> Axes:
        """Return these axes with the preset's where these are empty.

        An axis of the preset ends where a `--set` of the same key fixes its value. An axis of one
        value is left to the preset, whose cases may then change it.
        """
        if preset is None:
            return self
        theirs, fixed = preset.sweep, {text.partition("=")[0].strip() for text in sets}

        def pick(own: Sequence[Any], other: Sequence[Any], key: str) -> Sequence[Any]:
            return own or (other if len(other) > 1 and key not in fixed else ())

        return Axes(
            algos=self.algos or theirs.algo,
            methods=self.methods or theirs.dst,
            envs=pick(self.envs, theirs.env, "env"),
            tasks=pick(self.tasks, theirs.task, "env.task"),
            sparsities=pick(self.sparsities, theirs.sparsity, "sparsity"),
            seeds=self.seeds or (theirs.seeds if "seed" not in fixed else ()),
            sets={k: v for k, v in theirs.set.items() if len(v) > 1 and k not in fixed},
        )


@dataclass(frozen=True)
class Planned:
    """A run of the plan and the state of its folder.

    Attributes:
        run: the run.
        status: `new`, `finished`, or how an earlier attempt ended (`interrupted`, ...).
    """

    run: Run
    status: str

    @property
    def to_do(self) -> bool:
        """Whether the run will be trained."""
        return self.run.replace or self.status == "new"


# --- from axes to configurations ----------------------------------------------------------------


def configurations(
    axes: Axes,
    *,
    ours: bool = False,
    preset: SweepPreset | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> list[tuple[RunConfig, Path]]:
    """Return every combination of the axes and its folder relative to the results, each once.

    `flags` are further explicit flags. Raises InputError for values that are not valid.
    """
    axes = axes.over(preset, sets)
    with_task = len(axes.tasks) > 1
    found: dict[Path, RunConfig] = {}
    for algo, env, task, sparsity, method, extra, seed in product(
        _values(axes.algos),
        _values(axes.envs),
        _values(axes.tasks),
        _values(axes.sparsities),
        _values(axes.methods),
        list(_combinations(axes.sets)),
        _values(axes.seeds),
    ):
        chosen = {"env.id": env, "env.task": task, "sparsity": sparsity, "seed": seed, **extra}
        given = {key: value for key, value in chosen.items() if value is not None}
        config = resolve(
            method, algo, ours=ours, preset=preset, sets=sets, flags={**given, **(flags or {})}
        )
        path = run_path(config, suffix(extra, axes.sets), with_task=with_task)
        known = found.setdefault(path, config)
        if differing := differences(known, config):  # the same run twice is one: a dense one
            raise InputError(
                f"two runs of this sweep would share the folder {path}; they differ in "
                f"{'; '.join(differing)}"
            )
    return [(config, path) for path, config in found.items()]


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
        leaf = key.rpartition(".")[2]
        parts.append(f"+{leaf if leaves[leaf] == 1 else key}{_readable(value)}")
    return "".join(parts)


def _readable(value: Any) -> str:
    """Return a value as part of a folder's name."""
    if isinstance(value, bool) or value is None:
        return f"-{value}".lower()
    if isinstance(value, int | float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return "x".join(_readable(item) for item in value)
    return "-" + re.sub(r"[^A-Za-z0-9._-]+", "-", str(value))


# --- from configurations to runs ----------------------------------------------------------------


def prepare(config: RunConfig, path: Path) -> Run:
    """Return the run of a configuration: environment found, sizes resolved, budgets checked.

    Raises InputError for an unknown environment, a sparsity that its networks cannot have, or
    scores, schedules and initial masks of somebody else's that do not fit.
    """
    spec = _spec(config.env)
    env = config.env.model_copy(update={"id": spec.id})
    sizes = (spec.observation_size, spec.action_size)
    config = resolve_sizes(config.model_copy(update={"env": env}), *sizes)
    layer_budgets(config, spec)
    if config.actor.is_extended or config.critic.is_extended:
        from dstrl_cli.topology.extensions import check_scores

        check_scores(config)
    return Run(config, spec, Path(config.out) / path, str(path))


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


def _spec(env: EnvConfig) -> EnvSpec:
    from dstrl_cli import envs

    return envs.spec(env.id, env.task, env.kwargs)


@cache
def _budgets(network: NetworkConfig, widths: tuple[int, ...]) -> list[int]:
    return budgets.layer_budgets(network, list(pairwise(widths)))


# --- the states of the folders ------------------------------------------------------------------


def fresh(runs: Iterable[Run], overwrite: bool) -> list[Planned]:
    """Plan runs that may only start in folders without a run, unless `overwrite`.

    Raises InputError for the first folder that is taken.
    """
    planned = []
    for run in runs:
        check_free(run.path, run.config, overwrite)
        planned.append(_planned(run, overwrite))
    return planned


def resumed(runs: Iterable[Run], overwrite: bool) -> list[Planned]:
    """Plan runs of which the finished ones are skipped and unfinished ones start over.

    `overwrite` starts all of them over, and replaces other configurations. Raises InputError where
    a folder holds another configuration, or something that is no run.
    """
    planned = []
    for run in runs:
        status = read_status(run.path)
        if overwrite or status is None or differences(read_config(run.path), run.config):
            check_free(run.path, run.config, overwrite)
        planned.append(_planned(run, overwrite or status != "finished"))
    return planned


def _planned(run: Run, replace: bool) -> Planned:
    check_unused(run.path)
    status = read_status(run.path)
    started_over = replace and status is not None
    planned = Planned(
        Run(run.config, run.spec, run.path, run.label, replace=started_over), status or "new"
    )
    if planned.to_do:
        check_writable(run.path)
    return planned
