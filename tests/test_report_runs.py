"""Run folders as the reports read them: found, named, loaded, and their damage told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_samples import EVAL_HEADER, write_run

from dstrl_cli.errors import InputError
from dstrl_cli.report.identity import Identity
from dstrl_cli.report.runs import Damage, load
from dstrl_cli.runs import lock

HOPPER = "Hopper-v5/td3-rlx2/s0.95/seed0"


def test_report_needs_neither_torch_nor_gymnasium() -> None:
    code = (
        "import sys, dstrl_cli.report.frames, dstrl_cli.report.tables, dstrl_cli.report.render;"
        "import dstrl_cli.algos.flops;"
        "sys.exit(bool({'torch', 'gymnasium', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_is_read_whole(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {0: [1.0], 500: [2.0, 4.0]}, episodes={100: [7.0]})
    results = load(tmp_path)
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
    assert results.damaged == []


@pytest.mark.parametrize(
    ("path", "identity"),
    [
        ("Ant-v2/sac-our-dst/s0.9/seed12", ("Ant-v2", "sac", "our-dst", "s0.9", 12, 0)),
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


def test_a_renamed_run_is_named_by_its_config(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "dstrl/2DNav-v1.task3/td3-dense/s0/seed1", {5: [1.0]})
    folder.rename(tmp_path / "mine")
    run = load(tmp_path / "mine").runs[0]
    assert run.identity == Identity("2DNav-v1", "td3", "dense", "s0", 1, 3)


def test_the_networks_that_were_trained_decide_the_sparsity(tmp_path: Path) -> None:
    """Format 1 filed runs with `allocation: lambda` under the default sparsity."""
    config = {
        "actor": {"sparsity": 0.493, "allocation": "lambda", "lambdas": [7, 64]},
        "critic": {"sparsity": 0.512, "allocation": "lambda", "lambdas": [7, 64]},
    }
    write_run(tmp_path, HOPPER, {5: [1.0]}, config=config)
    assert load(tmp_path).runs[0].identity.sparsity == "a0.493-c0.512"


def test_a_format_of_a_newer_dstrl_is_damage(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]}, config={"format": 3})
    write_run(tmp_path, HOPPER.replace("seed0", "seed1"), {5: [1.0]}, config={"format": 2})
    results = load(tmp_path)
    assert [run.identity.seed for run in results.runs] == [1]
    cause = "format = 3 is of a newer dstrl, this one reads up to 2: update dstrl"
    assert results.damaged == [Damage(f"{HOPPER}/config.yaml", cause)]


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
    folder = write_run(root, HOPPER, {}, episodes={10: [1.0]}, status=None)
    (folder / "eval.csv").write_bytes(content)
    results = load(root)
    return results.runs[0].evaluations["return"].tolist(), results.damaged


def only_cause(damaged: list[Damage]) -> str:
    (damage,) = damaged
    assert damage.path == f"{HOPPER}/eval.csv"
    return damage.cause


GOOD = EVAL_HEADER.encode() + b"5,0,1.5,100\n10,0,2.5,100\n"


def test_a_healthy_file_has_no_damage(tmp_path: Path) -> None:
    assert with_eval(tmp_path, GOOD) == ([1.5, 2.5], [])


def test_a_header_alone_is_no_damage(tmp_path: Path) -> None:
    assert with_eval(tmp_path, EVAL_HEADER.encode()) == ([], [])
    assert {column.dtype.name for column in load(tmp_path).runs[0].evaluations.values()} == {
        "float64"
    }


def test_cells_that_hold_no_number_are_nan_where_they_may_be(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {})
    progress = load(tmp_path).runs[0].progress
    assert progress["eval_return_mean"].tolist() == [-3.0]
    assert np.isnan(progress["steps_per_s"]).all()


def test_what_python_but_no_csv_takes_for_a_number_is_left_out(tmp_path: Path) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + b"15,0,1_0,100\n")
    assert returns == [1.5, 2.5]
    assert "unusable rows left out: 1" in only_cause(damaged)


def test_damage_is_found_when_a_file_is_first_read_and_told_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path, HOPPER, {5: [1.0]})
    (folder / "episodes.csv").unlink()
    results = load(tmp_path)
    assert results.damaged == []
    assert results.runs[0].episodes["step"].tolist() == []
    assert results.runs[0].episodes["step"].tolist() == []
    assert results.damaged == [Damage(f"{HOPPER}/episodes.csv", "missing")]


def test_a_cut_off_last_line_is_left_out(tmp_path: Path) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + b"15,0,3.5,1")
    assert returns == [1.5, 2.5]
    assert only_cause(damaged) == "last line cut off, left out"


def test_a_line_that_is_just_being_written_is_left_out_in_silence(tmp_path: Path) -> None:
    folder = write_run(tmp_path, HOPPER, {5: [1.0], 10: [2.0]}, status=None)
    with lock.held(folder), (folder / "eval.csv").open("a") as file:
        file.write("15,0,3.5,1")
        file.flush()
        results = load(tmp_path)
        assert results.runs[0].evaluations["return"].tolist() == [1.0, 2.0]
        assert results.damaged == []


@pytest.mark.parametrize("row", [b"15,0,nan,100", b"15,0,inf,100", b"15,0,x,1", b"15,0", b",,,"])
def test_an_unusable_row_is_left_out(tmp_path: Path, row: bytes) -> None:
    returns, damaged = with_eval(tmp_path, GOOD + row + b"\n20,0,4.5,100\n")
    assert returns == [1.5, 2.5, 4.5]
    assert only_cause(damaged) == (
        "unusable rows left out: 1, the first near line 4, whose return is no finite number"
    )


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


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        (5, ""),
        (4.5, "its last evaluation has 1 of 2 episodes"),
        (4, "its last evaluation has 1 of 2 episodes"),
        (3, "the run has 1,000 steps, its last evaluation here is that of 500"),
    ],
)
def test_evaluations_of_a_finished_run_that_stop_early_are_damage(
    tmp_path: Path, lines: float, cause: str
) -> None:
    evaluations = {500: [1.0, 2.0], 1000: [3.0, 4.0]}
    file = write_run(tmp_path, HOPPER, evaluations) / "eval.csv"
    whole = file.read_text().splitlines(keepends=True)
    half_a_line = whole[int(lines)][:5] if lines % 1 else ""
    file.write_text("".join(whole[: int(lines)]) + half_a_line)
    results = load(tmp_path)
    assert len(results.runs[0].evaluations["step"]) == (0 if cause else 4)
    cut = [damage.cause for damage in results.damaged if "not used" in damage.cause]
    assert cut == ([f"cut off, not used: {cause}"] if cause else [])


def test_where_evaluations_must_end_is_known_without_a_summary_of_the_steps(tmp_path: Path) -> None:
    summary = {"steps": None}
    write_run(tmp_path, HOPPER, {500: [1.0]}, summary=summary)  # of 1,000 steps
    assert load(tmp_path).runs[0].evaluations["step"].tolist() == []
    other = HOPPER.replace("seed0", "seed1")
    write_run(tmp_path, other, {500: [1.0]}, summary=summary, config={"steps": 500})
    assert load(tmp_path / other).runs[0].evaluations["step"].tolist() == [500]


def test_evaluations_of_an_unfinished_run_may_stop_anywhere(tmp_path: Path) -> None:
    summary = {"steps": 1000}
    write_run(tmp_path, HOPPER, {500: [1.0]}, status="interrupted", summary=summary)
    results = load(tmp_path)
    assert results.runs[0].evaluations["step"].tolist() == [500]
    assert results.damaged == []


def test_damage_leaves_the_other_runs(tmp_path: Path) -> None:
    write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.95/seed1", {5: [1.0]})
    bad = write_run(tmp_path, HOPPER, {5: [1.0]})
    (bad / "eval.csv").unlink()
    (bad / "summary.json").write_text("{")
    results = load(tmp_path)
    assert [run.evaluations["return"].tolist() for run in results.runs] == [[], [1.0]]
    names = [damage.path.rpartition("/")[2] for damage in results.damaged]
    assert names == ["summary.json", "eval.csv"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[1, 2]\n", "holds no keys"),
        ("a: [\n", "unreadable: "),
        ("a: [", "seems cut off: "),
        ("\t- x: :\n", "unreadable: "),
        ("", "holds no keys, seems cut off"),
        ("algo: td3\nmethod: rlx2\n", "seems cut off: it lacks keys that every run has (env, seed"),
        (None, "missing"),
    ],
)
def test_a_run_whose_config_cannot_be_read_whole_is_damage(
    tmp_path: Path, text: str | None, cause: str
) -> None:
    write_run(tmp_path, HOPPER.replace("seed0", "seed1"), {5: [1.0]})
    file = write_run(tmp_path, HOPPER, {5: [1.0]}) / "config.yaml"
    file.unlink() if text is None else file.write_text(text)
    results = load(tmp_path)
    assert [run.identity.seed for run in results.runs] == [1]
    (damage,) = results.damaged
    assert damage.path == f"{HOPPER}/config.yaml"
    assert damage.cause.startswith(cause)


def test_a_wrong_task_in_the_config_does_no_harm(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]}, config={"env": {"id": "Hopper-v5", "task": "x"}})
    assert load(tmp_path).runs[0].identity.task == 0


def test_another_programs_folder_is_damage(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    other = tmp_path / "some/other/programs/folder"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text("model: resnet\n")
    results = load(tmp_path)
    assert len(results.runs) == 1
    (damage,) = results.damaged
    assert damage.path == "some/other/programs/folder"
    assert "not a run of dstrl" in damage.cause


def test_the_same_run_twice_counts_once_and_the_finished_one_wins(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]}).rename(tmp_path / HOPPER.replace("seed0", "copy"))
    write_run(tmp_path, HOPPER, {5: [1.0]}, status="interrupted")
    results = load(tmp_path)
    copy = HOPPER.replace("seed0", "copy")
    assert [run.path for run in results.runs] == [copy]
    assert results.damaged == [Damage(HOPPER, f"the same run as {copy}; left out")]


def test_errors_name_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no runs"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: resnet\n")  # taken for a run
    with pytest.raises(InputError, match=r"no usable run; 1 problem: \.: not a run of dstrl"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"is not a folder"):
        load(tmp_path / "config.yaml")


def test_only_the_given_folders_are_read(tmp_path: Path) -> None:
    first = write_run(tmp_path, "Hopper-v5/td3-sst/s0.95/seed0", {0: [1.0], 10: [2.0]})
    write_run(tmp_path, "Hopper-v5/td3-sst/s0.95/seed1", {0: [1.0], 10: [2.0]})
    assert [run.identity.seed for run in load(tmp_path, only=[first]).runs] == [0]
    assert len(load(tmp_path).runs) == 2
    with pytest.raises(InputError, match="none of the runs asked for has a folder in"):
        load(tmp_path, only=[tmp_path / "nowhere"])
