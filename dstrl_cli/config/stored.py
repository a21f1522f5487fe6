"""`config.yaml` as runs stored it: its format, and what runs did that older versions stored.

A stored document is converted to today's format before anything else reads it: neither sweeps nor
reports know older formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

from dstrl_cli.config.labels import format_sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.yamlfile import FAST_LOADER, check_structure
from dstrl_cli.errors import InputError

FORMAT = 2
"""The format that is written: the first key of `config.yaml`.

Format 1, which did not name itself, differs in one thing: folders of runs with
`allocation: lambda` carry the default sparsity in their name, not that of their networks. Raise
the number when stored keys change their meaning; a key that is new goes into `ADDED_KEYS`.
"""

ADDED_KEYS: Mapping[str, Any] = {
    "metric": None,
    "method_label": None,
    "method_order": None,
    "env_workers": 0,
    "replay_device": "auto",
    "compile": False,
    "tensorboard": False,
    "wandb": False,
    "target_trim": "budget",
    "grown_bias_correction": "network",
    "keep_checkpoint": False,
    "episodes": None,
    "train_freq": 1,
    "gradient_steps": 1,
    "limit_wins": True,
    "eval_max_steps": 10_000,
    "env.flatten": False,
    "env.noise_features": 0.0,
    "env.timeout": None,
    "dormant_threshold": 0.025,
    "init_mask_from": None,
    "init_mask_source": None,
    "init_weights_from": None,
    "init_weights_source": None,
    "expert": None,
    "expert_source": None,
    "expert_q": None,
    "expert_q_source": None,
    "prefill_from": None,
    "prefill_source": None,
    "prefill_noise": 0.1,
    **{
        f"{network}.{key}": value
        for network in ("actor", "critic")
        for key, value in (
            ("initial_sparsity", None),
            ("layers", None),
            ("redo_interval", None),
            ("redo_threshold", 0.025),
            ("topology.budget", "constant"),
            ("topology.budget_start", 0.0),
            ("topology.budget_end", 1.0),
            ("topology.swap_start", 0.0),
            ("topology.swap_end", 1.0),
            ("topology.swap_of_growth", 0.0),
            ("topology.importance_decay", 1.0),
            ("topology.fan_in", "free"),
            ("topology.ablate_below", None),
            ("topology.n_of_m", None),
        )
    },
}
"""Dotted keys that stored documents may lack because they did not exist yet.

The value says what runs without the key did, whatever today's default is: they stepped their
environments in their own process, kept the replay buffer beside the networks, and so on.
"""


REQUIRED_KEYS = (*(key for key in RunConfig.model_fields if key not in ADDED_KEYS), "run")
"""What every run wrote, in this order; `run`, the block that says where it ran, comes last."""

MAX_NAMED = 3
"""Missing keys that a message names."""


def check_whole(document: Mapping[str, Any]) -> None:
    """Raise InputError where a stored document lacks keys that every run wrote.

    The rest of a file that was cut off is often valid YAML, and its missing keys would be taken
    for the defaults.
    """
    lacking = [key for key in REQUIRED_KEYS if key not in document]
    if lacking:
        more = len(lacking) - MAX_NAMED
        named = ", ".join(lacking[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        raise InputError(f"seems cut off: it lacks keys that every run has ({named})")


def seems_cut_off(text: str) -> bool:
    """Whether the text of a stored file ends in the middle of a line, which none does as written.

    An empty text does, too.
    """
    return not text.endswith("\n")


def up_to_date(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored document in today's format: nested keys, without the key `format`.

    Keys that the document lacks because they are newer get the value that says what the run did.
    Raises InputError for a document of a newer dstrl.
    """
    _check_format(document.get("format", 1))
    current = {key: value for key, value in document.items() if key != "format"}
    for dotted, value in ADDED_KEYS.items():
        _add(current, dotted.split("."), value)
    return current


def _add(block: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the key at `path` where it is missing; groups are copied before they change."""
    name, *below = path
    if not below:
        block.setdefault(name, deepcopy(value))
    elif isinstance(inner := block.get(name), Mapping):  # else damage, for others to find
        block[name] = dict(inner)
        _add(block[name], below, value)


def _check_format(found: Any) -> None:
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise InputError(f"format = {found!r}: must be a whole number from 1 to {FORMAT}")
    if found > FORMAT:
        raise InputError(
            f"format = {found} is of a newer dstrl, this one reads up to {FORMAT}: update dstrl"
        )


def stored_sparsity_label(config: Mapping[str, Any]) -> str | None:
    """Return the sparsity label of a run by the dotted keys of its configuration.

    It is that of the networks which were trained: `allocation: lambda` stores the sparsity that its
    lambdas give, whatever the folder is called, and a dense network has none. None where the keys
    do not say.
    """
    try:
        actor, critic = (
            0.0 if _has_no_sparsity(config, network) else float(config[f"{network}.sparsity"])
            for network in ("actor", "critic")
        )
    except (KeyError, TypeError, ValueError):
        return None
    return format_sparsity_label(actor, critic)


def folder_names_sparsity(config: Mapping[str, Any], stored_format: int) -> bool:
    """Whether the folder of a run is named after the sparsity of its networks.

    By `FORMAT` 1 it was not where a network has `allocation: lambda`.
    """
    lambdas = (config.get(f"{network}.allocation") == "lambda" for network in ("actor", "critic"))
    return stored_format > 1 or not any(lambdas)


def _has_no_sparsity(config: Mapping[str, Any], network: str) -> bool:
    dense, matched = (config.get(f"{network}.{key}") for key in ("dense", "match_parameters"))
    return bool(dense) and not matched


# --- reading the text quickly -------------------------------------------------------------------

_BLOCK = re.compile(r"^(?=[A-Za-z_]\w*:(?:[ \n]|$))", re.MULTILINE | re.ASCII)
"""Where a top-level key begins."""
_SIMPLE_LINE = re.compile(r"(?:[A-Za-z_]\w*:(?: .*)?|- .*| .*)?", re.ASCII)
"""A line of a plain block mapping: a top-level key, an item of its list, or something indented."""


def parse_document(text: str) -> Any:
    """Return the value of a stored `config.yaml`, as `yaml.safe_load` does but quickly.

    The runs of a study share most of their top-level keys with their values, so each such block is
    parsed once. Parts of the result may be shared between calls: read it, do not change it. Raises
    yaml.YAMLError.
    """
    before, *blocks = _BLOCK.split(text)
    if before or not blocks or not all(map(_SIMPLE_LINE.fullmatch, text.splitlines())):
        return _load(text)
    try:
        return {key: value for block in blocks for key, value in _parse_block(block).items()}
    except yaml.YAMLError:  # not a mapping of separate blocks after all
        return _load(text)


@lru_cache(maxsize=4096)
def _parse_block(block: str) -> dict[str, Any]:
    parsed = _load(block)
    if not isinstance(parsed, dict):
        raise yaml.YAMLError("not a mapping")
    return parsed


def _load(text: str) -> Any:
    """Return the value of a text. Raises yaml.YAMLError, also for values that no run wrote."""
    check_structure(text)
    try:
        return yaml.load(text, FAST_LOADER)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # `!!bool maybe`
        raise yaml.YAMLError(f"a value cannot be read ({error})") from error
