"""Presets of sweeps: the files, what they may hold, and the layer of keys that they give to a run.

How layers become a configuration is in `resolving`, what to run in which order in the sweep's plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from dstrl_cli.config.fields import MetricName, PositiveInt, Share
from dstrl_cli.config.identity import env_name
from dstrl_cli.config.methods import (
    Layer,
    StrictFile,
    find_method,
    layer,
    method_name,
    presets_dir,
)
from dstrl_cli.config.parse import explain
from dstrl_cli.config.ranges import parse_integers, parse_names, parse_numbers
from dstrl_cli.config.stages import written
from dstrl_cli.config.stray import refuse_stray_keys
from dstrl_cli.config.yamlfile import read_yaml
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.registry import ALGORITHMS, algorithm_name, is_outside, note_source

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
        check_algorithm(algo)
    for method in (*preset.sweep.dst, *(name for case in cases for name in case.when.dst)):
        find_method(method)
    shared = (preset.sweep.set, preset.config, preset.of_stage_alone)
    for block in (*shared, *(case.config for case in cases)):
        layer(block, preset.source)


def check_algorithm(algo: str, prefix: str = "") -> None:
    """Raise InputError unless `algo` is one of dstrl's, or `module:Class`."""
    if algo not in ALGORITHMS and not is_outside(algo):
        known = suggest("algorithm", algo, ALGORITHMS)
        raise InputError(f"{prefix}{known}, or module:Class of your own")
