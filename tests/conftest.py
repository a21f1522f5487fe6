"""Settings and fixtures of all tests.

One thread is the default of a run, and the fastest on tiny networks.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Processes that tests start keep their bytecode, as users' do: else each compiles dstrl anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Signals are ignored in a shell's background jobs and under nohup, and by what they start: then no
# Ctrl-C, and no end of a terminal, would reach a test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begin in an empty folder: runs that lie in `results` of this one are no test's."""
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))


@pytest.fixture(autouse=True)
def _restore_torch() -> Iterator[None]:
    """Undo what training sets for the process: hypothesis refuses to draw floats without denormals.

    Measurements also switch gradients off.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
        sys.modules["torch"].set_grad_enabled(True)
