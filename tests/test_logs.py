"""The logs of a run: rows whole or not at all, cut to a position, read while they grow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_samples import fill, small_disk
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report.csvfile import read_csv
from dstrl_cli.runs import files, logs

HEADER = "step,episode,return,length,success\n"
ROW = "5,0,1.5,10,\n"


def row(step: int) -> dict[str, object]:
    return {"step": step, "episode": 0, "return": 1.5, "length": 10}


def test_rows_follow_the_header(tmp_path: Path) -> None:
    logs.create(tmp_path)
    logs.append(tmp_path, "eval.csv", [row(5), row(10)])
    logs.append(tmp_path, "eval.csv", [])
    assert (tmp_path / "eval.csv").read_text() == HEADER + ROW + "10,0,1.5,10,\n"


@given(
    rows=st.integers(1, 30),
    writes=st.lists(st.integers(1, 40), max_size=12),
    code=st.sampled_from([errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, None]),
)
def test_rows_are_there_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, rows: int, writes: list[int], code: int | None
) -> None:
    """Each write takes a few bytes; after the last of `writes` comes an error, or all the rest."""
    folder = tmp_path_factory.mktemp("logs")
    before = HEADER.encode() + b"0,0,1.5,10,\n"
    (folder / "eval.csv").write_bytes(before)
    sizes: Iterator[int] = iter(writes)
    write = os.write

    def short(descriptor: int, data: memoryview) -> int:
        size = next(sizes, None)
        if size is None and code is not None:
            raise OSError(code, os.strerror(code))
        return write(descriptor, data[:size])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", short)
        failed = False
        try:
            logs.append(folder, "eval.csv", [row(step) for step in range(1, rows + 1)])
        except DstrlError:
            failed = True
    after = (folder / "eval.csv").read_bytes()
    whole = before + b"".join(b"%d,0,1.5,10,\n" % step for step in range(1, rows + 1))
    assert after == (before if failed else whole)
    assert failed <= (code is not None)


def test_an_interruption_in_the_middle_of_a_write_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.create(tmp_path)
    write = os.write

    def interrupted(descriptor: int, data: memoryview) -> int:
        write(descriptor, data[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        logs.append(tmp_path, "eval.csv", [row(5)])
    assert (tmp_path / "eval.csv").read_text() == HEADER


LIMITED = """
import resource, sys
from pathlib import Path
from dstrl_cli.errors import DstrlError
from dstrl_cli.runs import files, logs
folder = Path(sys.argv[1])
logs.create(folder)
files.write(folder / "summary.json", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))
for work in (
    lambda: [logs.append(folder, "eval.csv", [{"step": n, "episode": 0, "return": 1.5,
             "length": 10}] * 7) for n in range(1000)],
    lambda: files.write(folder / "summary.json", b"new" * 400),
):
    try:
        work()
    except DstrlError as error:
        print(error)
"""


def test_a_limit_on_the_size_of_files_leaves_whole_rows_and_old_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=False
    )
    first, second = done.stdout.splitlines()
    assert first.endswith("eval.csv cannot be written: " + files.CAUSES[errno.EFBIG])
    assert second.endswith("summary.json cannot be written: " + files.CAUSES[errno.EFBIG])
    lines = (tmp_path / "eval.csv").read_text().splitlines(keepends=True)
    # 35 bytes of header; 7 rows of "0,0,1.5,10,\n" take 84: six times seven rows fit in 600 bytes
    assert lines == [HEADER, *[f"{n},0,1.5,10,\n" for n in range(6) for _ in range(7)]]
    assert (tmp_path / "summary.json").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_whole_rows_and_old_files(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        logs.create(disk)
        files.write(disk / "summary.json", b"old")
        logs.append(disk, "eval.csv", [row(1)] * 300)
        before = (disk / "eval.csv").read_bytes()
        fill(disk)
        with pytest.raises(DstrlError, match=r"eval\.csv cannot be written: the disk is full"):
            logs.append(disk, "eval.csv", [row(2)] * 900)
        assert (disk / "eval.csv").read_bytes() == before
        with pytest.raises(DstrlError, match=r"summary\.json cannot be written: the disk is full"):
            files.write(disk / "summary.json", b"new" * 4000)
        assert (disk / "summary.json").read_bytes() == b"old"
        assert not list(disk.glob(".*"))


def test_logs_are_cut_to_where_they_were(tmp_path: Path) -> None:
    logs.create(tmp_path)
    logs.append(tmp_path, "eval.csv", [row(5)])
    at = logs.positions(tmp_path)
    assert at.keys() == logs.COLUMNS.keys()
    assert at["eval.csv"] == len(HEADER + ROW)
    logs.append(tmp_path, "eval.csv", [row(10)])
    with (tmp_path / "episodes.csv").open("a") as file:
        file.write("7,0,")  # the process was killed in the middle of a write
    logs.sync(tmp_path)
    logs.cut(tmp_path, at)
    assert logs.positions(tmp_path) == at
    assert (tmp_path / "eval.csv").read_text() == HEADER + ROW
    logs.append(tmp_path, "eval.csv", [row(10)])
    assert (tmp_path / "eval.csv").read_text() == HEADER + ROW + "10,0,1.5,10,\n"


def test_a_log_that_was_altered_before_its_checkpoint_is_not_gone_on_with(tmp_path: Path) -> None:
    logs.create(tmp_path)
    logs.append(tmp_path, "eval.csv", [row(5)])
    at = logs.positions(tmp_path)
    known = logs.checksums(tmp_path, at)
    logs.append(tmp_path, "eval.csv", [row(10)])  # what comes later is cut off
    logs.check(tmp_path, at, known)
    file = tmp_path / "eval.csv"
    file.write_text(file.read_text().replace("5,0,1.5", "5,0,2.5"))
    with pytest.raises(InputError, match=r"eval\.csv was altered.*--overwrite"):
        logs.check(tmp_path, at, known)


def test_a_log_that_an_older_run_did_not_have_starts_when_it_goes_on(tmp_path: Path) -> None:
    logs.create(tmp_path)
    (tmp_path / "hashes.csv").unlink()
    at = logs.positions(tmp_path)
    assert "hashes.csv" not in at
    logs.cut(tmp_path, at)
    assert (tmp_path / "hashes.csv").read_text() == "step,network,weights,masks\n"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (HEADER, r"it has 35 bytes, its checkpoint was made at 47"),
        (HEADER + "5,0,1.5,10,7,8,9\n", r"no row ends at byte 47"),
        (None, r"No such file"),
    ],
)
def test_a_log_that_lacks_rows_of_before_is_damage_and_nothing_is_changed(
    tmp_path: Path, content: str | None, cause: str
) -> None:
    logs.create(tmp_path)
    logs.append(tmp_path, "eval.csv", [row(5)])
    at = logs.positions(tmp_path)
    file = tmp_path / "eval.csv"
    file.unlink() if content is None else file.write_text(content)
    logs.append(tmp_path, "progress.csv", [{"step": 5}])
    longer = (tmp_path / "progress.csv").read_text()
    with pytest.raises(InputError, match=rf"eval\.csv is damaged.*{cause}.*--overwrite"):
        logs.check(tmp_path, at, {})
    assert (tmp_path / "progress.csv").read_text() == longer
    assert not file.is_file() or file.read_text() == content


def test_rows_are_never_written_through_a_link(tmp_path: Path) -> None:
    """A folder that comes from others may hold a link to any file of the user's."""
    logs.create(tmp_path)
    mine = tmp_path / "mine"
    mine.write_text("years\nof work\n")
    (tmp_path / "eval.csv").unlink()
    (tmp_path / "eval.csv").symlink_to(mine)
    with pytest.raises(DstrlError, match=r"eval\.csv cannot be written: it is a link"):
        logs.append(tmp_path, "eval.csv", [row(5)])
    with pytest.raises(DstrlError, match=r"eval\.csv cannot be written: it is a link"):
        logs.cut(tmp_path, {"eval.csv": len("years\n")})
    assert mine.read_text() == "years\nof work\n"


def test_a_last_line_without_its_newline_is_not_read(tmp_path: Path) -> None:
    logs.create(tmp_path)
    logs.append(tmp_path, "eval.csv", [row(5), row(10)])
    whole = (tmp_path / "eval.csv").read_bytes()
    file, at_ten = tmp_path / "eval.csv", len(HEADER + ROW)
    for end in range(at_ten, len(whole)):
        file.write_bytes(whole[:end])
        told: list[str] = []
        table = read_csv(file, lambda _, cause: told.append(cause), logs.COLUMNS["eval.csv"][:4])  # noqa: B023
        assert table is not None
        assert table["step"].tolist() == [5]
        assert len(told) == (end > at_ten)
