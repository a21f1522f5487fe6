"""Acts from an exported .npz file with NumPy alone: copy this file to where you need it.

    python acting.py SECONDS ROUNDS policy.npz ...

prints, in each round, the seconds of processor time that one action of each file takes, measured
for SECONDS.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

CALLS_A_LOOK = 20
"""Calls between two looks at the clock."""


def load(path: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file; nothing in it is executed."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def act(arrays: Arrays, observation: NDArray[Any]) -> NDArray[Any]:
    """Return the action for one observation [obs], or the actions for a batch [N, obs]."""
    value = np.asarray(observation, np.float32)
    last = sum(name.startswith("weight.") for name in arrays) - 1
    for layer in range(last + 1):
        value = value @ arrays[f"weight.{layer}"] + arrays[f"bias.{layer}"]
        value = value if layer == last else np.maximum(value, 0.0)
    low, high = arrays["low"], arrays["high"]
    scaled = arrays["middle"] + arrays["half"] * np.tanh(value)
    return np.clip(scaled, low, high).astype(low.dtype)


def seconds_a_call(call: Callable[[], Any], seconds: float) -> float:
    """Return the processor time of one call, measured for so many seconds."""
    call()
    began, calls, elapsed = time.process_time(), 0, 0.0
    while elapsed < seconds or not calls:
        for _ in range(CALLS_A_LOOK):
            call()
        calls += CALLS_A_LOOK
        elapsed = time.process_time() - began
    return elapsed / calls


def seconds_an_action(arrays: Arrays, seconds: float) -> float:
    """Return the processor time of one action, measured for so many seconds."""
    size = len(arrays["weight.0"])
    observation = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    return seconds_a_call(lambda: act(arrays, observation), seconds)


if __name__ == "__main__":
    loaded = [load(path) for path in sys.argv[3:]]
    for _ in range(int(sys.argv[2])):
        print(*(seconds_an_action(arrays, float(sys.argv[1])) for arrays in loaded))
