"""Runs dstrl as an installed program, in a process of its own in a user's folder; what it said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def dstrl(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`; it must exit with `code`.

    As with a console script, `sys.path` (option `-P`) lacks the current folder.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "dstrl_cli", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what went to standard error of this process, as one line."""
    return " ".join(capsys.readouterr().err.split())
