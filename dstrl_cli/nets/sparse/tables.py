"""Tables of arrays: how compiled code gets dozens of arrays by one argument.

Handing NumPy arrays to compiled code takes most of a microsecond each. A table [fields, 5] holds
the address and the shape of every array instead, and compiled code gets the address of the table;
there `field(table)` is the array again. What a field holds is declared once (`Layout.field`),
checked when an array is put into the table, and known to the compiled code. A table keeps its
arrays alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, extending, types
from numba.core import cgutils
from numba.extending import register_jitable
from numba.np.numpy_support import from_dtype
from numpy.typing import NDArray

intrinsic: Any = extending.intrinsic

MOST_DIMENSIONS = 4


@intrinsic
def _pointer(typing, address):  # type: ignore[no-untyped-def]
    """Return an address as a pointer."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), code


@intrinsic
def call(typing, address, *arguments):  # type: ignore[no-untyped-def]
    """Call, in compiled code, the function at an address; see `address_of`."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = cgutils.unpack_tuple(builder, args[1])
        kind = ir.FunctionType(ir.VoidType(), [each.type for each in given])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, types.StarArgTuple([types.int64] * len(arguments))), code


def address_of(function: Any, count: int) -> int:
    """Return the address of a compiled function of `count` integers, for `call`.

    A function that is called by its address is compiled once, and not again into every function
    that calls it.
    """
    kind = types.void(*[types.int64] * count)
    compiled = function.get_compile_result(kind)
    found: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
    return found


class Layout:
    """The fields of a kind of table.

    Attributes:
        kinds: name of every field to the type and the number of dimensions of its array.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, tuple[np.dtype[Any], int]] = {}

    def field(self, name: str, kind: type[np.generic], dimensions: int) -> Callable[..., Any]:
        """Add a field; return what gives its array, in compiled code, from a table's address."""
        number = len(self.kinds)
        self.kinds[name] = (np.dtype(kind), dimensions)
        return _accessor(number, self.kinds[name][0], dimensions)


@register_jitable
def numbers_at(address: int, count: int) -> Any:
    """Return, in compiled code, the whole numbers [count] at an address."""
    return carray(_pointer(address), (count,), np.int64)


def _accessor(number: int, kind: np.dtype[Any], dimensions: int) -> Callable[..., Any]:
    """Return what gives, in compiled code, the array of row `number` of the table at an address.

    It is written as LLVM code: dozens of functions would each take a tenth of a second to compile.
    """
    array = types.Array(from_dtype(kind), dimensions, "C")

    @intrinsic
    def get(typing, table):  # type: ignore[no-untyped-def]
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            words = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
            return _array_of_row(context, builder, array, words, number)

        return array(types.int64), code

    found: Callable[..., Any] = get
    return found


def _array_of_row(context: Any, builder: Any, array: Any, words: Any, number: int) -> Any:
    """Return LLVM's value of the array that is described by a row of a table."""
    from numba.np.arrayobj import populate_array  # only compiling needs it

    word = ir.IntType(64)
    begin = number * (1 + MOST_DIMENSIONS)
    address, *shape = (
        builder.load(builder.gep(words, [word(begin + n)])) for n in range(1 + array.ndim)
    )
    made = context.make_array(array)(context, builder)
    size = word(context.get_abi_sizeof(context.get_data_type(array.dtype)))
    strides = [size]
    for length in reversed(shape[1:]):
        strides.insert(0, builder.mul(strides[0], length))
    populate_array(
        made,
        data=builder.inttoptr(address, made.data.type),
        shape=cgutils.pack_array(builder, shape),
        strides=cgutils.pack_array(builder, strides),
        itemsize=size,
        meminfo=None,
    )
    return made._getvalue()


@register_jitable
def numbered(rows: Any, number: int) -> Any:
    """Return, in compiled code, the float32 array [a, b, c] of a row that `described` made."""
    row = rows[number]
    return carray(_pointer(row[0]), (row[1], row[2], row[3]), np.float32)


def described(array: NDArray[Any]) -> list[int]:
    """Return the row of a table for an array, which the caller keeps alive."""
    missing = MOST_DIMENSIONS - array.ndim
    return [array.ctypes.data, *array.shape, *[0] * missing]


class Table:
    """Arrays for compiled code.

    Attributes:
        rows: address and shape of the array of every field [fields, 1 + MOST_DIMENSIONS].
        address: of `rows`, which compiled code takes as its argument.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.numbers = {name: number for number, name in enumerate(layout.kinds)}
        self.rows = np.zeros((len(layout.kinds), 1 + MOST_DIMENSIONS), np.int64)
        self.address = self.rows.ctypes.data
        self.arrays: dict[str, NDArray[Any]] = {}

    def set(self, **arrays: NDArray[Any]) -> None:
        """Put arrays into their fields.

        Raises ValueError where an array is not what the field holds: compiled code would read
        and write beside it.
        """
        for name, array in arrays.items():
            kind, dimensions = self.layout.kinds[name]
            if array.dtype != kind or array.ndim != dimensions or not array.flags.c_contiguous:
                raise ValueError(
                    f"{name} must be a contiguous {kind} array of {dimensions} dimensions, "
                    f"not {array.dtype} of shape {array.shape}"
                )
            self.rows[self.numbers[name]] = described(array)
            self.arrays[name] = array
