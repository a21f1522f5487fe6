"""Runs whose summary is lost or unreadable: repaired where they finished, never trained again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from training_samples import STEPS, run

from dstrl_cli.config.parse import to_dict
from dstrl_cli.errors import InputError
from dstrl_cli.report import tables
from dstrl_cli.runs import lock
from dstrl_cli.runs.folder import RunFolder, read_config
from dstrl_cli.runs.summary import read_status, read_summary, repair_summary
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.sweep.states import repaired, resumed
from dstrl_cli.terminal.plan import damage_lines
from dstrl_cli.training.reporter import Silent
from dstrl_cli.training.run import Run, train

LAYOUT = Path("2DNav-v1/td3-sst/s0.6/seed0")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that finished."""
    folder = tmp_path_factory.mktemp("finished")
    train([replace(prepare(run("sst"), LAYOUT), path=folder / "run")], "cpu", Silent())
    return folder / "run"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, where `dstrl sweep` would look for it."""
    return Path(shutil.copytree(finished, tmp_path / LAYOUT))


def planned(folder: Path) -> Run:
    root = folder.parents[len(LAYOUT.parts) - 1]
    config = read_config(folder).model_copy(update={"out": str(root)})
    return prepare(config, LAYOUT)


def test_a_run_that_counts_episodes_has_not_finished_before_its_last_evaluation(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    made = replace(prepare(run("sst", sets=("episodes=1",)), LAYOUT), path=folder)
    ((last, status),) = [(s["steps"], s["status"]) for s in train([made], "cpu", Silent())]
    assert (status, last < STEPS) == ("finished", True)
    (folder / "summary.json").unlink()
    assert read_status(folder) == "finished"
    for name in ("progress.csv", "eval.csv"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{last},")]
        (folder / name).write_text("".join(kept))
    assert read_status(folder) == "unfinished"


@pytest.mark.parametrize("content", [None, "", '{"status": "fini', "[]", "{}", "\x00\x00"])
def test_a_finished_run_that_lost_its_summary_gets_it_again(
    folder: Path, content: str | None
) -> None:
    before = read_summary(folder) or {}
    file = folder / "summary.json"
    file.unlink() if content is None else file.write_text(content)
    assert read_status(folder) == "finished"
    (plan,) = resumed([planned(folder)], overwrite=False)
    assert (plan.status, plan.to_do, plan.damage) == ("finished", False, ())
    assert not file.exists() or file.read_text() == content  # a plan writes nothing
    table = tables.table(folder.parents[3], metric="final")
    ((cell,),) = [row.cells.values() for section in table.sections for row in section.rows]
    assert cell.mean == before["final_return"]["mean"]
    assert table.notes == ("1 run lost summary.json; the other files show that training finished",)
    (line,) = repaired([plan])
    assert str(LAYOUT) in line
    after = read_summary(folder) or {}
    same = ("status", "steps", "final_return", "error")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    for files in (before["files"], after["files"]):
        del files["summary.json"]
    assert after["files"] == before["files"]
    assert after["repaired"] is True
    assert after["wall_time_s"] == pytest.approx(before["wall_time_s"], abs=1)
    assert repaired([plan]) == []


def test_a_sweep_says_that_the_logs_of_a_finished_run_are_not_what_it_wrote(folder: Path) -> None:
    file = folder / "eval.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    (plan,) = resumed([planned(folder)], overwrite=False)
    assert (plan.status, plan.to_do) == ("finished", False)
    assert plan.damage == ("eval.csv is not as the run wrote it: it has 7 of 8 rows",)
    (line,) = damage_lines([plan])
    assert line.startswith(f"warning: {LAYOUT} finished, but eval.csv is not as the run wrote it")
    (again,) = resumed([planned(folder)], overwrite=True)
    assert again.to_do
    assert damage_lines([again]) == []


def cut_last_line(file: Path, whole: bool) -> None:
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + ("" if whole else lines[-1][:-4]))


@pytest.mark.parametrize("name", ["eval.csv", "progress.csv"])
@pytest.mark.parametrize("whole", [True, False])
def test_without_its_last_evaluation_a_run_is_not_known_to_have_finished(
    folder: Path, name: str, whole: bool
) -> None:
    """Without a summary it was killed, and trains again; a damaged summary may be of any end."""
    cut_last_line(folder / name, whole)
    (folder / "summary.json").write_text('{"status": "fini')
    assert read_status(folder) == "damaged"
    with pytest.raises(InputError, match=r"summary\.json cannot be read.*train it again with --ov"):
        resumed([planned(folder)], overwrite=False)
    assert not repair_summary(folder)
    assert (folder / "summary.json").read_text() == '{"status": "fini'
    (plan,) = resumed([planned(folder)], overwrite=True)
    assert plan.to_do
    table = tables.table(folder.parents[3], metric="all-episodes")
    assert [(each.path, each.status) for each in table.unfinished] == [(str(LAYOUT), "damaged")]
    (folder / "summary.json").unlink()
    assert read_status(folder) == "unfinished"
    (plan,) = resumed([planned(folder)], overwrite=False)
    assert plan.to_do


def test_an_evaluation_that_is_missing_in_the_middle_is_no_finished_run(folder: Path) -> None:
    file = folder / "eval.csv"
    kept = [line for line in file.read_text().splitlines(True) if not line.startswith("50,")]
    file.write_text("".join(kept))
    (folder / "summary.json").unlink()
    assert read_status(folder) == "unfinished"


def test_a_run_that_can_go_on_from_a_checkpoint_is_unfinished(folder: Path) -> None:
    (folder / "summary.json").write_text("{")
    (folder / "checkpoint").mkdir()
    assert read_status(folder) == "finished"
    (folder / "checkpoint/state.safetensors").touch()
    assert read_status(folder) == "unfinished"


def test_a_run_in_use_is_not_touched(folder: Path) -> None:
    (folder / "summary.json").unlink()
    with lock.held(folder):
        assert read_status(folder) == "running"
        assert not repair_summary(folder)
        table = tables.table(folder.parents[3], metric="final")
        assert [each.status for each in table.unfinished] == ["unfinished"]
    assert not (folder / "summary.json").exists()
    assert repair_summary(folder)


def test_the_same_run_is_refused_as_finished(folder: Path) -> None:
    (folder / "summary.json").unlink()
    with pytest.raises(InputError, match=r"already holds this run \(finished\)"):
        RunFolder(folder).create(to_dict(read_config(folder)))


def test_what_a_run_of_another_length_shows_is_not_finished(folder: Path) -> None:
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace(f"steps: {STEPS}\n", f"steps: {STEPS + 50}\n"))
    (folder / "summary.json").unlink()
    assert read_status(folder) == "unfinished"
