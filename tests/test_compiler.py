"""Where compiled code is kept: also of an installation, and for a user, that can write nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
from program_samples import REPOSITORY

from dstrl_cli import compiler
from dstrl_cli.algos.compiled import sac, td3
from dstrl_cli.nets import adam
from dstrl_cli.nets.sparse import passes

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


def test_a_function_has_copies_of_its_own_of_those_that_it_calls() -> None:
    """Of several with one name, what was compiled or loaded before would decide which one runs."""

    assert compiler.jit  # its module changes how functions are compiled

    @numba.njit(numba.int64(numba.int64))
    def fibonacci(n: int) -> Any:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    @numba.njit(numba.int64(numba.int64))
    def twice(n: int) -> Any:
        return 2 * fibonacci(n)

    library = twice.get_compile_result(numba.int64(numba.int64)).library
    copies = [line for line in library.get_llvm_str().splitlines() if "9fibonacci" in line]
    assert [line.split()[1] for line in copies if line.startswith("define")] == ["internal"]
    assert twice(10) == 110


@pytest.mark.soak
def test_the_run_that_compiles_gives_the_numbers_of_later_ones(tmp_path: Path) -> None:
    keys = ("learning_starts=500", "hidden_sizes=[64,64]", "eval_every=500", "eval_episodes=1")
    sets = [word for key in (*keys, "topology.update_interval=50") for word in ("--set", key)]
    found = []
    for name in ("first", "second"):
        command = [sys.executable, "-m", "dstrl_cli", "train", "--dst", "dst", "--ours", *sets]
        command += ["--env", "HalfCheetah-v5", "--steps", "1500", "--out", str(tmp_path / name)]
        env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "code")}
        subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, check=True)
        (hashes,) = (tmp_path / name).rglob("hashes.csv")
        found.append(hashes.read_text())
    assert found[0] == found[1]


TOGETHER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
import numba
import tiny, other
from dstrl_cli import compiler
from numba.core import event

mine = []
class Listener(event.Listener):
    def on_start(self, happened):
        name = happened.data["dispatcher"].py_func.__name__
        mine.append(name)
        Path(f"{sys.argv[1]}-begins-{name}").touch()
        while not Path(f"{sys.argv[2]}-begins-{'minus' if name == 'plus' else 'plus'}").exists():
            time.sleep(0.01)  # until the other process compiles too
    def on_end(self, happened):
        pass
event.register("numba:compile", Listener())
def compiled(module, function):
    return SimpleNamespace(
        __name__=module.__name__, FUNCTIONS=[function], SOURCES=[module.__file__],
        compile_all=lambda: function.compile((numba.int64,)),
    )
compiler.compile_in_turns([compiled(tiny, tiny.plus), compiled(other, other.minus)])
print(mine, tiny.plus(1), other.minus(1))
"""


def test_processes_that_begin_together_compile_each_module_once(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(PLUS)
    (tmp_path / "other.py").write_text(PLUS.replace("plus", "minus").replace("+", "-"))
    (tmp_path / "use.py").write_text(TOGETHER)
    env = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "NUMBA_CACHE_DIR": str(tmp_path / "code"),
    }
    started = [
        subprocess.Popen(
            [sys.executable, "use.py", *names], cwd=tmp_path, env=env, stdout=subprocess.PIPE
        )
        for names in (("one", "two"), ("two", "one"))
    ]
    said = sorted(process.communicate(timeout=60)[0].decode() for process in started)
    assert said == ["['minus'] 2 0\n", "['plus'] 2 0\n"]


LET_GO = """
from pathlib import Path
import tiny
from dstrl_cli import compiler
def held():
    total, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = "libllvmlite" in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total
print(tiny.plus(1))
before = held()
compiler.let_go()
print(held() < before / 4)
print(tiny.plus(1), tiny.plus(1.5))  # the second is compiled now
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what is held")
def test_the_compiler_leaves_memory_and_can_be_used_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(PLUS)
    (tmp_path / "use.py").write_text(LET_GO)
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "NUMBA_CACHE_DIR": str(tmp_path / "code")}
    command = [sys.executable, "use.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2", "True", "2", "2.5"]


def test_constants_that_are_compiled_in_belong_to_the_sources() -> None:
    for module in (passes, td3, sac):
        assert adam.__file__ in module.SOURCES
