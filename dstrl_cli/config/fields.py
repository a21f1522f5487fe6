"""The types of single values in a configuration: what a number, a list or a name may be.

The same value may be written as YAML or as on a command line (1e6, "64,64"); everything else is
checked strictly. Which key has which type is in `models`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)

from dstrl_cli.config.metrics import canonical_metric
from dstrl_cli.config.ranges import whole_number
from dstrl_cli.errors import InputError, suggest

LARGEST = 10**18
"""The largest whole number of a key: what counts steps or bytes has 64 bits."""

LARGEST_EXACT = 2**53
"""From this number on floating point does not hold every whole number."""


def _exact(value: Any) -> Any:
    """Turn 1e6 and "1e6" into 1000000; leave everything else to pydantic's own check."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not true or false")
    if isinstance(value, str):
        return whole_number(value)
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("must be a whole number")
        if abs(value) >= LARGEST_EXACT:
            raise ValueError("is too large to be exact in this form: write all its digits")
        return int(value)
    return value


def _integral(value: Any) -> Any:
    huge = isinstance(value, float) and LARGEST < abs(value) < math.inf
    number = value if huge else _exact(value)
    if isinstance(number, int | float) and abs(number) > LARGEST:
        raise ValueError("must be at most 1e18")
    return number


def whole_or_none(value: Any) -> int | None:
    """Return the whole number that is written, be it as 1e6 or in quotes, or None."""
    try:
        number = _integral(value)
    except ValueError:
        return None
    return number if isinstance(number, int) else None


def _not_a_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _as_sequence(value: Any) -> Any:
    """Accept `64,64` and a single `64` where a list is meant."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value if value is None or isinstance(value, list | tuple) else [value]


def _as_pair(value: Any) -> Any:
    pair = _as_sequence(value)
    if pair is None or len(pair) != 2:
        raise ValueError("must be two numbers, as in [-5, 2]")
    return pair


def one_of(kind: str, valid: Iterable[str]) -> AfterValidator:
    """Return the check that a name is a valid one; the message suggests the closest."""

    def check(name: str) -> str:
        if name not in valid:
            raise ValueError(suggest(kind, name, valid))
        return name

    return AfterValidator(check)


def named(kind: str, valid: Iterable[str]) -> AfterValidator:
    """Return the check of a name that may also be `module:Name` of a user's own module.

    Whether that module exists is checked when a run is about to start: reading a configuration
    imports nothing.
    """

    def check(name: str) -> str:
        if name in valid or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name):
            return name
        raise ValueError(f"{suggest(kind, name, valid)}, or module:Name of your own")

    return AfterValidator(check)


def _known_metric(name: str) -> str:
    try:
        return canonical_metric(name)
    except InputError as error:
        raise ValueError(str(error)) from None


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return name


def _auto_or_count(least: int) -> Callable[[Any], int | Literal["auto"]]:
    def count(value: Any) -> int | Literal["auto"]:
        if value == "auto":
            return "auto"
        number = whole_or_none(value)
        if number is None or not least <= number <= 1024:
            raise ValueError(f"must be auto, or a whole number from {least} to 1024")
        return number

    return count


_UNITS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_TIME = re.compile(r"(\d+(?:\.\d*)?(?:e\d+)?)\s*(ms|[smh])")


def _seconds(text: str) -> float | None:
    """Return the seconds of a time with its unit (`250ms`, `90s`, `10m`, `2h`); None of others."""
    found = _TIME.fullmatch(text.strip().lower())
    seconds = float(found[1]) * _UNITS[found[2]] if found else math.inf
    return seconds if math.isfinite(seconds) else None


def interval_seconds(interval: int | str) -> float | None:
    """Return the seconds of an interval in time (`90s`, `10m`, `2h`); None for one in steps."""
    return None if isinstance(interval, int) else _seconds(interval)


def _steps_or_time(value: Any) -> int | str:
    """Accept a number of steps, or a time with its unit; a bare number is one of steps."""
    if isinstance(value, str) and _seconds(value):
        return value.strip()
    number = whole_or_none(value)
    if number is None or number < 0:
        raise ValueError("must be a number of steps (0: never), or a time as in 90s, 10m or 2h")
    return number


def _duration(value: Any) -> float | None:
    """Return seconds: a number of them, or a time with its unit; 0 means none."""
    if value is None:
        return None
    text = str(value).strip()
    seconds = _seconds(text if text[-1:].isalpha() else f"{text}s")
    if seconds is None:
        raise ValueError("must be seconds, or a time such as 90s, 10m or 2h; 0 or null for none")
    return seconds or None


class LinearRate(BaseModel):
    """A learning rate that falls linearly from `linear` at step 0 to 0 at the run's last step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    linear: float


def _learning_rate(value: Any) -> float | LinearRate:
    """Accept a number, or `{linear: NUMBER}`."""
    if isinstance(value, LinearRate):
        return value
    if isinstance(value, Mapping):
        if set(value) != {"linear"}:
            raise ValueError("must be a number, or {linear: NUMBER}, which falls to 0 at the end")
        return LinearRate(linear=_positive(value["linear"]))
    if isinstance(value, str) and value.startswith("lin_"):
        raise ValueError(f"a rate that falls linearly is written {{linear: {value[4:]}}}")
    return _positive(value)


def _entropy(value: Any) -> Any:
    if value == "auto":
        raise ValueError("must be a number; null means minus the number of actions")
    return value


def _positive(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError("must be a number, or {linear: NUMBER}") from None
    if not 0 < number < math.inf:
        raise ValueError("must be a finite number greater than 0")
    return number


def _train_freq(value: Any) -> int | tuple[int, Literal["episode"]]:
    """Accept a number of steps, `[N, step]` and `[N, episode]`, also as `N,episode`."""
    count, *units = _as_sequence(value) or [None]
    number = whole_or_none(count)
    unit = units[0] if len(units) == 1 else "step" if not units else None
    if number is None or number < 1 or unit not in ("step", "episode"):
        raise ValueError("must be a whole number of steps, or [N, step] or [N, episode]")
    return (number, "episode") if unit == "episode" else number


def _gradient_steps(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError(
            "must be at least 1, or -1 for as many updates as steps since the last training"
        )
    return value


Whole = Annotated[int, BeforeValidator(_integral)]
Seed = Annotated[int, BeforeValidator(_exact), Field(ge=0, lt=10**40)]
PositiveInt = Annotated[Whole, Field(ge=1)]
NonNegativeInt = Annotated[Whole, Field(ge=0)]
Real = Annotated[float, BeforeValidator(_not_a_bool), Field(allow_inf_nan=False)]
NonNegativeFloat = Annotated[Real, Field(ge=0)]
PositiveFloat = Annotated[Real, Field(gt=0)]
Fraction = Annotated[Real, Field(gt=0, le=1)]
Share = Annotated[Real, Field(ge=0, le=1)]
Sparsity = Annotated[Real, Field(ge=0, lt=1)]
Width = Annotated[Whole, Field(ge=1, le=1_000_000)]
Widths = Annotated[
    tuple[Width, ...], BeforeValidator(_as_sequence), Field(min_length=1, max_length=100)
]
Lambdas = Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_sequence), Field(min_length=1)]
Sparsities = Annotated[tuple[Sparsity, ...], BeforeValidator(_as_sequence), Field(min_length=1)]
Bounds = Annotated[tuple[Real, Real], BeforeValidator(_as_pair)]
Device = Annotated[str, AfterValidator(_known_device)]
MetricName = Annotated[str, AfterValidator(_known_metric)]
LearningRate = Annotated[float | LinearRate, BeforeValidator(_learning_rate)]
TargetEntropy = Annotated[Real | None, BeforeValidator(_entropy)]
TrainFreq = Annotated[int | tuple[int, Literal["episode"]], BeforeValidator(_train_freq)]
GradientSteps = Annotated[Whole, AfterValidator(_gradient_steps)]
Duration = Annotated[float | None, PlainValidator(_duration)]
"""Seconds; None where there is no limit."""
Workers = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count(0))]
Threads = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count(1))]
Interval = Annotated[int | str, PlainValidator(_steps_or_time)]
Name = Annotated[str, Field(min_length=1)]
