"""Lists and ranges as a command line or a preset writes them: `0.15:0.95`, `0-4`, `a,b,c`, `1e6`.

Text in, plain numbers and names out; their bounds are checked by `models`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Any

from dstrl_cli.errors import InputError

MAX_LENGTH = 1_000_000_000
"""The most environment steps, or episodes, of a run."""

MAX_VALUES = 10_000
"""A longer range is taken for a mistake."""

DEFAULT_STEP = "0.1"

MAX_CHARACTERS, MAX_POWER = 100, 300
"""The longest number, and the power of ten from which on there is no such float."""

MAX_DIGITS = 40
"""Digits of a whole number; a seed may have as many."""


def shortened(value: Any) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 2 * MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def _parts(value: Any) -> list[str]:
    """Return the comma-separated parts of a text, or of each entry of a list."""
    entries: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    return [part.strip() for entry in entries for part in str(entry).split(",") if part.strip()]


def _checked(values: list[Any], value: Any, flag: str) -> list[Any]:
    """Return the values, each once; an empty list is an error."""
    if not values:
        raise InputError(f"{flag}: {shortened(value)} names no value")
    return list(dict.fromkeys(values))


def _decimal(text: str, whole: Any, flag: str, valid: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or len(text) > MAX_CHARACTERS or abs(number.adjusted()) > MAX_POWER:
        raise InputError(f"{flag}: {shortened(whole)} is not {valid}")
    return number


_UNDERSCORES = re.compile(r"(?<!\d)_|_(?!\d)")
"""Underscores that do not separate digits, which `Decimal` would overlook."""


def whole_number(text: str) -> int:
    """Return the exact whole number of `1000`, `0010`, `1_000`, `1e3` or `1000.0`.

    Raises ValueError.
    """
    try:
        number = Decimal(text) if _UNDERSCORES.search(text) is None else Decimal("nan")
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or number.adjusted() > 99 or number != number.to_integral_value():
        raise ValueError("must be a whole number")
    return int(number)


def parse_numbers(value: Any, flag: str) -> list[float]:
    """Return the numbers of `0.15:0.95` (step 0.1), `a:b:step`, `a,b,c`, or a mix; exact decimals.

    Both ends belong to a range where the step meets them. Raises InputError, naming the flag.
    """
    valid = "a number, a list a,b,c or a range a:b or a:b:step"
    numbers: list[float] = []
    for part in _parts(value):
        ends = [_decimal(text, value, flag, valid) for text in part.split(":")]
        if len(ends) == 1:
            numbers.append(float(ends[0]))
            continue
        if len(ends) > 3:
            raise InputError(f"{flag}: {shortened(value)} is not {valid}")
        low, high, step = (*ends, Decimal(DEFAULT_STEP))[:3]
        if step <= 0 or low > high or (high - low) / step >= MAX_VALUES:
            raise InputError(f"{flag}: the range {part!r} must rise from a to b by a positive step")
        numbers += [float(low + i * step) for i in range(int((high - low) / step) + 1)]
    return _checked(numbers, value, flag)


def parse_integers(value: Any, flag: str) -> list[int]:
    """Return the whole numbers of `0-4`, `1,3,5` or `0-2,7`. Raises InputError, naming the flag."""
    numbers: list[int] = []
    for part in _parts(value):
        match = re.fullmatch(rf"(\d{{1,{MAX_DIGITS}}})(?:-(\d{{1,{MAX_DIGITS}}}))?", part, re.ASCII)
        if match is None:
            raise InputError(
                f"{flag}: {shortened(value)} is not a whole number, a range 0-4 or a list 1,3,5"
            )
        low, high = int(match[1]), int(match[2] or match[1])
        if not 0 <= high - low < MAX_VALUES:
            raise InputError(
                f"{flag}: the range {part!r} must rise, over at most {MAX_VALUES} numbers"
            )
        numbers += range(low, high + 1)
    return _checked(numbers, value, flag)


def parse_names(value: Any, flag: str) -> list[str]:
    """Return the names of `a,b,c`, each once. Raises InputError where there is none."""
    return _checked(_parts(value), value, flag)


def parse_steps(value: Any, flag: str = "--steps", unit: str = "steps") -> int:
    """Return a number of environment steps, `1e6` accepted: a whole number from 1 to 1e9.

    `unit` is what is counted instead.
    """
    valid = f"a whole number of {unit} from 1 to 1e9"
    number = _decimal(str(value), value, flag, valid)
    if not 1 <= number <= MAX_LENGTH or number != number.to_integral_value():
        raise InputError(f"{flag}: {shortened(value)} is not {valid}")
    return int(number)
