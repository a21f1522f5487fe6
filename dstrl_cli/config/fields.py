"""The types of single values in a configuration: what a number, a list or a name may be.

The same value may be written as YAML or as on a command line (1e6, "64,64"); everything else is
checked strictly. Which key has which type is in `models`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from dstrl_cli.config.metrics import canonical_metric
from dstrl_cli.errors import InputError, suggest

LARGEST = 10**18
"""The largest whole number of a key: what counts steps or bytes has 64 bits."""


def _exact(value: Any) -> Any:
    """Turn 1e6 and "1e6" into 1000000; leave everything else to pydantic's own check."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number, not true or false")
    if isinstance(value, str):
        try:
            return int(value)  # exact, where a float would round a long seed
        except ValueError:
            pass
        try:
            value = float(value)
        except ValueError:
            raise ValueError("must be a whole number") from None
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError("must be a whole number")
        return int(value)
    return value


def _integral(value: Any) -> Any:
    value = _exact(value)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("must be at most 1e18")
    return value


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


def _auto_or_count(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        number = _integral(value)
    except ValueError:
        number = None
    if not isinstance(number, int) or not 0 <= number <= 1024:
        raise ValueError("must be auto, or a whole number from 0 to 1024")
    return number


Whole = Annotated[int, BeforeValidator(_integral)]
Seed = Annotated[int, BeforeValidator(_exact), Field(ge=0, lt=10**40)]
PositiveInt = Annotated[Whole, Field(ge=1)]
NonNegativeInt = Annotated[Whole, Field(ge=0)]
Real = Annotated[float, BeforeValidator(_not_a_bool), Field(allow_inf_nan=False)]
NonNegativeFloat = Annotated[Real, Field(ge=0)]
PositiveFloat = Annotated[Real, Field(gt=0)]
Fraction = Annotated[Real, Field(gt=0, le=1)]
Width = Annotated[Whole, Field(ge=1, le=1_000_000)]
Widths = Annotated[
    tuple[Width, ...], BeforeValidator(_as_sequence), Field(min_length=1, max_length=100)
]
Lambdas = Annotated[tuple[PositiveFloat, ...], BeforeValidator(_as_sequence), Field(min_length=1)]
Bounds = Annotated[tuple[Real, Real], BeforeValidator(_as_pair)]
Device = Annotated[str, AfterValidator(_known_device)]
MetricName = Annotated[str, AfterValidator(_known_metric)]
Workers = Annotated[int | Literal["auto"], PlainValidator(_auto_or_count)]
Name = Annotated[str, Field(min_length=1)]
