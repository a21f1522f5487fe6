"""Reads the curves in the file that Weights & Biases writes where it is offline.

The file is LevelDB's log format: blocks of 32 KiB, in which a record has a header of seven bytes
(checksum, length, type) and is split where a block ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER, FULL, LAST = 1 << 15, 7, 1, 4


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file."""
    at, whole = 7, b""  # the file begins with seven bytes of its own
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that the offline runs below a folder logged."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"/".join(each.nested_key) or each.key: each for each in items})
    return [{name: json.loads(each.value_json) for name, each in row.items()} for row in rows]
