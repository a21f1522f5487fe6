"""`--scale`: a run of a preset's kind in a share of its length, to try it before it is paid for.

Everything that counts steps, updates or episodes shrinks along, so that each mechanism acts as
often as in the whole run: the warm-up, the intervals, the replay buffer, the window of the metric.
What is counted otherwise stays: batches, n-step, fractions, the number of evaluations of a metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dstrl_cli.config.fields import whole_or_none
from dstrl_cli.config.keys import expand
from dstrl_cli.config.metrics import DEFAULT_METRIC, parse_metric
from dstrl_cli.config.models import RunConfig
from dstrl_cli.errors import InputError

NETWORK_KEYS = tuple(
    f"{role}.{key}"
    for role in ("actor", "critic")
    for key in (
        "redo_interval",
        "topology.update_interval",
        "topology.update_offset",
        "topology.stop_before_end",
    )
)

KEYS = (
    "steps",
    "episodes",
    "learning_starts",
    "nstep_delay",
    "target_update_interval",
    "buffer_size",
    "buffer.min_size",
    "buffer.check_interval",
    "eval_every",
    *NETWORK_KEYS,
)
"""The keys of a run that shrink."""


def check_scale(scale: float) -> float:
    """Return the scale. Raises InputError where it is not above 0 and at most 1."""
    if not 0 < scale <= 1:
        raise InputError(
            f"--scale {scale:g}: a share of the whole length lies above 0 and at most at 1, as 0.02"
        )
    return scale


def scaled_keys(config: RunConfig, scale: float) -> dict[str, Any]:
    """Return the dotted keys that shrink, with their values for a share of the run.

    The smallest size of a dynamic buffer stays at least what is compared in it, and a topology
    update that replaces an optimizer step leaves one to learn by.
    """
    found: dict[str, Any] = {}
    for key in KEYS:
        value: Any = config
        for name in key.split("."):
            value = getattr(value, name)
        if value:
            found[key] = _shrunk(value, scale, _least(key, config))
    name, window = parse_metric(config.metric or DEFAULT_METRIC)
    if name in ("last-steps", "first-episodes"):
        found["metric"] = f"{name}:{_shrunk(window, scale, 1)}"
    return found


def scaled_values(key: str, values: Sequence[Any], scale: float) -> list[Any]:
    """Return the values that a preset's sweep gives to a key, shrunk where the key is.

    Raises InputError where two of them would be one.
    """
    if not set(expand(key)) & set(KEYS):
        return list(values)
    whole = [None if isinstance(value, bool) else whole_or_none(value) for value in values]
    found = [
        value if number is None else _shrunk(number, scale, 1)
        for value, number in zip(values, whole, strict=True)
    ]
    if len(set(found)) < len(found):
        raise InputError(
            f"--scale {scale:g}: several values of {key} ({', '.join(map(str, values))}) would be "
            "the same; give a larger one"
        )
    return found


def _least(key: str, config: RunConfig) -> int:
    if key == "buffer.min_size":
        return min(config.buffer.min_size, config.buffer.check_batches * config.batch_size)
    if key.endswith("update_interval") and config.rewire == "instead_of_step":
        return 2 if key in NETWORK_KEYS else 1
    return 1


def _shrunk(value: int, scale: float, least: int) -> int:
    return max(round(value * scale), min(least, value))


def at_scale(values: Mapping[str, Sequence[Any]], scale: float | None) -> dict[str, Sequence[Any]]:
    """Return the further keys of a preset's sweep with their values at a scale, if there is one."""
    if scale is None:
        return dict(values)
    return {key: scaled_values(key, each, scale) for key, each in values.items()}
