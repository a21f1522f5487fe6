"""What scores keep, as plain data of one member: for checkpoints, and back.

A score serves all members of a rule at once, but a member may be trained on among others, or alone.
So what belongs to members, tensors whose first axis is as long as the rule has members, is taken
apart and put together again. Everything else is common to the members.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dstrl_cli.errors import DstrlError

PLAIN = (type(None), bool, int, float, str)
TENSORS = (torch.float64, torch.float32, torch.int64, torch.int32, torch.uint8, torch.bool)
"""Types of the tensors that can be kept."""

KINDS = "numbers, text, tensors, and lists, tuples or dicts of them"


def to_array(tensor: Tensor) -> NDArray[Any]:
    """Return a copy of a tensor on the host."""
    array: NDArray[Any] = tensor.detach().to("cpu", copy=True).contiguous().numpy()
    return array


def taken(value: Any, row: int, members: int) -> Any:
    """Return what the member at `row` of a rule with so many members has of a value.

    That is a plain value, or a mapping whose entry `is` says what it stands for: a tensor that is
    `common`, the member's `row` of one, or a list, tuple or dict. Raises TypeError for a value of
    another kind.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor) and value.dtype in TENSORS:
        if value.dim() and len(value) == members:
            return {"is": "row", "value": to_array(value[row : row + 1])}
        return {"is": "common", "value": to_array(value.reshape(1, *value.shape))}
    if type(value) is dict and all(type(key) in PLAIN for key in value):
        items = taken(list(value.values()), row, members)
        return {"is": "dict", "keys": list(value), "values": items}
    if type(value) in (list, tuple):
        name = type(value).__name__
        if all(type(item) in PLAIN for item in value):
            return {"is": name, "plain": list(value)}
        items = {str(number): taken(item, row, members) for number, item in enumerate(value)}
        return {"is": name, "items": items}
    kind = type(value).__name__
    raise TypeError(f"{kind} of {value.dtype}" if isinstance(value, Tensor) else kind)


def joined(parts: Sequence[Any], device: str) -> Any:
    """Return the value whose members' parts, in order, `taken` returned.

    Tensors are put on `device`. Raises ValueError where members differ in what is common.
    """
    first = parts[0]
    _check_equal([part["is"] if isinstance(part, Mapping) else None for part in parts])
    if not isinstance(first, Mapping):
        _check_equal(parts)
        return first
    match first["is"]:
        case "row":
            rows = np.concatenate([part["value"] for part in parts])
            return torch.from_numpy(rows).to(device)
        case "common":
            if any(not np.array_equal(part["value"], first["value"], True) for part in parts[1:]):
                raise ValueError("it differs between runs")
            return torch.from_numpy(first["value"].copy())[0].to(device)
        case "dict":
            _check_equal([part["keys"] for part in parts])
            values = joined([part["values"] for part in parts], device)
            return dict(zip(first["keys"], values, strict=True))
        case kind:
            make = {"list": list, "tuple": tuple}[kind]
            if "plain" in first:
                _check_equal([part.get("plain") for part in parts])
                return make(first["plain"])
            _check_equal([len(part.get("items", ())) for part in parts])
            numbers = map(str, range(len(first["items"])))
            return make(joined([part["items"][each] for part in parts], device) for each in numbers)


def _check_equal(values: Sequence[Any]) -> None:
    """Raise ValueError unless plain values are all the same (NaN is the same as NaN)."""
    if len({json.dumps(value) for value in values}) > 1:
        raise ValueError("it differs between runs")


def take_attributes(
    owner: str, values: Mapping[str, Any], row: int, members: int
) -> dict[str, Any]:
    """Return what the member at `row` has of a score's values by name; `owner` names the score.

    Raises DstrlError, naming score and attribute, for a value that cannot be kept.
    """
    found = {}
    for name, value in values.items():
        try:
            found[name] = taken(value, row, members)
        except TypeError as error:
            raise DstrlError(
                f"{owner}: its attribute '{name}' cannot be put into a checkpoint, since it is or "
                f"holds a {error}; keep {KINDS}, or give the score methods `state` and "
                "`set_state`"
            ) from None
    return found


def join_attributes(owner: str, parts: Sequence[Mapping[str, Any]], device: str) -> dict[str, Any]:
    """Return a score's values by name from its members' parts, in order.

    Raises DstrlError, naming score and attribute, where members differ in what is common to them.
    """
    found = {}
    for name in parts[0]:
        try:
            found[name] = joined([part[name] for part in parts], device)
        except (KeyError, ValueError) as error:
            raise DstrlError(
                f"{owner}: its attribute '{name}' cannot be joined for runs that train together "
                f"({error}); train them one by one, or keep it as a tensor [members, ...]"
            ) from None
    return found
