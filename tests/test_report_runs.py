"""Run folders as the reports read them: found, named, loaded, and their damage told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_samples import EVAL_HEADER, write_run

from dstrl_cli.errors import InputError
from dstrl_cli.report.runs import Damage, Identity, load

HOPPER = "Hopper-v5/td3-rlx2/s0.95/seed0"


def test_report_needs_neither_torch_nor_gymnasium() -> None:
    code = (
        "import sys, dstrl_cli.report, dstrl_cli.report.render, dstrl_cli.algos.flops;"
        "sys.exit(bool({'torch', 'gymnasium', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {0: [1.0], 500: [2.0, 4.0]}, episodes={100: [7.0]})
    results = load(tmp_path)
    assert results.damaged == ()
    (run,) = results.runs
    assert run.path == HOPPER
    assert run.identity == Identity("Hopper-v5", "td3", "rlx2", "s0.95", 0, 0)
    assert run.finished
    assert run.config["actor.sparsity"] == 0.95
    assert run.evaluations["return"].tolist() == [1.0, 2.0, 4.0]
    assert run.episodes["step"].tolist() == [100]
    assert run.progress["step"].tolist() == [0]
    assert "run.device" not in run.settings
    assert "seed" not in run.settings


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("a/b/Ant-v2/sac-our-dst/s0.9/seed12", ("Ant-v2", "sac", "our-dst", "s0.9", 12, 0)),
        ("2DNav-v1.task3/td3-dense/s0/seed1", ("2DNav-v1", "td3", "dense", "s0", 1, 3)),
        (
            "Ant-v3/td3-rlx2+nstep5/a0.96-c0.88/seed0",
            ("Ant-v3", "td3", "rlx2+nstep5", "a0.96-c0.88", 0, 0),
        ),
    ],
)
def test_a_path_names_its_run(tmp_path: Path, path: str, identity: tuple) -> None:
    write_run(tmp_path, path, {5: [1.0]})
    assert load(tmp_path).runs[0].identity == Identity(*identity)


@pytest.mark.parametrize("part", ["Hopper-v5", "Hopper-v5/td3-rlx2", HOPPER])
def test_any_subfolder_of_the_results_will_do(tmp_path: Path, part: str) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    assert load(tmp_path / part).runs[0].identity.env == "Hopper-v5"


def test_a_moved_run_is_named_by_its_config(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "dstrl/2DNav-v1.task3/td3-dense/s0/seed1", {5: [1.0]})
    folder.rename(tmp_path / "mine")
    run = load(tmp_path).runs[0]
    assert run.identity == Identity("2DNav-v1", "td3", "dense", "s0", 1, 3)


@pytest.mark.parametrize(
    ("status", "expected"), [("diverged", "diverged"), (None, "unfinished"), ("failed", "failed")]
)
def test_unfinished_runs_say_so(tmp_path: Path, status: str | None, expected: str) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]}, status=status)
    run = load(tmp_path).runs[0]
    assert not run.finished
    assert run.status == expected


def with_eval(root: Path, content: bytes) -> tuple[list[float], list[Damage]]:
    """Returns read from, and damage of, a run whose eval.csv holds `content`."""
    folder = write_run(root, HOPPER, {}, episodes={10: [1.0]})
    (folder / "eval.csv").write_bytes(content)
    results = load(root)
    return results.runs[0].evaluations["return"].tolist(), list(results.damaged)


def only_cause(damaged: list[Damage]) -> str:
    (damage,) = damaged
    assert damage.path == f"{HOPPER}/eval.csv"
    return damage.cause


GOOD = EVAL_HEADER.encode() + b"5,0,1.5,100\n10,0,2.5,100\n"


def test_a_healthy_file_has_no_damage(tmp_path: Path) -> None:
    assert with_eval(tmp_path, GOOD) == ([1.5, 2.5], [])


def test_a_header_alone_is_no_damage(tmp_path: Path) -> None:
    assert with_eval(tmp_path, EVAL_HEADER.encode()) == ([], [])
    assert load(tmp_path).runs[0].evaluations.dtypes.eq(float).all()


def test_a_cut_off_last_line_is_left_out(tmp_path: Path) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + b"15,0,3.5,1")
    assert returns == [1.5, 2.5]
    assert only_cause(damaged) == "last line cut off, left out"


@pytest.mark.parametrize("row", [b"15,0,nan,100", b"15,0,inf,100", b"15,0,x,1", b"15,0", b",,,"])
def test_an_unusable_row_is_left_out(tmp_path: Path, row: bytes) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + row + b"\n20,0,4.5,100\n")
    assert returns == [1.5, 2.5, 4.5]
    assert only_cause(damaged) == "unusable rows left out: 1, the first near line 4"


def test_a_row_of_another_length_is_left_out(tmp_path: Path) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + b"15,0,3.5,100,7,8\n20,0,4.5,100\n")
    assert returns == [1.5, 2.5, 4.5]
    assert "rows of another length left out" in only_cause(damaged)
    assert "line 4" in only_cause(damaged)


def test_a_foreign_header_is_named(tmp_path: Path) -> None:
    returns, damaged = with_eval(tmp_path, b"time,reward\n1,2\n")
    assert returns == []
    expected = "foreign header 'time,reward': no column step, episode, return, length"
    assert only_cause(damaged) == expected


@pytest.mark.parametrize("content", [b"", b"\x00\x01\xff\xfe", b"\n\n", b'"\n'])
def test_binary_and_empty_files_are_damage(tmp_path: Path, content: bytes) -> None:
    returns, damaged = with_eval(tmp_path, content)
    assert returns == []
    assert only_cause(damaged)


def test_a_step_logged_twice_counts_once(tmp_path: Path) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + b"10,0,9.5,100\n")
    assert (returns, damaged) == ([1.5, 9.5], [])


def test_damage_leaves_the_other_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.95/seed1", {5: [1.0]})
    bad = write_run(tmp_path, HOPPER, {5: [1.0]})
    for name in ("eval.csv", "episodes.csv"):
        (bad / name).unlink()
    (bad / "summary.json").write_text("{")
    results = load(tmp_path)
    assert [run.identity.seed for run in results.runs] == [1]
    names = [damage.path.rpartition("/")[2] for damage in results.damaged]
    assert names == ["summary.json", "eval.csv", "episodes.csv"]


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\t- x: :", ""])
def test_a_bad_config_is_damage_but_the_path_still_names_the_run(tmp_path: Path, text: str) -> None:
    folder = write_run(tmp_path, HOPPER, {5: [1.0]})
    (folder / "config.yaml").write_text(text)
    results = load(tmp_path)
    assert results.runs[0].identity.method == "rlx2"
    assert [damage.path for damage in results.damaged] == [f"{HOPPER}/config.yaml"]


def test_a_wrong_task_in_the_config_does_no_harm(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]}, config={"env": {"id": "Hopper-v5", "task": "x"}})
    assert load(tmp_path).runs[0].identity.task == 0


def test_another_programs_folder_is_damage(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.yaml").write_text("model: resnet\n")
    results = load(tmp_path)
    assert len(results.runs) == 1
    (damage,) = results.damaged
    assert damage.path == "other"
    assert "not a run of dstrl" in damage.cause


def test_the_same_run_twice_counts_once_and_the_finished_one_wins(tmp_path: Path) -> None:
    write_run(tmp_path, f"a/{HOPPER}", {5: [1.0]}, status="interrupted")
    write_run(tmp_path, f"b/{HOPPER}", {5: [2.0]})
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [f"b/{HOPPER}"]
    expected = Damage(f"a/{HOPPER}", f"the same run as b/{HOPPER}; left out")
    assert results.damaged == (expected,)


def test_an_unreadable_folder_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    (tmp_path / "secret").mkdir()
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:  # permissions do not stop root, who may run this
        if path.name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [HOPPER]
    assert results.damaged == (Damage("secret", "unreadable: [Errno 13] Permission denied"),)


def test_a_link_back_up_is_not_followed_and_another_one_is(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", HOPPER, {5: [1.0]})
    results = tmp_path / "results"
    results.mkdir()
    (results / "moved").symlink_to(tmp_path / "elsewhere")
    (results / "loop").symlink_to(results)
    found = load(results)
    assert ([run.path for run in found.runs], found.damaged) == ([f"moved/{HOPPER}"], ())


def test_errors_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no runs"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: resnet\n")
    with pytest.raises(InputError, match=r"no usable run; \d+ problems, the first: "):
        load(tmp_path)
    with pytest.raises(InputError, match=r"is not a folder"):
        load(tmp_path / "config.yaml")


def test_only_the_given_folders_are_read(tmp_path: Path) -> None:
    first = write_run(tmp_path, "Hopper-v5/td3-sst/s0.95/seed0", {0: [1.0], 10: [2.0]})
    write_run(tmp_path, "Hopper-v5/td3-sst/s0.95/seed1", {0: [1.0], 10: [2.0]})
    assert [run.identity.seed for run in load(tmp_path, only=[first]).runs] == [0]
    assert len(load(tmp_path).runs) == 2
