"""Archives of runs: the table of the folder, the same bytes every time, and nothing hostile."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from report_samples import write_run

from dstrl_cli.cli import main
from dstrl_cli.errors import InputError
from dstrl_cli.report import archive as reading
from dstrl_cli.report.archiving import archive, last_rows
from dstrl_cli.report.runs import Damage, load

RUN = "Hopper-v5/td3-rlx2/s0.95/seed0"
OTHER = "Hopper-v5/td3-rlx2/s0.95/seed1"

TOPOLOGY = """step,network,layer,active,dropped,grown,fraction
10,actor,0,5,1,1,0.5
10,actor,1,6,2,2,0.5
10,critic1,0,7,3,3,0.5
20,actor,0,4,1,0,0.25
20,actor,1,6,1,1,0.25
30,crit"""


@pytest.fixture
def results(tmp_path) -> Path:
    """Two runs, one of them unfinished, with weights."""
    root = tmp_path / "results"
    for path, status in ((RUN, "finished"), (OTHER, None)):
        folder = write_run(root, path, {0: [0.0], 500: [1.0, 2.0], 1000: [3.0, 5.0]}, status=status)
        (folder / "policy.safetensors").write_bytes(b"weights")
        (folder / "topology.csv").write_text(TOPOLOGY)
        (folder / "log.txt").write_text("/home/somebody\n")
    return root


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as file:
        return file.namelist()


def hostile(path: Path, **files: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


# --- writing ------------------------------------------------------------------------------------


def test_the_table_of_an_archive_is_that_of_its_folder(results, tmp_path, capsys):
    assert main(["archive", str(results), "--out", str(tmp_path / "runs.zip")]) == 0
    assert capsys.readouterr().out.startswith(f"2 runs of {results} in {tmp_path / 'runs.zip'} (")
    for style in (["--json"], ["--format=md"], ["--metric=all-episodes"], ["--columns=params"]):
        shown = []
        for source in (results, tmp_path / "runs.zip"):
            code = main(["table", str(source), *style])
            shown.append((code, *capsys.readouterr()))
        folder, archived = shown
        assert [part and str(part).replace(str(results), "") for part in folder] == [
            part and str(part).replace(str(tmp_path / "runs.zip"), "") for part in archived
        ]
    assert load(tmp_path / "runs.zip").damaged == []


def test_a_part_of_the_results_is_archived_under_the_whole_names_of_its_runs(results, tmp_path):
    for part in ("Hopper-v5", "Hopper-v5/td3-rlx2/s0.95", RUN):
        archive(results / part, tmp_path / "part.zip", overwrite=True)
        first = load(tmp_path / "part.zip").runs[0]
        assert (first.path, first.identity.env) == (RUN, "Hopper-v5")


def test_logs_are_archived_without_weights_and_with_the_last_rows_of_the_topology(
    results, tmp_path
):
    archive(results, tmp_path / "runs.zip")
    logs = ["config.yaml", "episodes.csv", "eval.csv", "progress.csv"]
    assert names(tmp_path / "runs.zip") == [
        *(f"{RUN}/{name}" for name in (*logs, "summary.json", "topology_last.csv")),
        *(f"{OTHER}/{name}" for name in (*logs, "topology_last.csv")),
    ]
    header, *rows = TOPOLOGY.splitlines()
    with zipfile.ZipFile(tmp_path / "runs.zip") as file:
        last = file.read(f"{RUN}/topology_last.csv").decode()
    assert last == "\n".join([header, rows[3], rows[4], rows[2], ""])


def test_the_last_rows_of_a_log_without_rows_are_its_header():
    header = TOPOLOGY.splitlines()[0] + "\n"
    assert last_rows(header) == header
    assert last_rows(header + "10,act") == header


def test_the_same_runs_give_the_same_bytes(results, tmp_path):
    archive(results, tmp_path / "one.zip")
    shutil.copytree(results, tmp_path / "copy" / "elsewhere")
    for file in (tmp_path / "copy").rglob("*"):
        os.utime(file, (1e9, 1e9))
        file.chmod(0o700)
    archive(tmp_path / "copy" / "elsewhere", tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_an_archive_is_replaced_only_where_that_is_wished(results, tmp_path, capsys):
    out = tmp_path / "runs.zip"
    out.write_text("mine")
    assert main(["archive", str(results), f"--out={out}"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["archive", str(results), f"--out={out}", "--overwrite", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"archive": str(out), "runs": 2, "bytes": out.stat().st_size}
    for wrong in (tmp_path, tmp_path / "never made" / "runs.zip"):
        assert main(["archive", str(results), f"--out={wrong}", "--overwrite"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["archive", str(tmp_path / "empty"), f"--out={tmp_path / 'no.zip'}"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "results", "runs.zip"]


def test_an_archive_takes_the_place_of_no_pipe_or_device(results, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    assert main(["archive", str(results), f"--out={tmp_path / 'pipe'}", "--overwrite"]) == 2
    assert "is a folder, a device or a pipe" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_in_a_run_is_not_followed_and_that_is_said(results, tmp_path, capsys):
    secret = tmp_path / "secret.txt"
    secret.write_text("mine alone\n")
    log = results / RUN / "eval.csv"
    log.unlink()
    log.symlink_to(secret)
    assert main(["archive", str(results), f"--out={tmp_path / 'runs.zip'}"]) == 0
    assert f"{log}: not a plain file" in capsys.readouterr().err.replace("\n", "")
    assert f"{RUN}/eval.csv" not in names(tmp_path / "runs.zip")


def test_a_run_that_a_link_leads_to_is_archived_once(results, tmp_path, capsys):
    (results / "latest").symlink_to(results / "Hopper-v5", target_is_directory=True)
    assert main(["archive", str(results), f"--out={tmp_path / 'runs.zip'}"]) == 0
    assert "which is in the archive" in " ".join(capsys.readouterr().err.split())
    (results / "latest").unlink()
    assert len(load(tmp_path / "runs.zip").runs) == len(load(results).runs)


# --- reading what others made -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../up", "/etc/run", "a\\b", "a/./b", "a\x1b[2Jb", "a//b"])
def test_odd_names_are_refused(tmp_path, name):
    path = hostile(tmp_path / "runs.zip", **{f"{name}/eval.csv": ""})
    with pytest.raises(InputError, match="odd name"):
        load(path)
    assert [each.name for each in tmp_path.iterdir()] == ["runs.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "runs.zip", "w") as file:
        for content in ("one", "two"):
            file.writestr(f"{RUN}/eval.csv", content)
    with pytest.raises(InputError, match="twice"):
        load(tmp_path / "runs.zip")


def test_files_too_large_for_logs_are_refused_before_they_are_unpacked(
    results, tmp_path, monkeypatch
):
    archive(results, tmp_path / "runs.zip")
    size = (results / RUN / "config.yaml").stat().st_size
    monkeypatch.setattr(reading, "MAX_FILE", size - 1)
    with pytest.raises(InputError, match=f"config.yaml has {size:,} bytes, over {size - 1:,}"):
        load(tmp_path / "runs.zip")
    monkeypatch.setattr(reading, "MAX_FILE", size)
    monkeypatch.setattr(reading, "MAX_TOTAL", 2 * size)
    with pytest.raises(InputError, match="archive parts of the results one by one"):
        load(tmp_path / "runs.zip")
    with pytest.raises(InputError, match="archive parts of the results one by one"):
        archive(results, tmp_path / "other.zip")


def test_a_file_that_holds_more_than_it_says_is_damage(tmp_path):
    path = hostile(tmp_path / "runs.zip", **{f"{RUN}/eval.csv": "1" * 100_000})
    content = path.read_bytes()
    place = content.rindex((100_000).to_bytes(4, "little"))  # in the directory at the end
    path.write_bytes(content[:place] + (5).to_bytes(4, "little") + content[place + 4 :])
    place = reading.open_archive(path) / f"{RUN}/eval.csv"
    with pytest.raises(OSError, match=r"damaged in runs\.zip"):
        place.read_bytes()


def test_a_damaged_file_leaves_out_its_run_alone(results, tmp_path):
    archive(results, tmp_path / "runs.zip")
    with zipfile.ZipFile(tmp_path / "runs.zip") as file:
        info = file.getinfo(f"{RUN}/eval.csv")
    content = bytearray((tmp_path / "runs.zip").read_bytes())
    content[info.header_offset + 30 + len(info.filename)] ^= 0xFF
    (tmp_path / "runs.zip").write_bytes(content)
    found = load(tmp_path / "runs.zip")
    first, second = found.runs
    assert len(first.evaluations["step"]) == 0
    assert len(second.evaluations["step"]) == 5
    (damage,) = found.damaged
    assert isinstance(damage, Damage)
    assert damage.path == f"{RUN}/eval.csv"
    assert "damaged in runs.zip" in damage.cause


def test_what_is_no_archive_is_said_to_be_none(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("not a zip")
    assert main(["table", str(tmp_path / "notes.txt")]) == 2
    assert "is not a folder, and no archive that can be read" in capsys.readouterr().err
    hostile(tmp_path / "empty.zip", readme="nothing")
    assert main(["table", str(tmp_path / "empty.zip")]) == 2
    assert "holds no runs" in capsys.readouterr().err
