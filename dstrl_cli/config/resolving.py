"""How algorithm, method, preset, `--set` and flags become one RunConfig.

Precedence: algorithm < method < overlay < preset < `--set` < flags; a later layer replaces single
keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dstrl_cli.config.methods import (
    DEFAULT_METHOD,
    Layer,
    find_method,
    layer,
    presets_dir,
)
from dstrl_cli.config.models import BY_LAYER, RunConfig
from dstrl_cli.config.parse import Origin, from_dict
from dstrl_cli.config.presets import SweepAxes, SweepPreset, check_algorithm
from dstrl_cli.config.refusals import (
    refuse_absent_critics,
    refuse_short_buffer,
    refuse_standstill,
    refuse_unknown_end,
    refuse_widths_beside_match,
)
from dstrl_cli.config.shrink import scaled_keys
from dstrl_cli.config.yamlfile import parse_yaml, read_yaml
from dstrl_cli.errors import InputError
from dstrl_cli.registry import algorithm_name, is_outside, module_file

DEFAULT_ALGO = "td3"


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
    check_algorithm(algo, "--algo: ")
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
