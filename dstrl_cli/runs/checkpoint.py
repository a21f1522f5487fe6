"""The checkpoint of a run: the state of its training as one file of arrays and plain values.

A state is a nested mapping with text keys. Its leaves are NumPy arrays, `Pieces` of one array, or
plain values (numbers, text, truth values, None, and lists of these). It is stored as safetensors,
whose metadata holds the plain values as JSON: nothing is pickled, so a checkpoint that comes from
others is safe to open. The metadata also hold a checksum of all arrays.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from dstrl_cli.config.readfile import check_file
from dstrl_cli.errors import InputError
from dstrl_cli.runs.files import create, is_file, refuse_link, sync_folder

FORMAT = "dstrl-checkpoint-1"
CHECKPOINT_FOLDER = "checkpoint"
STATE_FILE = "state.safetensors"
REMEDY = "start the run over with --overwrite"

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

_NAMED = {name: dtype for dtype, name in DTYPES.items()}


class Pieces(tuple[NDArray[Any], ...]):
    """Arrays that are stored as one, concatenated along their first axis, without a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole; a single piece may be a scalar."""
        if len(self) == 1:
            return self[0].shape
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
    leaves = dict(_leaves(state))
    arrays = {
        name: leaf if isinstance(leaf, Pieces) else Pieces([leaf])
        for name, leaf in leaves.items()
        if isinstance(leaf, np.ndarray | Pieces)
    }
    # Types of 8 bytes come first, then those of 4 and of 1: so each array begins at a multiple of
    # its own item size, as reading it in place requires.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))
    values = {name: leaf for name, leaf in leaves.items() if name not in arrays}
    temporary = folder / f".{STATE_FILE}.part"
    try:
        with create(temporary) as file:
            file.write(_header(arrays, values, checksum=0))
            checksum = 0
            for pieces in arrays.values():
                for piece in pieces:
                    data = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
                    checksum = zlib.crc32(data, checksum)
                    file.write(data)
            file.seek(0)  # now that the checksum is known: a header of the same length
            file.write(_header(arrays, values, checksum))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(folder / STATE_FILE)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state in a checkpoint folder; pieces come back as one array.

    The arrays are read from the file when they are used; changing one does not change the file.
    Raises InputError where there is no checkpoint, or where it is damaged.
    """
    path, metadata = _open(folder)
    try:
        content = np.memmap(path, dtype=np.uint8, mode="c")
        length = int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8 : 8 + length].tobytes())
        data = content[8 + length :]
        leaves = json.loads(metadata["values"])
        if zlib.crc32(data.data) != int(metadata["checksum"], 16):
            raise ValueError("its checksum is wrong")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            array = data[start:end].view(_NAMED[entry["dtype"]]).reshape(entry["shape"])
            leaves[name] = np.asarray(array)
    return _nested(leaves)


def read_values(folder: Path) -> dict[str, Any]:
    """Return the plain values of a state, quickly: without its arrays, which are not checked.

    Raises InputError where there is no checkpoint, or where its header is damaged or does not fit
    the length of the file.
    """
    path, metadata = _open(folder)
    try:
        return _nested(json.loads(metadata["values"]))
    except (ValueError, KeyError, RecursionError) as error:
        raise _damaged(path, error) from error


def has_state(folder: Path) -> bool:
    """Whether the checkpoint folder `folder` holds a state, damaged or not."""
    return is_file(folder / STATE_FILE)


def written_at(folder: Path) -> int | None:
    """Return when the state in the checkpoint folder `folder` was written, or None without one."""
    try:
        return (folder / STATE_FILE).lstat().st_mtime_ns
    except OSError:
        return None


def _open(folder: Path) -> tuple[Path, dict[str, str]]:
    """Return the file of a state and its metadata. Raises InputError as `read_values`."""
    path = folder / STATE_FILE
    if not has_state(folder):
        raise InputError(f"there is no checkpoint in {folder}")
    try:
        check_file(path, MAX_CHECKPOINT)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"checkpoint {path} has the format '{metadata.get('format', '')}', this dstrl reads "
            f"'{FORMAT}': {REMEDY}"
        )
    return path, metadata


def _damaged(path: Path, cause: object) -> InputError:
    return InputError(f"checkpoint {path} is damaged ({cause}): {REMEDY}")


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


def _header(arrays: Mapping[str, Pieces], values: Mapping[str, Any], checksum: int) -> bytes:
    """Return the header of a safetensors file, whose data follow in the order of `arrays`.

    It begins with its own length, as the format wants. That does not depend on the checksum.
    """
    metadata = {"format": FORMAT, "checksum": f"{checksum:08x}", "values": json.dumps(values)}
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
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
