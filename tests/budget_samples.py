"""Builders of runs whose budgets move, that several tests share."""

from __future__ import annotations

from typing import Any

from network_samples import run

from dstrl_cli.config.models import RunConfig

UPDATES = 40
"""Updates of a run of these, one for every step."""

RULES: dict[str, dict[str, Any]] = {
    "gmp": {"grow": "none", "schedule": "static", "budget": "cubic"},
    "gmp_then_swaps": {"schedule": "cosine", "budget": "cubic", "swap_start": 0.7},
    "granet": {"grow": "gradient", "schedule": "cosine", "budget": "cubic", "swap_end": 0.7},
    "at_once": {"grow": "random", "schedule": "constant", "budget": "at_once", "swap_start": 0.2},
    "by_sign": {"drop": "sign", "schedule": "constant", "budget": "linear", "sign_split": "half"},
    "growth": {"grow": "gradient", "schedule": "cosine", "budget": "linear"}
    | {"swap_of_growth": 0.4, "swap_start": 0.7, "initial_sparsity": 0.8},
    "growth_of_strangers": {"schedule": "constant", "budget": "linear", "regrow_dropped": False}
    | {"initial_sparsity": 0.9},
}
"""Rules of every kind; where nothing else is said, runs start dense."""


def moving(
    seed: int = 0, sparsity: float = 0.7, kind: str = "gmp", keys: Any = None, **topology: Any
) -> RunConfig:
    """A run whose networks move their budgets between 20 % and 70 % of its 40 updates."""
    rule = {"drop": "magnitude", "drop_fraction": 0.3, "update_interval": 3}
    rule |= {"budget_start": 0.2, "budget_end": 0.7} | RULES[kind] | topology
    first = rule.pop("initial_sparsity", 0.0)
    base = {"steps": UPDATES, "learning_starts": 0, "target_masking": "online_mask"}
    base |= {"initial_sparsity": first, "topology": rule}
    return run(seed, sparsity, **(base | (keys or {})))
