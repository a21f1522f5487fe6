"""What `dstrl bench` would measure, small enough for tests, and what it would have measured."""

from __future__ import annotations

from dstrl_cli.bench import plan
from dstrl_cli.bench.measure import Measurement
from dstrl_cli.bench.plan import BenchRequest, Work

REQUEST = {
    "envs": ["2DNav-v1"],
    "widths": [16],
    "batch": 16,
    "device": "cpu",
    "sets": ["buffer_size=500", "learning_starts=60"],
}


def groups(kind: str = "update", **axes) -> list[plan.Group]:
    return plan.groups(BenchRequest(kind, **{**REQUEST, **axes}), tell=lambda _: None)


def measured(
    *rates: float, work: Work, peak_mb: float = 1.0, cpu: tuple[float, ...] = ()
) -> Measurement:
    return Measurement(work, rates, peak_mb, cpu=cpu or tuple(1000 / rate for rate in rates))
