"""Where compiled code is kept: also of an installation, and for a user, that can write nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from program_samples import REPOSITORY

PLUS = """
from dstrl_cli.compiler import jit

@jit
def plus(x):
    return x + 1
"""
USE = """
import json, os, tempfile
tempfile.tempdir = os.environ["TMPDIR"]
import tiny
from dstrl_cli import compiler
kept = tiny.plus.stats.cache_path
print(json.dumps([tiny.plus(1), kept, compiler.kept_elsewhere()]))
print(compiler.are_cached([tiny.plus], [tiny.__file__]), os.environ.get("NUMBA_CACHE_DIR"))
"""


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A module whose folder has no room for compiled code; files stand where folders should be."""
    (tmp_path / "tiny.py").write_text(PLUS)
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "__pycache__").touch()
    (tmp_path / "home").touch()
    (tmp_path / "temporary").mkdir()
    return tmp_path


def use(folder: Path, temporary: str) -> list[str]:
    """Use the module with that folder for temporary files; return the two lines it prints."""
    nowhere = str(folder / "home/nothing")
    own = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "TMPDIR": str(folder / temporary)}
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    env |= {"PYTHONPATH": str(REPOSITORY), **own}
    command = [sys.executable, "use.py"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_code_is_kept_among_temporary_files_where_nothing_else_can_be_written(
    read_only: Path,
) -> None:
    told, cached = use(read_only, "temporary")
    (folder,) = (read_only / "temporary").iterdir()
    assert told.startswith(f'[2, "{folder}/')
    assert told.endswith(f', "{folder}"]')
    assert cached == f"True {folder}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700  # loading code of others would run it
    assert use(read_only, "temporary") == [told, cached]


def test_a_folder_of_others_is_not_used_for_code(read_only: Path) -> None:
    owner = os.getuid()
    planted = read_only / f"temporary/dstrl-numba-{owner}"
    planted.mkdir()
    planted.chmod(0o777)
    told, _ = use(read_only, "temporary")
    assert told.startswith("[2, ")
    assert f"{planted}/" not in told
    assert list(planted.iterdir()) == []


def test_code_is_compiled_without_a_place_to_keep_it(read_only: Path) -> None:
    assert use(read_only, "home") == ["[2, null, null]", "False None"]
