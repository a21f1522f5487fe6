"""Methods: the YAML files that say what a method is, and the layers of keys that they give.

A method is only a file: no code here depends on which method it is. `models` checks the values,
and `presets` puts the layers together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dstrl_cli.config.keys import MAPPINGS, expand, free_form_group, keys, unknown_key
from dstrl_cli.config.models import ALL_ACTIVE_KEYS
from dstrl_cli.config.parse import Origin, explain
from dstrl_cli.config.yamlfile import read_yaml
from dstrl_cli.errors import InputError, suggest
from dstrl_cli.registry import ALGORITHMS, note_source

OVERLAY = "ours"
"""The overlay that `--ours` puts over a host method."""

DEFAULT_METHOD = "rlx2"

MAX_EXTENDED = 20
"""Methods that extend one another in a row; more are a mistake."""

LAST_ORDER = 1000
"""Where a method without an order stands in a table."""


def presets_dir() -> Path:
    """Return the folder of the shipped presets: inside the wheel, or beside the source package."""
    package = Path(__file__).parents[1]
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"


# --- flat layers of keys ------------------------------------------------------------------------

Setting = tuple[Any, Origin]
Layer = dict[str, Setting]
"""Dotted key -> value and where it was written; macros are already expanded."""


def _dotted(block: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of a nested or dotted mapping, dotted; `env: ID` is short for `env.id`.

    A key whose value may be a mapping keeps it, also where it is written dotted.
    """
    for name, value in block.items():
        key = f"{prefix}{name}"
        group, _, leaf = key.rpartition(".")
        if group in MAPPINGS:
            yield group, {leaf: value}
        elif isinstance(value, Mapping) and key not in MAPPINGS and (value or not expand(key)):
            yield from _dotted(value, f"{key}.")
        else:
            yield ("env.id" if key == "env" else key), value


def layer(block: Mapping[Any, Any], source: str) -> Layer:
    """Return a block of keys as a layer; within it a network's own key beats a macro.

    Raises InputError for unknown keys, all of them, naming `source` (a file, `--set`).
    """
    macros: Layer = {}
    own: Layer = {}
    unknown: list[str] = []
    for key, value in _dotted(block):
        if key in ("algo", "method"):
            raise InputError(f"{source}: '{key}' cannot be set here; use --algo or --dst")
        if not source.startswith("--"):
            note_source(value, source)
        setting = value, Origin(key, source)
        if names := expand(key):
            (own if key in names else macros).update(dict.fromkeys(names, setting))
        elif group := free_form_group(key):
            raise InputError(f"{source}: {key} = {value!r}: must be {group}.NAME = VALUE")
        elif inner := [known for known in keys() if known.startswith(f"{key}.")]:
            raise InputError(f"{source}: {key} = {value!r}: is a group of keys, such as {inner[0]}")
        else:
            unknown.append(f"{source}: {unknown_key(key, value)}")
    if unknown:
        raise InputError("\n".join(unknown))
    return macros | own


# --- methods ------------------------------------------------------------------------------------


class StrictFile(BaseModel):
    """A YAML file of which every key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _MethodFile(StrictFile):
    """What a method file may hold: a block of keys for all algorithms, and blocks for single ones.

    Blocks for algorithms that are not dstrl's own are allowed for those that `algos` lists.
    """

    label: str | None = None
    order: int = LAST_ORDER
    extends: str | None = None
    algos: list[str] | None = None
    overlay: bool = False
    prefix: str = ""
    all: dict[str, Any] = {}
    by_algo: dict[str, dict[str, Any]] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: dict[str, Any]) -> dict[str, Any]:
        listed = data.get("algos")
        named = {*ALGORITHMS, *(listed if isinstance(listed, list) else ())}
        rest = {key: value for key, value in data.items() if key not in named}
        blocks = {key: value or {} for key, value in data.items() if key in named}
        if rest.get("all", {}) is None:
            rest["all"] = {}
        return rest | {"by_algo": blocks}


@dataclass(frozen=True)
class Method:
    """A method: its name, how tables show it, and its keys.

    Attributes:
        name: of its file, or of host and overlay together.
        label: how tables call it.
        order: where it stands in tables.
        shared: keys for every algorithm; those of `blocks` win.
        blocks: keys for single algorithms. A method with blocks exists for those algorithms only;
            one without fits every algorithm.
        algos: the algorithms that it is restricted to; None where nothing restricts it.
        overlay: whether it only replaces keys of another method, its host (as `ours` does).
        prefix: what an overlay puts before the name of its host.
        shipped: whether it is one of dstrl's own; label and order of others are stored with a run.
    """

    name: str
    label: str
    order: int
    shared: Layer
    blocks: Mapping[str, Layer]
    algos: tuple[str, ...] | None = None
    overlay: bool = False
    prefix: str = ""
    shipped: bool = True

    def refusal(self, algo: str) -> str | None:
        """Return why the method cannot be used with an algorithm, and what helps, or None."""
        if self.algos is not None and algo not in self.algos:
            only = ", ".join(self.algos)
            return (
                f"method '{self.name}' exists for {only} only, not for {algo}; choose "
                f"--algo {self.algos[0]} or another --dst"
            )
        if self.blocks and algo not in self.blocks:
            only = " and ".join(self.blocks)
            return (
                f"method '{self.name}' has keys for {only}, but none for {algo}; choose another "
                f"--dst, such as sst, or {self._fitting(algo)} a block '{algo}:'"
            )
        return None

    def _fitting(self, algo: str) -> str:
        """Return where a block for one more algorithm may be written: `refusal` ends with it."""
        if self.shipped:
            listed = "" if algo in ALGORITHMS else f", 'algos: [{algo}]'"
            return f"write a method file with 'extends: {self.name}'{listed} and"
        algos = ", ".join((*self.blocks, algo))
        return "give its file" + ("" if algo in ALGORITHMS else f" 'algos: [{algos}]' and")

    def layer(self, algo: str) -> Layer:
        """Return the keys for an algorithm that it exists for."""
        return self.shared | self.blocks.get(algo, {})


@cache
def _files(folder: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((presets_dir() / folder).glob("*.yaml"))}


def _is_path(name: str | Path) -> bool:
    return isinstance(name, Path) or name.endswith((".yaml", ".yml")) or "/" in name


def _read_method(path: Path, seen: tuple[Path, ...] = ()) -> Method:
    """Read a method file and those it extends."""
    if path in seen:
        raise InputError(f"{path}: extends itself, by way of {', '.join(map(str, seen))}")
    if len(seen) > MAX_EXTENDED:
        raise InputError(f"{seen[0]}: extends more than {MAX_EXTENDED} methods in a row")
    try:
        file = _MethodFile.model_validate(read_yaml(path))
    except ValidationError as error:
        valid = [*_MethodFile.model_fields, *ALGORITHMS]
        valid.remove("by_algo")
        message = explain(error, lambda key: suggest("key", key, valid)).replace("by_algo.", "")
        raise InputError(f"{path}: {message}") from None
    for name in file.algos or ():
        if name not in (*ALGORITHMS, *file.by_algo):
            raise InputError(f"{path}: algos: {suggest('algorithm', name, ALGORITHMS)}")
    if not (file.all or file.by_algo or file.extends):
        raise InputError(f"{path}: it sets nothing; give it keys under 'all:', or 'extends: NAME'")
    shared = layer(file.all, str(path))
    blocks = {name: layer(block, str(path)) for name, block in file.by_algo.items()}
    algos = tuple(file.algos) if file.algos else None
    if file.extends is not None:
        base = _base(file.extends, path, seen)
        # what this file says for all algorithms beats what its base says for one
        inherited = {name: base.layer(name) | shared for name in base.blocks}
        fresh = {name: base.shared | shared for name in blocks if name not in base.blocks}
        below = inherited | fresh
        blocks = {name: below[name] | blocks.get(name, {}) for name in below}
        shared, algos = base.shared | shared, algos or base.algos
    return Method(
        name=path.stem,
        label=file.label or path.stem,
        order=file.order,
        shared=shared,
        blocks=blocks,
        algos=algos,
        overlay=file.overlay,
        prefix=file.prefix,
    )


def _base(name: str, path: Path, seen: tuple[Path, ...]) -> Method:
    """Return the method that the file `path` extends: of a name (`our-rlx2`), or of a file."""
    if _host_and_overlay(name):
        return find_method(name)
    return _read_method(_method_path(name, path.parent), (*seen, path))


def _method_path(name: str | Path, folder: Path = Path()) -> Path:
    """Return the file of a method; a path is relative to `folder`."""
    if _is_path(name):
        return folder / name
    files = _files("methods")
    if name not in files:
        raise InputError(suggest("method", str(name), list_methods()))
    return files[str(name)]


@cache
def _shipped(path: Path) -> Method:
    return _read_method(path)


def _values(method: Method) -> dict[str | None, dict[str, Any]]:
    """Return a method's keys and values by algorithm (None: any), wherever they were written."""
    layers: dict[str | None, Layer] = {None: method.shared}
    layers |= {algo: method.layer(algo) for algo in method.blocks}
    return {
        algo: {key: value for key, (value, _) in found.items()} for algo, found in layers.items()
    }


def _covered(host: Method, overlay: Method) -> Method:
    """Return a host with an overlay's keys on top.

    An overlay replaces the rules of networks whose topology changes: a host in which such a
    network is dense or static is an InputError.
    """
    for algo in host.blocks or (None,):
        under = host.shared if algo is None else host.layer(algo)
        covering = overlay.shared if algo is None else overlay.layer(algo)
        for network in sorted({key.split(".")[0] for key in covering if ".topology." in key}):
            static = under.get(f"{network}.topology.schedule", ("static",))[0] == "static"
            dense = any(under.get(f"{network}.{k}", (False,))[0] for k in ALL_ACTIVE_KEYS)
            if static or dense:
                moves = under.get(f"{network}.topology.budget", ("constant",))[0] != "constant"
                kind = "dense" if dense else "pruned and nothing else" if moves else "static"
                raise InputError(
                    f"'{overlay.name}' changes how the {network}'s topology adapts, but in "
                    f"'{host.name}' it is {kind}; choose a host that adapts, as in --dst rlx2"
                )
    return replace(
        host,
        name=overlay.prefix + host.name,
        label=f"{overlay.label} {host.label}",
        order=host.order + overlay.order,
        shared=host.shared | overlay.shared,
        blocks={algo: host.layer(algo) | overlay.layer(algo) for algo in host.blocks},
    )


def _own(path: Path) -> Method:
    """Read a user's method file.

    Raises InputError where it has the name of one of dstrl's methods, but other keys: its results
    would be taken for that method's.
    """
    method = _read_method(path)
    if method.name not in list_methods():
        return replace(method, shipped=False)
    if _values(method) != _values(find_method(method.name)):
        raise InputError(
            f"{path}: its results would be taken for those of dstrl's own '{method.name}', from "
            "which it differs; give the file another name"
        )
    return method


def _overlays() -> list[Method]:
    return [method for path in _files("methods").values() if (method := _shipped(path)).overlay]


def _host_and_overlay(name: str | Path) -> tuple[str, Method] | None:
    """Return what a name such as `our-rlx2` is made of; None for a file, and for other names."""
    if isinstance(name, Path) or _is_path(name) or name in _files("methods"):
        return None
    for overlay in _overlays():
        host = name.removeprefix(overlay.prefix)
        if overlay.prefix and host != name and host in _files("methods"):
            return host, overlay
    return None


def method_name(name: str) -> str:
    """Return the name that the runs of a method have: of a file that is its own without suffix."""
    return Path(name).stem if _is_path(name) else name


def find_method(name: str | Path, *, ours: bool | None = None) -> Method:
    """Return a method by name (`rlx2`, `our-rlx2`) or from a user's own file.

    `ours` puts the overlay of that name on top, where the name has not already done so; False
    refuses names that do. Raises InputError for an unknown name, a faulty file, or a host that the
    overlay does not fit.
    """
    if composed := _host_and_overlay(name):
        host, overlay = composed
        if ours is False:
            raise InputError(f"--dst {name} and --no-ours: give one of them, or --dst {host}")
        return _covered(find_method(host), overlay)
    path = _method_path(name)
    method = _own(path) if _is_path(name) else _shipped(path)
    if method.overlay:
        raise InputError(
            f"'{method.name}' is not a method of its own: it goes over a host, as in "
            f"--dst {method.prefix}{DEFAULT_METHOD}"
        )
    if ours:
        return _covered(method, next(each for each in _overlays() if each.name == OVERLAY))
    return method


def list_methods() -> list[str]:
    """Return the names of all methods, hosts under an overlay included, in the order of tables."""
    methods = [_shipped(path) for path in _files("methods").values()]
    hosts = [method for method in methods if not method.overlay]
    for overlay in (method for method in methods if method.overlay):
        for host in list(hosts):
            try:
                hosts.append(_covered(host, overlay))
            except InputError:
                continue
    return [method.name for method in sorted(hosts, key=lambda method: method.order)]
