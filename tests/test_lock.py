"""The lock of a run folder: held by one process, and by none that has died."""

import errno
import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import pytest

from dstrl_cli.errors import InputError
from dstrl_cli.runs import lock


def hold(path: Path, ready: Connection) -> None:
    lock.acquire(path)
    ready.send(os.getpid())
    signal.pause()


@pytest.fixture
def holding(tmp_path):
    """A process that holds the folder `tmp_path` until it is killed."""
    context = multiprocessing.get_context("spawn")
    ready, theirs = context.Pipe(duplex=False)
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ready.poll(60)
    assert ready.recv() == process.pid
    yield process
    process.kill()
    process.join()


def test_a_held_folder_is_refused_and_says_who_holds_it_until_that_process_is_killed(
    tmp_path, holding
):
    with pytest.raises(lock.InUse, match=f"folder {tmp_path} is in use by another dstrl"):
        lock.acquire(tmp_path)
    with pytest.raises(lock.InUse):
        lock.check_unused(tmp_path)
    assert lock.holder(tmp_path) == f"process {holding.pid} on {os.uname().nodename}"
    os.kill(holding.pid, signal.SIGKILL)
    holding.join()
    assert not lock.in_use(tmp_path)
    assert lock.holder(tmp_path) is None
    assert (tmp_path / lock.LOCK_FILE).exists()  # what a killed process leaves
    with lock.held(tmp_path):
        assert lock.in_use(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "O_ACCMODE"), reason="tells how a file was opened")
def test_a_file_system_that_locks_only_what_may_be_written_shows_its_locks(
    tmp_path, holding, monkeypatch
):
    """As NFS does."""
    real = fcntl.flock

    def flock(descriptor, operation):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert lock.in_use(tmp_path)


def test_of_many_folders_those_that_are_held_are_found_with_one_pause(tmp_path, monkeypatch):
    found = [tmp_path / name for name in "abcd"]
    for each in found:
        each.mkdir()
    descriptors = {each: lock.acquire(each) for each in found[:3]}
    pauses = []

    def sleep(seconds):  # who only asked has let go
        pauses.append(seconds)
        lock.release(found[0], descriptors.pop(found[0]))

    monkeypatch.setattr(lock, "time", SimpleNamespace(sleep=sleep))
    here = f"process {os.getpid()} on {os.uname().nodename}"
    assert lock.holders(iter(found)) == {found[1]: here, found[2]: here}
    assert pauses == [lock.PAUSE_S]
    for each, descriptor in descriptors.items():
        lock.release(each, descriptor)
    assert lock.holders(found) == {}
    assert pauses == [lock.PAUSE_S]


def test_asking_whether_a_folder_is_held_writes_nothing(tmp_path):
    assert not lock.in_use(tmp_path)
    assert not lock.in_use(tmp_path / "never made")
    assert list(tmp_path.iterdir()) == []


def test_another_refusal_is_not_that_of_a_held_folder(tmp_path):
    (tmp_path / "elsewhere").write_text("theirs")
    (tmp_path / lock.LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="cannot be written") as link:
        lock.acquire(tmp_path)
    assert not isinstance(link.value, lock.InUse)
    assert (tmp_path / "elsewhere").read_text() == "theirs"
    with pytest.raises(InputError, match="it is no longer there"):
        lock.acquire(tmp_path / "never made")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    descriptor = lock.acquire(tmp_path)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the parent has looked
        os._exit(0)
    os.close(reading)
    os.close(descriptor)  # as if this process had died
    lock._held.discard(descriptor)
    assert not lock.in_use(tmp_path)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
