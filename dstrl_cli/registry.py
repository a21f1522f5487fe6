"""The names that a configuration may use and the code that each stands for: the extension points.

A table maps a name to `module:Name`, which is imported when it is first used, so that
configurations are checked without torch. A score, schedule, initial mask or algorithm may also be
given as `module:Name` of a user's own module; the current folder is searched for it too. A command
imports what its flags name and what is installed, and nothing else that only a file names.
"""

from __future__ import annotations

import importlib.util
import json
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from dstrl_cli.errors import InputError, described

# --- algorithms ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlgorithmRow:
    """What the rest of dstrl must know of an algorithm without importing it.

    What one training iteration computes follows RLX App. C.3 and Table 5.

    Attributes:
        path: its class as `module:Name`; empty in the row that an outside class carries.
        actor_outputs: outputs of the actor per action dimension (SAC: mean and log std).
        critics: critics trained side by side; each has a target.
        target_actor: whether the actor has a target.
        actor_forwards: actor passes for a one-step TD target.
        actor_forwards_per_extra_step: further actor passes for each step beyond the first.
        critics_in_actor_loss: critics that the actor's loss evaluates.
        noises: random streams that an update draws from; each gives one number per row of the
            batch and action dimension.
        noises_per_step: further such streams for each step of n-step targets.
        keys: configuration keys that it reads and other algorithms do not.
        compiled: what takes its updates on the sparse engine by compiled code, as `module:Name`
            (`algos.compiled`); empty: the class itself does.
        needs: what it takes from another run and cannot do without (`config.starts`).
        expert_q: its class for targets that come from a trained run's critics, as `module:Name`;
            empty: there is none.
    """

    path: str = ""
    actor_outputs: int = 1
    critics: int = 2
    target_actor: bool = True
    actor_forwards: int = 1
    actor_forwards_per_extra_step: int = 0
    critics_in_actor_loss: int = 1
    noises: int = 1
    noises_per_step: int = 0
    keys: tuple[str, ...] = ()
    compiled: str = ""
    needs: tuple[str, ...] = ()
    expert_q: str = ""


ALGORITHMS: dict[str, AlgorithmRow] = {
    "td3": AlgorithmRow(
        "dstrl_cli.algos.td3:TD3",
        keys=("exploration_noise", "target_noise", "target_noise_clip"),
        compiled="dstrl_cli.algos.compiled.td3:CompiledTD3",
        expert_q="dstrl_cli.algos.expert_q:ExpertTD3",
    ),
    "sac": AlgorithmRow(
        "dstrl_cli.algos.sac:SAC",
        actor_outputs=2,
        target_actor=False,
        actor_forwards_per_extra_step=1,  # the entropy of every step (RLX eq. 11)
        critics_in_actor_loss=2,
        noises_per_step=1,
        keys=("temperature", "alpha", "target_entropy", "log_std_squash", "log_std_bounds"),
        compiled="dstrl_cli.algos.compiled.sac:CompiledSAC",
        expert_q="dstrl_cli.algos.expert_q:ExpertSAC",
    ),
    "bc": AlgorithmRow(
        "dstrl_cli.algos.bc:BC",
        critics=0,
        target_actor=False,
        actor_forwards=0,
        critics_in_actor_loss=0,
        noises=0,
        keys=("exploration_noise",),
        needs=("expert",),
    ),
}
"""A new algorithm is one file, its row here and `presets/algos/NAME.yaml`."""

# --- what methods are made of -------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreRow:
    """What must be known of a score without importing it.

    Attributes:
        path: its class.
        drops, grows: what it can score.
        needs_td_error: whether it reads the TD error, and so fits critics only.
    """

    path: str
    drops: bool = False
    grows: bool = False
    needs_td_error: bool = False


SCORES: dict[str, ScoreRow] = {
    "magnitude": ScoreRow("dstrl_cli.topology.magnitude:Magnitude", drops=True),
    "sign": ScoreRow("dstrl_cli.topology.sign:Sign", drops=True),
    "random": ScoreRow("dstrl_cli.topology.random:Random", grows=True),
    "gradient": ScoreRow("dstrl_cli.topology.gradient:Gradient", grows=True),
    "importance": ScoreRow(
        "dstrl_cli.topology.importance:Importance",
        drops=True,
        grows=True,
        needs_td_error=True,
    ),
    "drawn_importance": ScoreRow(
        "dstrl_cli.topology.drawn_importance:DrawnImportance",
        drops=True,
        grows=True,
        needs_td_error=True,
    ),
    "none": ScoreRow("dstrl_cli.topology.none:Nothing", grows=True),
}
DROP_SCORES = tuple(name for name, row in SCORES.items() if row.drops)
GROW_SCORES = tuple(name for name, row in SCORES.items() if row.grows)

SCHEDULES: dict[str, str] = {
    "static": "dstrl_cli.topology.schedules:Static",
    "constant": "dstrl_cli.topology.schedules:Constant",
    "cosine": "dstrl_cli.topology.schedules:Cosine",
}

BUDGETS: dict[str, str] = {
    "constant": "dstrl_cli.topology.moves:Constant",
    "cubic": "dstrl_cli.topology.moves:Cubic",
    "linear": "dstrl_cli.topology.moves:Linear",
    "at_once": "dstrl_cli.topology.moves:AtOnce",
}

INITIAL_MASKS: dict[str, str] = {
    "random": "dstrl_cli.topology.initial.random:random_mask",
    "bernoulli": "dstrl_cli.topology.initial.bernoulli:bernoulli_mask",
    "magnitude": "dstrl_cli.topology.initial.magnitude:magnitude_mask",
    "dense": "dstrl_cli.topology.initial.dense:dense_mask",
}

ALLOCATIONS: dict[str, str] = {
    "erdos_renyi": "dstrl_cli.topology.budgets:erdos_renyi_densities",
    "uniform": "dstrl_cli.topology.budgets:uniform_densities",
    "uniform_hidden": "dstrl_cli.topology.budgets:uniform_hidden_densities",
    "lambda": "dstrl_cli.topology.budgets:lambda_densities",
    "layers": "dstrl_cli.topology.budgets:given_densities",
}

ENGINES: dict[str, str] = {
    "masked": "dstrl_cli.nets.masked:MaskedNetwork",
    "sparse": "dstrl_cli.nets.sparse.engine:SparseNetwork",
}

# --- whose code may run -------------------------------------------------------------------------


class _Asked(NamedTuple):
    """The modules that may be imported besides installed ones, and what allows others."""

    modules: frozenset[str]
    remedy: str


_asked: ContextVar[_Asked | None] = ContextVar("asked", default=None)
"""What `only_asked` allows; None: any module."""

_named_in: dict[str, str] = {}
"""Modules that files name, and the last file that did, for messages."""


@contextmanager
def only_asked(
    words: Iterable[str | None],
    trust: bool = False,
    *,
    flags: str | None = "a flag of yours (--env, --algo or --set)",
    trusting: str = "--trust",
) -> Iterator[None]:
    """While the block runs, import only modules that the user asks for, or that are installed.

    A module that merely lies in the current folder, or in one of `PYTHONPATH`, may have come there
    with the results or the preset that names it.

    Args:
        words: what the user wrote: values of flags, in which each `module:` is asked for.
        trust: whether everything may be imported.
        flags: where the user could name a module, for messages; None: nowhere.
        trusting: what the user writes to import everything, for messages.
    """
    named = frozenset(each for word in words if word for each in _modules(word))
    remedy = f"name the module in {flags}, or add {trusting}" if flags else f"add {trusting}"
    token = _asked.set(None if trust else _Asked(named, remedy))
    try:
        yield
    finally:
        _asked.reset(token)


def note_source(value: Any, source: str) -> None:
    """Remember that the file `source` names the modules in a value, or in a list of values."""
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, str):
            _named_in.update(dict.fromkeys(_modules(each), source))


def _modules(text: str) -> set[str]:
    """Return what stands before each colon of a text: `module` in `key=module:Name`."""
    return {re.split(r"[^\w.]", part)[-1] for part in text.split(":")[:-1]}


def _refuse_unasked(module: str) -> None:
    """Raise InputError where a module may not be imported (`only_asked`)."""
    asked = _asked.get()
    if (
        asked is None
        or module in asked.modules
        or module in sys.modules
        or _may_be_imported(module)
    ):
        return
    source = _named_in.get(module)
    raise InputError(
        f"{f'{source} names' if source else 'a file names'} module '{module}', which is not "
        "installed beside dstrl: what files name is run only where you ask for it; "
        f"{asked.remedy} if you know what it does"
    )


def _may_be_imported(module: str) -> bool:
    """Whether a module belongs to an installed distribution, or is nowhere to be found."""
    top = module.partition(".")[0]
    if top == __package__:
        return True
    try:
        spec = importlib.util.find_spec(top)  # imports nothing: there is no dot in the name
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True  # importing it says so
    places = [spec.origin] if spec.has_location else [*(spec.submodule_search_locations or ())]
    files = [Path(place).resolve() for place in places if place]
    return bool(files) and all(map(_is_installed, files))


def _is_installed(file: Path) -> bool:
    folders = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    installed = {Path(folder).resolve() for folder in folders}
    return any(folder in installed or folder in _editable() for folder in file.parents)


@cache
def _editable() -> frozenset[Path]:
    """Return the folders of distributions that are installed in place (`pip install -e`).

    Not dstrl's own: its folder is where results and presets of others lie, too.
    """
    found = set()
    for distribution in distributions():
        if distribution.name == "dstrl":
            continue
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        path = urlsplit(str(origin.get("url", "")))
        if origin.get("dir_info", {}).get("editable") and path.scheme == "file":
            found.add(Path(unquote(path.path)).resolve())
    return frozenset(found)


# --- from a name to the thing -------------------------------------------------------------------


def is_outside(name: str) -> bool:
    """Return whether a name is `module:Name`, and so not one of the tables'."""
    return ":" in name


def import_here(name: str) -> ModuleType:
    """Import a module by name, also from the current folder, which is searched last.

    Raises InputError where `only_asked` does not allow it.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    _refuse_unasked(name)
    return importlib.import_module(name)


def import_problem(module: str, error: BaseException) -> str:
    """Return in words why a module could not be imported, and what helps."""
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{module}.".startswith(f"{missing}."):
        return (
            f"module '{module}' is not found; check its name, and that it is installed or lies in "
            "the current folder"
        )
    return (
        f"module '{module}' cannot be imported ({described(error)}); mend it, or install what it "
        "needs"
    )


def load(table: Mapping[str, Any], name: str) -> Any:
    """Return what `name` stands for: an entry of `table`, or `module:Name` of a user's module.

    Raises InputError where `module:Name` cannot be imported.
    """
    if name in table:
        row = table[name]
        module, attribute = getattr(row, "path", row).split(":")
        return getattr(importlib.import_module(module), attribute)
    return load_outside(name)


def load_outside(name: str) -> Any:
    """Return `module:Name` of a user's module. Raises InputError where it cannot be imported."""
    module, _, attribute = name.partition(":")
    try:
        found = import_here(module)
    except InputError as error:
        raise InputError(f"'{name}': {error}") from None
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise InputError(f"'{name}': {import_problem(module, error)}") from error
    try:
        return getattr(found, attribute)
    except AttributeError:
        raise InputError(f"'{name}': module '{module}' has no '{attribute}'") from None


def module_file(name: str) -> Path:
    """Return the file of the module of `module:Name`, which can be imported."""
    return Path(str(import_here(name.partition(":")[0]).__file__))


@cache
def algorithm(name: str) -> AlgorithmRow:
    """Return the row of an algorithm; an outside class carries its own as `row`.

    Raises InputError where an outside class cannot be imported or has no `row`.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    row = getattr(load_outside(name), "row", None)
    if not isinstance(row, AlgorithmRow):
        raise InputError(
            f"algo = '{name}': the class needs an attribute `row`, a "
            "dstrl_cli.registry.AlgorithmRow that says what it is made of"
        )
    return row


def algorithm_class(name: str, from_expert_q: bool = False) -> Any:
    """Return the class that trains the runs of an algorithm.

    from_expert_q: whether their targets come from a trained run's critics.
    """
    return load({name: algorithm(name).expert_q} if from_expert_q else ALGORITHMS, name)


@cache
def algorithm_name(name: str) -> str:
    """Return the name of an algorithm in folders and method files.

    An outside class says it in its attribute `name`. Raises InputError where that is missing, not
    a plain word, or the name of one of dstrl's algorithms.
    """
    if name in ALGORITHMS:
        return name
    algorithm(name)  # refuses what is no algorithm
    found = getattr(load_outside(name), "name", None)
    if not isinstance(found, str) or not found.isidentifier() or found in ("all", *ALGORITHMS):
        raise InputError(
            f"algo = '{name}': the class needs an attribute `name`, a word that folders and "
            "method files call it by and that no algorithm of dstrl has"
        )
    return found
