"""Where runs are looked for: at the contract's depth below a folder, and nothing deeper."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from report_samples import write_run

from dstrl_cli.errors import InputError
from dstrl_cli.report.archiving import archive
from dstrl_cli.report.runs import Damage, load

HOPPER = "Hopper-v5/td3-rlx2/s0.95/seed0"


def paths(folder: Path) -> list[str]:
    return [run.path for run in load(folder).runs]


@pytest.mark.parametrize(
    ("part", "path"),
    [
        (".", HOPPER),
        ("Hopper-v5", "td3-rlx2/s0.95/seed0"),
        ("Hopper-v5/td3-rlx2", "s0.95/seed0"),
        ("Hopper-v5/td3-rlx2/s0.95", "seed0"),
        (HOPPER, "."),
    ],
)
def test_any_folder_from_the_results_to_a_run_will_do(tmp_path: Path, part: str, path: str) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    assert paths(tmp_path / part) == [path]
    assert load(tmp_path / part).runs[0].identity.env == "Hopper-v5"


def test_a_folder_is_known_by_its_own_path_wherever_dstrl_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    monkeypatch.chdir(tmp_path / "Hopper-v5" / "td3-rlx2")
    assert paths(Path()) == ["s0.95/seed0"]


def test_results_inside_results_are_not_mixed_in(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    write_run(tmp_path, f"long/{HOPPER}", {5: [2.0]})
    assert paths(tmp_path) == [HOPPER]
    assert paths(tmp_path / "long") == [HOPPER]


def test_runs_that_lie_deeper_are_pointed_to(tmp_path: Path) -> None:
    for folder in ("long", "short", "old/short"):
        for seed in (0, 1):
            write_run(tmp_path, f"{folder}/Hopper-v5/td3-rlx2/s0.95/seed{seed}", {5: [2.0]})
    expected = ", ".join(str(tmp_path / name) for name in ("long", "old/short", "short"))
    with pytest.raises(InputError, match=rf"but runs lie elsewhere .*instead: {expected}$"):
        load(tmp_path)


def test_archives_below_a_folder_without_runs_are_pointed_to(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", HOPPER, {5: [1.0]})
    (tmp_path / "all" / "small").mkdir(parents=True)
    archive(tmp_path / "runs", tmp_path / "all" / "small" / "runs.zip")
    expected = str(tmp_path / "all" / "small" / "runs.zip")
    with pytest.raises(InputError, match=rf"but runs lie elsewhere .*instead: {expected}$"):
        load(tmp_path / "all")
    assert len(load(expected).runs) == 1


def test_a_folder_that_keeps_a_study_stands_for_its_archive(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", HOPPER, {5: [1.0]})
    study = tmp_path / "study"
    study.mkdir()
    archive(tmp_path / "elsewhere", study / "runs.zip")
    assert [run.identity.seed for run in load(study).runs] == [0]
    write_run(study, HOPPER.replace("seed0", "seed7"), {5: [1.0]})  # runs of its own come first
    assert [run.identity.seed for run in load(study).runs] == [7]


def test_a_run_that_was_moved_up_is_pointed_to(tmp_path: Path) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]}).rename(tmp_path / "mine")
    with pytest.raises(InputError, match=rf"instead: {tmp_path / 'mine'}$"):
        load(tmp_path)
    assert paths(tmp_path / "mine") == ["."]


def test_nothing_inside_a_run_is_searched(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "Hopper-v5/td3-rlx2/s0.95/seed0", {5: [1.0]})
    write_run(folder, HOPPER, {5: [1.0]})
    assert paths(tmp_path) == [HOPPER]


def test_an_unreadable_folder_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path, HOPPER, {5: [1.0]})
    (tmp_path / "secret").mkdir()
    listed = os.scandir

    def refuse(path: Any) -> Any:  # permissions do not stop root, who may run this
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    results = load(tmp_path)
    assert [run.path for run in results.runs] == [HOPPER]
    assert results.damaged == [Damage("secret", "unreadable: [Errno 13] Permission denied")]


def test_a_link_back_up_is_not_followed_and_another_one_is(tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere", HOPPER, {5: [1.0]})
    results = tmp_path / "results"
    results.mkdir()
    (results / "Hopper-v5").symlink_to(tmp_path / "elsewhere" / "Hopper-v5")
    (results / "loop").symlink_to(results)
    found = load(results)
    assert [run.path for run in found.runs] == [HOPPER]
    assert found.damaged == []
    (results / "Hopper-v5").unlink()
    with pytest.raises(InputError, match="holds no runs"):
        load(results)
