"""The operating systems that dstrl runs on."""

from __future__ import annotations

import os

from dstrl_cli.errors import InputError


def check_system() -> None:
    """Raise InputError on a system that dstrl does not run on."""
    if os.name != "posix":
        raise InputError("dstrl runs on Linux and macOS; on Windows, install and call it in WSL")
