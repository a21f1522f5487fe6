"""What RLtools needs before it can be measured: it compiles a C++ program for every run."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dstrl_cli.config.models import RunConfig

COMPILERS = ("g++", "clang++")
MKL = ("mkl", "mkl-include")
"""Intel's linear algebra, with which RLtools computes on Linux; on macOS it takes Accelerate."""

ALGORITHMS = ("td3", "sac")


def missing() -> str | None:
    """Return in one line what RLtools lacks on this machine, and the remedy; None: nothing."""
    chosen = os.environ.get("RL_TOOLS_COMPILER")
    if not any(map(shutil.which, [chosen] if chosen else COMPILERS)):
        wanted = chosen or " or ".join(COMPILERS)
        return f"RLtools is compiled for every run, and no C++ compiler ({wanted}) is found"
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "RLtools is compiled for every run, and Python's C headers (python3-dev) are missing"
    if sys.platform == "linux" and platform.machine() == "x86_64":
        absent = [name for name in MKL if not _is_installed(name)]
        if absent:
            return f'{" and ".join(absent)} not installed: pip install "rltools[mkl]"'
    return None


def refusal(config: RunConfig) -> str | None:
    """Return why RLtools' Python interface cannot train at the sizes of a run; None: it can."""
    if config.algo not in ALGORITHMS:
        return f"RLtools has no {config.algo}; it has {' and '.join(ALGORITHMS)}"
    if len(set(config.hidden_sizes)) > 1:
        sizes = "-".join(map(str, config.hidden_sizes))
        return f"RLtools' hidden layers have one width, not {sizes}: set --width"
    return None


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
