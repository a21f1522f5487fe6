"""A policy as an .npz file of NumPy: whole matrices without idle neurons.

It holds `weight.0` [in, out], `bias.0` [out], `weight.1`, ... from the observation on, and the
action bounds: `middle` and `half` the width in the type in which actions are computed, `low` and
`high` in their own, [act] each. `acting.py` acts from it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from dstrl_cli.export.network import Network


def content(network: Network, about: Mapping[str, str]) -> bytes:
    """Return the bytes of the file; the same policy always gives the same.

    Args:
        network: what is exported.
        about: what policy it is; the file holds it as JSON, under `about`.
    """
    arrays: dict[str, Any] = {}
    for number, layer in enumerate(network.layers):
        arrays[f"weight.{number}"] = layer.weight
        arrays[f"bias.{number}"] = layer.bias
    scale = network.scale
    arrays |= {"middle": scale.middle, "half": scale.half}
    arrays |= {"low": scale.low.astype(scale.dtype), "high": scale.high.astype(scale.dtype)}
    arrays["about"] = np.array(json.dumps(dict(about), sort_keys=True))
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()
