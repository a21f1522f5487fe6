"""The checkpoint of a run: the state of its training as one file of arrays and plain values.

A state is a nested mapping with text keys. Its leaves are NumPy arrays, `Pieces` of one array, or
plain values (numbers, text, truth values, None, and lists of these). It is stored as safetensors,
whose metadata holds the plain values as JSON: nothing is pickled, so a checkpoint that comes from
others is safe to open.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dstrl_cli.config.readfile import check_file
from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import create, refuse_link

FORMAT = "dstrl-checkpoint-1"
CHECKPOINT_FOLDER = "checkpoint"
STATE_FILE = "state.safetensors"

MAX_CHECKPOINT = 1 << 42
"""Bytes of a checkpoint."""

State = Mapping[str, Any]

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "int64": "I64",
    "int32": "I32",
    "uint8": "U8",
    "bool": "BOOL",
}
"""NumPy's types that a state may hold, and what safetensors calls them."""


class Pieces(tuple[NDArray[Any], ...]):
    """Arrays that are stored as one, concatenated along their first axis, without a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""
        return (sum(len(piece) for piece in self), *self[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the whole."""
        return self[0].dtype


def write_state(folder: Path, state: State) -> None:
    """Put a state in place of the one that the checkpoint folder `folder` holds, at once.

    The folder is made where it is missing. The state is on the disk when this returns.
    Raises OSError where it cannot be written; the former state is then still there.
    """
    refuse_link(folder)
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Pieces] = {}
    values: dict[str, Any] = {}
    for name, leaf in _leaves(state):
        if isinstance(leaf, np.ndarray):
            arrays[name] = Pieces([leaf])
        elif isinstance(leaf, Pieces):
            arrays[name] = leaf
        else:
            values[name] = leaf
    temporary = folder / f".{STATE_FILE}.part"
    try:
        with create(temporary) as file:
            header = _header(arrays, values)
            file.write(len(header).to_bytes(8, "little") + header)
            for pieces in arrays.values():
                for piece in pieces:
                    file.write(np.ascontiguousarray(piece).data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / STATE_FILE)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state in a checkpoint folder; pieces come back as one array.

    Raises InputError where there is none, or where it is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise InputError(f"there is no checkpoint in {folder}")
    try:
        check_file(path, MAX_CHECKPOINT)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"checkpoint {path} has the format '{metadata.get('format', '')}', "
                    f"expected '{FORMAT}'"
                )
            leaves = json.loads(metadata["values"])
            leaves |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"checkpoint {path} cannot be read: {error}") from error
    return _nested(leaves)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _leaves(state: State, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) of a nested mapping; the parts of a path are joined by '/'."""
    for key, value in state.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def _nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nested mapping of (path, leaf)."""
    state: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, key = name.split("/")
        inner = state
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[key] = leaf
    return state


def _header(arrays: Mapping[str, Pieces], values: Mapping[str, Any]) -> bytes:
    """Return the header of a safetensors file whose data follow in the order of `arrays`."""
    metadata = {"format": FORMAT, "values": json.dumps(values)}
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name, pieces in arrays.items():
        end = start + sum(piece.nbytes for piece in pieces)
        header[name] = {
            "dtype": DTYPES[pieces.dtype.name],
            "shape": list(pieces.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
