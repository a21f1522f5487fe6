"""Functions of float32 numbers for compiled loops, exact to a few units in the last place.

Those of the C library are called number by number; these become vector instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.extending import register_jitable

Float = Any  # a float32 number, typed by the compiler
intrinsic: Any = extending.intrinsic

_f = np.float32


def _series(*coefficients: float) -> tuple[Any, ...]:
    return tuple(map(np.float32, coefficients))


# a rational approximation of tanh: odd numerator, even denominator; it is 1 beyond _TANH_END
_TANH_END = _f(7.90531110763549805)
_ABOVE = _series(
    -2.76076847742355e-16,
    2.00018790482477e-13,
    -8.60467152213735e-11,
    5.12229709037114e-08,
    1.48572235717979e-05,
    6.37261928875436e-04,
    4.89352455891786e-03,
)
_BELOW = _series(
    1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03
)
# exp and log as in Cephes: a series of the rest after whole powers of two are taken out
_LOG2_E, _LN2_HIGH, _LN2_LOW = _series(1.44269504088896341, 0.693359375, -2.12194440e-4)
_EXP = _series(
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_EXP_LOW, _EXP_HIGH = _f(-87.0), _f(88.0)
_LOG = _series(
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_HALF, _ONE, _ROOT_HALF = _series(0.5, 1.0, 0.707106781186547524)


@intrinsic
def _as_float(typing, bits):  # type: ignore[no-untyped-def]
    """Return the float32 number of these bits."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), code


@intrinsic
def _bits(typing, number):  # type: ignore[no-untyped-def]
    """Return the bits of a float32 number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), code


@register_jitable
def tanh(x: Float) -> Float:
    """Return the hyperbolic tangent; NaN stays NaN."""
    x = _TANH_END if x > _TANH_END else x
    x = -_TANH_END if x < -_TANH_END else x
    square = x * x
    above = _ABOVE[0]
    for a in _ABOVE[1:]:
        above = above * square + a
    below = _BELOW[0]
    for b in _BELOW[1:]:
        below = below * square + b
    return x * above / below


@register_jitable
def exp(x: Float) -> Float:
    """Return e^x for x in [-87, 88], and that of the nearest bound beyond; NaN stays NaN."""
    x = _EXP_HIGH if x > _EXP_HIGH else x
    x = _EXP_LOW if x < _EXP_LOW else x
    power = np.floor(x * _LOG2_E + _HALF)
    rest = x - power * _LN2_HIGH - power * _LN2_LOW
    sum_ = _EXP[0]
    for c in _EXP[1:]:
        sum_ = sum_ * rest + c
    sum_ = sum_ * rest * rest + rest + _ONE
    number = np.int32(power) if power == power else np.int32(0)
    return sum_ * _as_float(np.int32((number + np.int32(127)) << np.int32(23)))


@register_jitable
def log(x: Float) -> Float:
    """Return the natural logarithm of a positive, normal number."""
    bits = _bits(x)
    power = np.float32(np.int32((bits >> np.int32(23)) - np.int32(126)))
    part = _as_float(np.int32((bits & np.int32(0x007FFFFF)) | np.int32(0x3F000000)))  # [0.5, 1)
    small = part < _ROOT_HALF
    power = power - _ONE if small else power
    part = part + part - _ONE if small else part - _ONE
    square = part * part
    sum_ = _LOG[0]
    for c in _LOG[1:]:
        sum_ = sum_ * part + c
    sum_ = sum_ * part * square + power * _LN2_LOW - _HALF * square
    return part + sum_ + power * _LN2_HIGH


@register_jitable
def softplus(x: Float) -> Float:
    """Return log(1 + e^x); NaN stays NaN."""
    high = np.float32(0.0) if x < np.float32(0.0) else x
    return high + log(_ONE + exp(-abs(x)))
