"""Digests of a run's networks: the rows of `hashes.csv`, by which two trainings are compared.

Networks whose numbers and masks are equal have equal digests, whichever engine stored them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

DIGEST_SIZE = 16
"""Bytes of a digest."""

Tensors = Mapping[str, NDArray[Any]]


def hash_rows(
    step: int, tensors: Tensors, networks: Mapping[str, Iterable[str]]
) -> list[dict[str, Any]]:
    """Return the rows of `hashes.csv` of one evaluation: one for each network.

    Args:
        step: environment steps so far.
        tensors: what a policy file holds (`runs.policy.network_tensors`).
        networks: the name of each network in `hashes.csv`, with the names of its heads K in the
            policy file: actor; critic1, critic2.
    """
    return [
        {
            "step": step,
            "network": network,
            "weights": _digest(tensors, heads, ("weight", "bias")),
            "masks": _digest(tensors, heads, ("mask",)),
        }
        for network, heads in ((name, list(each)) for name, each in networks.items())
    ]


def _digest(tensors: Tensors, heads: list[str], kinds: Iterable[str]) -> str:
    """Return the digest of a network's arrays, kind by kind and layer by layer, heads in order."""
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for kind in kinds:
        for array in _arrays(tensors, heads, kind):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            # A zero may carry a sign, which no comparison of numbers sees: adding 0 removes it.
            digest.update((array + array.dtype.type(0)).data)
    return digest.hexdigest()


def _arrays(tensors: Tensors, heads: list[str], kind: str) -> Iterator[NDArray[Any]]:
    """Yield the arrays of one kind, layer by layer: those of the heads in order."""
    layer = 0
    while f"{heads[0]}.{kind}.{layer}" in tensors:
        for head in heads:
            yield tensors[f"{head}.{kind}.{layer}"]  # [in, out] or [out]
        layer += 1
