"""dstrl: dynamic sparse training for deep reinforcement learning.

`train` and `load_policy` are in `api`, `read_results` and `read_evaluations` in `report.frames`.
Each is imported when it is first used: importing the package loads neither torch nor gymnasium nor
pandas, so that the command line starts fast.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from dstrl_cli.errors import DstrlError, InputError

if TYPE_CHECKING:
    from dstrl_cli.api import load_policy, train
    from dstrl_cli.report.frames import read_evaluations, read_results
    from dstrl_cli.runs.policy import Policy

__version__ = "0.1.0"

__all__ = [
    "DstrlError",
    "InputError",
    "Policy",
    "__version__",
    "load_policy",
    "read_evaluations",
    "read_results",
    "train",
]

_HOMES = {
    "Policy": "dstrl_cli.runs.policy",
    "load_policy": "dstrl_cli.api",
    "read_evaluations": "dstrl_cli.report.frames",
    "read_results": "dstrl_cli.report.frames",
    "train": "dstrl_cli.api",
}
"""The module of each name that is imported when it is first used."""


def check_system() -> None:
    """Raise InputError on a system that dstrl does not run on."""
    if os.name != "posix":
        raise InputError("dstrl runs on Linux and macOS; on Windows, install and call it in WSL")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    check_system()
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # the next use finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
