"""The names of metrics, as `--metric`, presets and `config.yaml` give them.

`report.metrics` computes them; the names are here so that a configuration can be checked without
reading results.
"""

from __future__ import annotations

from dstrl_cli.config.ranges import whole_number
from dstrl_cli.errors import InputError, suggest

METRICS: dict[str, str] = {
    "last-steps": "STEPS",
    "last-evals": "COUNT",
    "all-evals": "",
    "all-episodes": "",
    "first-episodes": "COUNT",
    "lca": "",
    "final": "",
    "best": "",
    "success": "",
}
"""Name of a metric -> the number that follows its colon, or nothing where it takes none."""

DEFAULT_METRIC = "last-steps:125000"


def parse_metric(text: str) -> tuple[str, int]:
    """Return name and number of a metric: `last-steps:1e3` is `("last-steps", 1000)`.

    The number is 0 where the metric takes none. Raises InputError, naming the metric and the valid
    ones, where it is unknown, lacks its number, or has one that it does not take.
    """
    name, colon, number = text.strip().partition(":")
    usages = [metric_usage(known) for known in METRICS]
    if name not in METRICS:
        raise InputError(suggest("metric", text, usages))
    if bool(colon) != bool(METRICS[name]):
        takes = f"takes {f'a number, {metric_usage(name)}' if METRICS[name] else 'no number'}"
        raise InputError(f"metric '{text}' {takes}. Valid: {', '.join(sorted(usages))}")
    return name, _whole_number(text, number) if colon else 0


def metric_usage(name: str) -> str:
    """Return how a metric is written, such as `last-steps:STEPS`."""
    return f"{name}:{METRICS[name]}" if METRICS[name] else name


def canonical_metric(text: str) -> str:
    """Return a metric's one spelling: `last-steps:1000` for `last-steps:1e3`.

    Raises InputError as `parse_metric` does.
    """
    name, number = parse_metric(text)
    return f"{name}:{number}" if METRICS[name] else name


def _whole_number(text: str, number: str) -> int:
    try:
        value = whole_number(number)
    except ValueError:
        value = 0
    if not 1 <= value < 10**18:
        raise InputError(
            f"metric '{text}': '{number}' must be a whole number of at least 1, "
            "as in last-steps:125000, last-evals:10 or first-episodes:100"
        )
    return value
