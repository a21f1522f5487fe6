"""A policy as one C99 source file and its header, which need the C library alone.

A layer is stored neuron by neuron: how many connections lead to each, which inputs they come from,
and their weights. Inputs and numbers take one byte where they fit. A layer without any gap stores
its weights alone. Constants are written in hexadecimal, so that every compiler reads the same
numbers. Text that comes from a run is reduced to plain characters before it enters a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dstrl_cli import __version__
from dstrl_cli.errors import InputError
from dstrl_cli.export.cost import FLOAT, Cost, buffer_sizes, scale_bytes
from dstrl_cli.export.network import Layer, Network

SUFFIXES = (".c", ".h")
NUMBERS_A_LINE = 6
LONGEST_COMMENT = 300

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 .,:;_()\[\]{}=+/-]")
"""Characters that comments are kept free of; with the star, nothing can begin or end one."""

_UNSIGNED = {np.dtype(f"uint{bits}"): f"uint{bits}_t" for bits in (8, 16, 32)}


def stem(out: Path) -> Path:
    """Return the path of the two files without their endings, of which `out` may have one.

    Raises InputError for a name that an `#include` could not hold.
    """
    path = out.with_suffix("") if out.suffix in SUFFIXES else out
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", path.name):
        raise InputError(
            f"--out: '{path.name}' names no C file: use letters, digits, '_', '-' and '.'"
        )
    return path


def paths(out: Path) -> list[Path]:
    """Return the two files that `out` names. Raises InputError as `stem` does."""
    base = stem(out)
    return [base.with_name(base.name + suffix) for suffix in SUFFIXES]


def files(network: Network, out: Path, about: Sequence[str]) -> dict[Path, bytes]:
    """Return the content of the source and of the header, by their paths.

    Args:
        network: what is exported.
        out: the stem of both paths, which also begins every name in the header.
        about: lines that say what policy it is.
    """
    source, header = paths(out)
    name = identifier(stem(out).name)
    return {
        source: _text(_source(network, name, header.name, about)),
        header: _text(_header(network, name, about)),
    }


def cost(network: Network) -> Cost:
    """Return what the C code stores and computes."""
    constants = sum(_layer_bytes(layer) for layer in network.layers)
    ram = FLOAT * sum(buffer_sizes(network))
    return Cost(network.connections, constants + scale_bytes(network.scale), ram)


def identifier(name: str) -> str:
    """Return what begins the C names of a policy whose files are called `name`."""
    found = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return found if found[:1].isalpha() else f"policy_{found}".rstrip("_")


def action_type(network: Network) -> str:
    """Return the C type of an action's entries."""
    return _c_type(network.scale.low)


# --- layers -------------------------------------------------------------------------------------


def _is_full(layer: Layer) -> bool:
    return layer.connections == layer.weight.size


def _arrays(layer: Layer) -> dict[str, NDArray[Any]]:
    """Return the constants of a layer, neuron by neuron; those that are not needed are absent."""
    by_neuron = layer.weight.T  # [out, in]
    neuron, source = np.nonzero(by_neuron)
    arrays: dict[str, NDArray[Any]] = {}
    if layer.connections:
        arrays["weight"] = by_neuron[neuron, source]
    if layer.connections and not _is_full(layer):
        arrays["input"] = _smallest(source, layer.inputs - 1)
        count = np.bincount(neuron, minlength=layer.outputs)
        arrays["count"] = _smallest(count, int(count.max()))
    return arrays | {"bias": layer.bias}


def _smallest(values: NDArray[Any], largest: int) -> NDArray[Any]:
    """Return whole numbers in the smallest unsigned type that holds `largest`."""
    return values.astype(next(each for each in _UNSIGNED if largest <= np.iinfo(each).max))


def _layer_bytes(layer: Layer) -> int:
    return sum(array.nbytes for array in _arrays(layer).values())


def _layer_code(layer: Layer, number: int, last: bool) -> Iterator[str]:
    """Yield the constants of a layer and the function that computes it."""
    arrays = _arrays(layer)
    for name, array in arrays.items():
        yield from _constant(f"{name}_{number}", array)
    yield f"static void layer_{number}(const float *in, float *out)"
    yield "{"
    if "weight" in arrays:
        yield f"    const float *weight = weight_{number};"
    else:
        yield "    (void)in;"
    if "input" in arrays:
        yield f"    const {_c_type(arrays['input'])} *input = input_{number};"
    yield f"    for (size_t j = 0; j < {layer.outputs}; j++) {{"
    yield f"        float sum = bias_{number}[j];"
    if "input" in arrays:
        yield f"        for (size_t k = count_{number}[j]; k > 0; k--)"
        yield "            sum += *weight++ * in[*input++];"
    elif "weight" in arrays:
        yield f"        for (size_t i = 0; i < {layer.inputs}; i++)"
        yield "            sum += *weight++ * in[i];"
    yield f"        out[j] = {'sum' if last else 'sum < 0 ? 0 : sum'};"
    yield "    }"
    yield "}"
    yield ""


def _constant(name: str, array: NDArray[Any]) -> Iterator[str]:
    yield f"static const {_c_type(array)} {name}[{len(array)}] = {{"
    numbers = [_number(value) for value in array]
    for first in range(0, len(numbers), NUMBERS_A_LINE):
        yield f"    {', '.join(numbers[first : first + NUMBERS_A_LINE])},"
    yield "};"


def _c_type(array: NDArray[Any]) -> str:
    floats = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
    return (floats | _UNSIGNED)[array.dtype]


def _number(value: Any) -> str:
    """Return a C constant that is exactly `value`."""
    if isinstance(value, np.unsignedinteger):
        return str(value)
    mantissa, exponent = float(value).hex().split("p")
    suffix = "f" if value.dtype == np.float32 else ""
    return f"{mantissa.rstrip('0').rstrip('.')}p{exponent}{suffix}"


# --- files --------------------------------------------------------------------------------------


def _source(network: Network, name: str, header: str, about: Sequence[str]) -> Iterator[str]:
    scale, layers = network.scale, network.layers
    action = action_type(network)
    yield from _comment(about)
    yield f'#include "{header}"'
    yield ""
    yield "#include <math.h>"
    yield "#include <stddef.h>"
    yield "#include <stdint.h>"
    yield ""
    for number, layer in enumerate(layers):
        yield from _layer_code(layer, number, last=number == len(layers) - 1)
    if scale.is_needed:
        for bound in ("middle", "half", "low", "high"):
            yield from _constant(bound, getattr(scale, bound))
        yield ""
    yield _signature(network, name)
    yield "{"
    buffers = [f"{'ab'[turn]}[{size}]" for turn, size in enumerate(buffer_sizes(network))]
    yield f"    float {', '.join(buffers)};"
    source = "observation"
    for number in range(len(layers)):
        target = "ab"[number % 2]
        yield f"    layer_{number}({source}, {target});"
        source = target
    yield f"    for (size_t i = 0; i < {network.action_size}; i++) {{"
    if scale.is_needed:
        yield f"        const {action} value = middle[i] + half[i] * tanhf({source}[i]);"
        yield "        action[i] = value < low[i] ? low[i] : value > high[i] ? high[i] : value;"
    else:
        yield f"        action[i] = tanhf({source}[i]);"
    yield "    }"
    yield "}"


def _header(network: Network, name: str, about: Sequence[str]) -> Iterator[str]:
    guard = f"{name.upper()}_H"
    yield from _comment(about)
    yield f"#ifndef {guard}"
    yield f"#define {guard}"
    yield ""
    yield f"#define {name.upper()}_OBSERVATIONS {network.observation_size}"
    yield f"#define {name.upper()}_ACTIONS {network.action_size}"
    yield ""
    yield "#ifdef __cplusplus"
    yield 'extern "C" {'
    yield "#endif"
    yield ""
    yield "/* Computes the action for an observation. It keeps nothing between calls. */"
    yield f"{_signature(network, name)};"
    yield ""
    yield "#ifdef __cplusplus"
    yield "}"
    yield "#endif"
    yield ""
    yield "#endif"


def _signature(network: Network, name: str) -> str:
    upper, action = name.upper(), action_type(network)
    return (
        f"void {name}_act(const float observation[{upper}_OBSERVATIONS], "
        f"{action} action[{upper}_ACTIONS])"
    )


def _comment(about: Iterable[str]) -> Iterator[str]:
    """Yield a comment that nothing in the lines can end."""
    yield f"/* Written by dstrl {__version__}."
    for line in about:
        yield f"   {_NOT_PLAIN.sub('_', line)[:LONGEST_COMMENT]}"
    yield "*/"


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("ascii")
