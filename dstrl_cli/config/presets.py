"""Presets of sweeps, and how algorithm, method, preset, `--set` and flags become one RunConfig.

Precedence: algorithm < method < overlay < preset < `--set` < flags; a later layer replaces single
keys. What to run in which order is left to the sweep's plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from dstrl_cli.config.fields import MetricName, PositiveInt, Share
from dstrl_cli.config.identity import env_name
from dstrl_cli.config.methods import (
    DEFAULT_METHOD,
    LAST_ORDER,
    Layer,
    StrictFile,
    find_method,
    layer,
    method_name,
    presets_dir,
)
from dstrl_cli.config.models import BY_LAYER, RunConfig
from dstrl_cli.config.parse import Origin, explain, from_dict
from dstrl_cli.config.ranges import parse_integers, parse_names, parse_numbers
from dstrl_cli.config.refusals import (
    refuse_absent_critics,
    refuse_short_buffer,
    refuse_standstill,
    refuse_unknown_end,
    refuse_widths_beside_match,
)
from dstrl_cli.config.shrink import scaled_keys
from dstrl_cli.config.stages import written
from dstrl_cli.config.stray import refuse_stray_keys
from dstrl_cli.config.yamlfile import parse_yaml, read_yaml
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.registry import ALGORITHMS, algorithm_name, is_outside, module_file, note_source

__all__ = [
    "DEFAULT_ALGO",
    "DEFAULT_METHOD",
    "LAST_ORDER",
    "Case",
    "Resolved",
    "SweepAxes",
    "SweepPreset",
    "When",
    "find_method",
    "list_presets",
    "load_sweep_preset",
    "resolve",
    "resolve_explicit",
]

DEFAULT_ALGO = "td3"

FOLDERS = ("papers", "studies")
"""Folders of shipped presets; their presets may be named without the folder."""


# --- the files ----------------------------------------------------------------------------------


class When(StrictFile):
    """The runs that a case is for; what is not named may be anything."""

    algo: tuple[str, ...] = ()
    dst: tuple[str, ...] = ()
    env: tuple[str, ...] = ()

    @field_validator("*", mode="before")
    @classmethod
    def _names(cls, value: Any) -> list[str]:
        return parse_names(value, "when")

    def matches(self, algo: str, method: str, env_id: str) -> bool:
        """Whether a run of this algorithm, method and environment is meant."""
        return (
            (not self.algo or algo in (*self.algo, *map(algorithm_name, self.algo)))
            and (not self.dst or method in map(method_name, self.dst))
            and (not self.env or env_name(env_id) in map(env_name, self.env))
        )


class Case(StrictFile):
    """Keys for some of a preset's runs, or for all; a later case beats an earlier one."""

    when: When = When()
    config: dict[str, Any]

    _references = field_validator("config", mode="before")(written)


class SweepAxes(StrictFile):
    """What a sweep varies; an empty axis is left to the command line and the defaults.

    `set` are further config keys, each with its values: every combination of them is trained.
    `variants` are changes of which a run has none or one: what is changed, and in which runs.
    """

    algo: tuple[str, ...] = ()
    dst: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    sparsity: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    task: tuple[int, ...] = ()
    set: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    variants: tuple[Case, ...] = ()

    @field_validator("algo", "dst", "env", mode="before")
    @classmethod
    def _names(cls, value: Any, info: ValidationInfo) -> list[str]:
        return parse_names(value, f"sweep.{info.field_name}")

    @field_validator("sparsity", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> list[float]:
        return parse_numbers(value, "sweep.sparsity")

    @field_validator("seeds", "task", mode="before")
    @classmethod
    def _integers(cls, value: Any, info: ValidationInfo) -> list[int]:
        return parse_integers(value, f"sweep.{info.field_name}")

    @field_validator("set", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: v if isinstance(v, list | tuple) else [v] for k, v in value.items()}


class Stage(StrictFile):
    """Some of a preset's runs, which follow others: their axes and keys, beside those of all."""

    sweep: SweepAxes = SweepAxes()
    config: dict[str, Any] = Field(default_factory=dict)
    cases: tuple[Case, ...] = ()

    _references = field_validator("config", mode="before")(written)


class SweepPreset(StrictFile):
    """A preset: a sweep's axes, the keys of all its runs, and the table that it is for.

    With `stages`, runs are those of the stages, in order; axes, keys and cases are of all of them,
    unless a stage has its own. `until_decided` and the three keys below it are the flags of these
    names. `of_stage_alone` are the keys of the stage whose runs these are.
    """

    name: str
    source: str
    description: str
    sweep: SweepAxes = SweepAxes()
    config: dict[str, Any] = Field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    stages: dict[str, Stage] = Field(default_factory=dict)
    of_stage_alone: dict[str, Any] = Field(default_factory=dict)
    compare: str | None = None
    metric: MetricName | None = None
    until_decided: tuple[str, ...] = ()
    max_seeds: PositiveInt | None = None
    seeds_per_round: PositiveInt | None = None
    alpha: Share | None = None

    @field_validator("until_decided", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> list[str]:
        return parse_names(value, "until_decided")

    def of_stage(self, name: str) -> SweepPreset:
        """Return the preset that the runs of a stage have."""
        stage = self.stages[name]
        axes = {
            axis: getattr(stage.sweep, axis) or getattr(self.sweep, axis)
            for axis in SweepAxes.model_fields
        }
        update = {
            "sweep": SweepAxes.model_construct(**axes),
            "of_stage_alone": stage.config,
            "cases": (*self.cases, *stage.cases),
            "stages": {},
        }
        return self.model_copy(update=update)

    def layers(self, algo: str, method: str, env_id: str) -> list[Layer]:
        """Return the keys for one run: metric, axes of one value, `config`, then its cases.

        The keys of a stage go over those of all stages.
        """
        axes = {"env": self.sweep.env, "env.task": self.sweep.task, "sparsity": self.sweep.sparsity}
        single = {k: v[0] for k, v in {**axes, **self.sweep.set}.items() if len(v) == 1}
        cases = [case.config for case in self.cases if case.when.matches(algo, method, env_id)]
        own = {} if self.metric is None else {"metric": self.metric}
        blocks = (own, single, self.config, self.of_stage_alone, *cases)
        return [layer(block, self.source) for block in blocks]


_ADDED = frozenset({"name", "source", "of_stage_alone"})
"""Fields that come from elsewhere than what the file holds under their names."""


def list_presets() -> list[str]:
    """Return the names of the shipped sweep presets: `quick`, `papers/xu2024-table1`, ..."""
    root = presets_dir()
    files = [path for folder in ("", *FOLDERS) for path in (root / folder).glob("*.yaml")]
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in files)


def _preset_path(name: str | Path) -> Path:
    if isinstance(name, Path) or name.endswith((".yaml", ".yml")):
        return Path(name)
    for known in (name, *(f"{folder}/{name}" for folder in FOLDERS)):
        if known in list_presets():
            return presets_dir() / f"{known}.yaml"
    raise InputError(suggest("preset", name, list_presets()) + "; or the path of a .yaml file")


def load_sweep_preset(name: str | Path) -> SweepPreset:
    """Return a preset by name (`quick`, `xu2024-table1`) or from a file, checked throughout.

    Raises InputError naming the file and the key.
    """
    path = _preset_path(name)
    content = read_yaml(path)
    added = {"name": path.stem, "source": str(path)}
    try:
        for key in _ADDED & content.keys():
            raise InputError(_unknown_key(key))
        refuse_stray_keys(content, SweepPreset.model_fields)
        preset = SweepPreset.model_validate({"description": "", **content, **added})
        _check(preset)
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error, _unknown_key)}") from None
    except InputError as error:
        prefix = "" if str(error).startswith(str(path)) else f"{path}: "
        raise InputError(f"{prefix}{error}") from None
    return preset


def _unknown_key(key: str) -> str:
    """Return the message for an unknown key of a preset's own (not of its `config`)."""
    group = key.rpartition(".")[0]
    models: dict[str, type[StrictFile]] = {"sweep": SweepAxes}
    for cases in ("cases", "sweep.variants"):
        models |= {cases: Case, f"{cases}.when": When}
    stage, _, rest = key.removeprefix("stages.").partition(".")
    if key.startswith("stages.") and rest:
        own: dict[str, type[StrictFile]] = {"": Stage, **models}
        models = {f"stages.{stage}{'.' * bool(g)}{g}": m for g, m in own.items()}
    names = [name for name in models.get(group, SweepPreset).model_fields if name not in _ADDED]
    return suggest("key", key, [f"{group}.{name}" if group else name for name in names])


def _check(preset: SweepPreset) -> None:
    """Check the names and keys of a preset, also of cases that may never apply."""
    for name in preset.stages:
        _check(preset.of_stage(name))
    cases = (*preset.cases, *preset.sweep.variants)
    note_source([*preset.sweep.algo, *preset.sweep.env], preset.source)
    for algo in (*preset.sweep.algo, *(name for case in cases for name in case.when.algo)):
        _check_algorithm(algo)
    for method in (*preset.sweep.dst, *(name for case in cases for name in case.when.dst)):
        find_method(method)
    shared = (preset.sweep.set, preset.config, preset.of_stage_alone)
    for block in (*shared, *(case.config for case in cases)):
        layer(block, preset.source)


# --- from layers to a configuration ------------------------------------------------------------


def _check_algorithm(algo: str, prefix: str = "") -> None:
    """Raise InputError unless `algo` is one of dstrl's, or `module:Class`."""
    if algo not in ALGORITHMS and not is_outside(algo):
        known = suggest("algorithm", algo, ALGORITHMS)
        raise InputError(f"{prefix}{known}, or module:Class of your own")


@cache
def _algo_layer(algo: str) -> Layer:
    """Return the base keys of an algorithm; an outside one has `NAME.yaml` beside its module."""
    path = presets_dir() / "algos" / f"{algo}.yaml"
    if is_outside(algo):
        path = module_file(algo).with_name(f"{algorithm_name(algo)}.yaml")
        if not path.is_file():
            raise InputError(
                f"algo = '{algo}': its settings are missing: write them to {path.name} beside "
                f"{module_file(algo).name} (dstrl's own are in {presets_dir() / 'algos'})"
            )
    return layer(read_yaml(path), str(path))


def _parse_set(text: str) -> Layer:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text}: must be key=value, as in --set nstep=3")
    return layer({key.strip(): parse_yaml(value, f"--set {key}")}, "--set")


_FLAGS = {
    "env.id": "--env",
    "env.task": "--task",
    "replay_device": "--replay-device",
    "checkpoint_every": "--checkpoint-every",
    "keep_checkpoint": "--keep-checkpoint",
    "tensorboard": "--tensorboard",
    "wandb": "--wandb",
    "init_mask_from": "--init-mask-from",
    "init_weights_from": "--init-weights-from",
    "expert_q": "--expert-q",
    "prefill_from": "--prefill-from",
}
"""The flags of keys whose name is not simply the key."""


def flag_name(key: str) -> str:
    """Return the flag of a key: `--env` of `env.id`."""
    return _FLAGS.get(key) or "--" + key.replace(".", "-")


def _flag_layers(flags: Mapping[str, Any]) -> list[Layer]:
    """Return a layer per given flag, those of one network after those of both."""
    return [
        layer({key: value}, flag_name(key))
        for key, value in sorted(flags.items(), key=lambda item: item[0].count("."))
        if value is not None
    ]


def _nested(settings: Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, (value, _) in settings.items():
        *groups, leaf = key.split(".")
        block = nested
        for group in groups:
            block = block.setdefault(group, {})
        block[leaf] = value
    return nested


def _merge(layers: Sequence[Layer]) -> Layer:
    return {key: setting for each in layers for key, setting in each.items()}


def _refuse_sparsity_beside_layers(settings: Layer, default: Layer) -> None:
    """A sparsity that somebody chose would be silently replaced by that of the layers."""
    for network in ("actor", "critic"):
        key = f"{network}.sparsity"
        allocation = str(settings.get(f"{network}.allocation", ("",))[0])
        by = instead = ""
        if settings.get(f"{network}.topology.n_of_m", (None,))[0] is not None:
            by = "topology.n_of_m"
            instead = f"{network}.{by}=null"
        elif allocation in BY_LAYER:
            by, _ = BY_LAYER[allocation]
            instead = f"{network}.allocation=erdos_renyi and {network}.{by}=null"
        if by and settings.get(key) not in (None, default.get(key)):
            value, origin = settings[key]
            raise InputError(
                f"{origin.key} = {value!r}: the {network}'s sparsity follows from {network}.{by}; "
                f"leave it out, or set {instead} (set by {origin.source})"
            )


def _shrunk(
    algo: str, method: str, below: Sequence[Layer], between: Sequence[Layer], scale: float
) -> Layer:
    """Return the keys that `--scale` changes, of what algorithm, method and preset say.

    Flags and `--set` are what somebody wants of the small run, and are not read here.
    """
    settings = _merge([*below, *between])
    origins = {key: origin for key, (_, origin) in settings.items()}
    config = from_dict({"algo": algo, "method": method, **_nested(settings)}, origins)
    return layer(scaled_keys(config, scale), "--scale")


class Resolved(NamedTuple):
    """A checked configuration, and which of its keys a preset, `--set` or a flag gave."""

    config: RunConfig
    explicit: Mapping[str, Origin]


def resolve(
    method: str | Path | None = None,
    algo: str | None = None,
    *,
    ours: bool | None = None,
    preset: SweepPreset | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the checked configuration of one run.

    `method` is a name (`rlx2`, `our-rlx2`) or a user's own file; without one, or without `algo`,
    the preset's only one is taken, or else the default. `sets` are `key=value` texts with YAML
    values; `flags` are dotted keys or macros, None where a flag was not given; `ours` is that of
    `find_method`. Raises InputError.
    """
    return resolve_explicit(method, algo, ours=ours, preset=preset, sets=sets, flags=flags).config


def resolve_explicit(
    method: str | Path | None = None,
    algo: str | None = None,
    *,
    ours: bool | None = None,
    preset: SweepPreset | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    scale: float | None = None,
) -> Resolved:
    """Return the checked configuration of one run, and the keys that were given; see `resolve`.

    With a `scale` everything below `--set` and the flags that counts steps shrinks to that share.
    """
    axes = preset.sweep if preset else SweepAxes()
    if algo is None:
        algo = axes.algo[0] if len(axes.algo) == 1 else DEFAULT_ALGO
    _check_algorithm(algo, "--algo: ")
    name = algorithm_name(algo)
    if method is None:
        method = axes.dst[0] if len(axes.dst) == 1 else DEFAULT_METHOD
    chosen = find_method(method, ours=ours)
    if refusal := chosen.refusal(name):
        raise InputError(refusal)
    below = [_algo_layer(algo), chosen.layer(name)]
    above = [*map(_parse_set, sets), *_flag_layers(flags or {})]
    between: list[Layer] = []
    for _ in range(2 if preset else 0):  # the environment chooses the cases; any layer may name it
        env_id = str(_merge([*below, *between, *above]).get("env.id", ("",))[0])
        between = preset.layers(name, chosen.name, env_id) if preset else []
    shrunk = [] if scale is None else [_shrunk(algo, chosen.name, below, between, scale)]
    settings = _merge([*below, *between, *shrunk, *above])
    if "env.id" not in settings:
        raise InputError(f"env is missing: choose one with --env, or set it in {name}.yaml")
    _refuse_sparsity_beside_layers(settings, below[0])
    origins = {key: origin for key, (_, origin) in settings.items()}
    shown = {"method_label": chosen.label, "method_order": chosen.order}
    named = {"algo": algo, "method": chosen.name} | ({} if chosen.shipped else shown)
    config = from_dict({**named, **_nested(settings)}, origins)
    refuse_widths_beside_match(config, origins)
    refuse_absent_critics(config, origins)
    refuse_standstill(config, origins)
    refuse_short_buffer(config, origins)
    refuse_unknown_end(config, origins)
    return Resolved(config, {key: origins[key] for key in _merge([*between, *above])})
