"""`dstrl verify`: the beginning of a stored run trained again, and compared."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from training_samples import SMALL, STEPS

from dstrl_cli.cli import main
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.provenance import processor
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training.reporter import Silent
from dstrl_cli.training.run import train
from dstrl_cli.training.verify import Difference, Verification, verify


def trained(folder: Path, method: str, *sets: str, algo: str = "td3") -> Path:
    flags = {"env.id": "2DNav-v1", "steps": STEPS, "sparsity": 0.6}
    config = resolve(method, algo, sets=(*SMALL, *sets), flags=flags)
    train([replace(prepare(config, Path("run")), path=folder)], "cpu", Silent())
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with evaluations at 0, 50, 100 and 120; updates begin after step 40."""
    return trained(tmp_path_factory.mktemp("stored") / "run", "our-rlx2", "engine=masked")


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "run"))


def verified(folder: Path, updates: int = 2000) -> Verification:
    stored_run = replace(prepare(read_config(folder), folder), path=folder)
    return verify(stored_run, updates, lambda _: None)


@pytest.mark.parametrize(
    ("algo", "engine"),
    [
        ("td3", "sparse"),
        ("sac", "masked"),
        pytest.param("td3", "masked", marks=pytest.mark.soak),
        pytest.param("sac", "sparse", marks=pytest.mark.soak),
    ],
)
def test_a_run_is_equal_to_its_repetition(tmp_path: Path, algo: str, engine: str) -> None:
    folder = trained(tmp_path / "run", "our-rlx2", f"engine={engine}", algo=algo)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = verified(folder)
    assert (found.difference, found.step, found.absent) == (None, 120, ())
    assert found.rows["eval.csv"] == found.hashes / 2 == 8
    assert found.theirs["processor"] == found.ours["processor"] == processor()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


@pytest.mark.parametrize(("updates", "step"), [(10, 50), (11, 100), (999, 120)])
def test_training_ends_at_the_next_evaluation_that_the_run_logged(
    stored: Path, updates: int, step: int
) -> None:
    found = verified(stored, updates)
    assert (found.step, found.difference) == (step, None)
    assert found.rows["eval.csv"] == {50: 4, 100: 6, 120: 8}[step]


def test_updates_after_episodes_are_counted_by_those_that_ended(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "sst", "train_freq=[1, episode]", "gradient_steps=5")
    assert verified(folder, 5).step == 100  # where the first episode ends; at 50 there was none


def test_updates_are_counted_not_steps(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "sst", "train_freq=4")
    assert verified(folder, 10).step == 100  # 3 updates until step 50, 15 until 100


def test_the_first_steps_do_not_know_where_training_ends(tmp_path: Path) -> None:
    """Schedules and the end of topology updates depend on the run's own steps."""
    sets = ("topology.schedule=cosine", "topology.stop_before_end=2")
    folder = trained(tmp_path / "run", "rlx2", *sets)
    found = verified(folder, 20)
    assert (found.step, found.difference) == (100, None)
    assert found.rows["topology.csv"] > 0


def change_cell(file: Path, line: int, column: int, change: Callable[[str], str]) -> None:
    lines = file.read_text().splitlines()
    cells = lines[line].split(",")
    cells[column] = change(cells[column])
    lines[line] = ",".join(cells)
    file.write_text("\n".join(lines) + "\n")


def test_a_manipulated_return_is_found(folder: Path) -> None:
    change_cell(folder / "eval.csv", 5, 2, lambda text: str(float(text) + 1e-6))
    found = verified(folder)
    difference = found.difference
    assert difference is not None
    assert difference == Difference(
        100, "eval.csv", "episode 0", "return", difference.theirs, difference.ours
    )
    assert float(difference.theirs or 0) == pytest.approx(float(difference.ours or 0) + 1e-6)
    assert any("eval.csv is not as the run wrote it" in note for note in found.notes)


def test_a_manipulated_hash_is_found(folder: Path) -> None:
    change_cell(folder / "hashes.csv", 4, 3, lambda text: text[::-1])
    difference = verified(folder).difference
    assert difference is not None
    assert (difference.step, difference.file, difference.where, difference.column) == (
        *(50, "hashes.csv", "network critic", "masks"),
    )
    assert difference.theirs == (difference.ours or "")[::-1]


def test_the_earliest_of_several_differences_is_told(folder: Path) -> None:
    change_cell(folder / "eval.csv", 8, 2, lambda _: "0.0")
    change_cell(folder / "topology.csv", 1, 3, lambda text: str(int(text) + 1))
    difference = verified(folder).difference
    assert difference is not None
    first_update = int((folder / "topology.csv").read_text().splitlines()[1].split(",")[0])
    assert (difference.step, difference.file, difference.column) == (
        *(first_update, "topology.csv", "active"),
    )


def test_rows_that_are_missing_or_too_many_are_found(folder: Path) -> None:
    file = folder / "eval.csv"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]))
    difference = verified(folder).difference
    last = lines[-1].strip()
    assert difference == Difference(120, "eval.csv", "episode 1", "", None, last)
    file.write_text("".join(lines) + "120,2,1.0,5,\n")
    difference = verified(folder).difference
    assert difference == Difference(120, "eval.csv", "episode 2", "", "120,2,1.0,5,", None)


def test_files_that_a_run_does_not_have_are_not_compared(folder: Path) -> None:
    for name in ("hashes.csv", "topology.csv", "policy.safetensors", "summary.json"):
        (folder / name).unlink()
    found = verified(folder)
    assert (found.difference, found.hashes, found.absent) == (
        *(None, 0, ("topology.csv", "hashes.csv")),
    )


def test_a_run_that_was_killed_is_compared_as_far_as_it_came(folder: Path) -> None:
    for name in ("progress.csv", "eval.csv", "hashes.csv", "episodes.csv", "topology.csv"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines[1:] if int(line.split(",")[0]) <= 50]
        (folder / name).write_text("".join([lines[0], *kept, "60,0,to"]))
    (folder / "summary.json").unlink()
    found = verified(folder)
    assert (found.step, found.difference) == (50, None)


def test_what_cannot_be_verified_is_said(folder: Path) -> None:
    for name, text, cause in (
        ("hashes.csv", "step,network,weights,masks\n0,actor\n", r"hashes\.csv is damaged: line 2"),
        ("progress.csv", "step\n", "logged no evaluation"),
    ):
        (folder / name).write_text(text)
        if name == "progress.csv":
            (folder / "eval.csv").unlink()
        with pytest.raises(InputError, match=cause):
            verified(folder)


def test_a_run_of_an_accelerator_needs_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstrl_cli.training.run.accelerators", lambda: 0)
    file = folder / "config.yaml"
    file.write_text(file.read_text().replace("  device: cpu\n", "  device: cuda:0 (NVIDIA H100)\n"))
    with pytest.raises(InputError, match=r"trained on cuda:0 \(NVIDIA H100\).*no CUDA device"):
        verified(folder)


def test_a_run_of_an_older_dstrl_is_brought_up_to_date_and_that_is_said(folder: Path) -> None:
    file = folder / "config.yaml"
    left_out = ("format:", "env_workers:", "compile:", "  processor:")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith(left_out)))
    found = verified(folder)
    assert found.difference is None
    assert "processor" not in found.theirs
    older, keys = found.notes
    assert older == "its config.yaml has format 1 of an older dstrl, and was brought up to 2"
    assert keys == "keys that did not exist then do what it did: env_workers, compile"


def test_the_command_says_equal_or_what_differs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    scratch = folder.parent / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    assert main(["verify", str(folder), "--updates", "10"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("equal through step 50 (")
    assert " rows, 8 hashes)" in shown.out
    assert "step 50 of 50 repeated" in shown.err
    change_cell(folder / "hashes.csv", 1, 2, lambda _: "0" * 32)
    assert main(["verify", str(folder), "--updates", "10"]) == 1
    shown = capsys.readouterr()
    first, theirs, *_ = shown.out.splitlines()
    assert first == "differs first at step 0, in hashes.csv: network actor, weights"
    assert theirs.endswith("0" * 32)
    assert f"  processor: {processor()} | {processor()}" in shown.out
    assert "are not equal" in shown.err
    assert main(["verify", str(folder), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["equal"], document["difference"]["file"]) == (False, "hashes.csv")
    assert list(scratch.iterdir()) == []


def test_a_folder_without_a_run_is_wrong_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_returns_of_rounded_rewards_are_compared_to_their_precision(folder: Path) -> None:
    """Older files, without a column `success`, hold sums of rewards rounded to float32."""
    file = folder / "eval.csv"
    rows = [line.split(",") for line in file.read_text().splitlines()]
    assert rows[0][-1] == "success"
    file.write_text("".join(",".join(row[:-1]) + "\n" for row in rows))
    size = max(abs(float(rows[5][2])), int(rows[5][3]))
    change_cell(file, 5, 2, lambda text: str(float(text) + 0.9e-6 * size))
    found = verified(folder)
    assert found.difference is None
    assert found.notes[-1].startswith("returns in eval.csv are compared to 1e-06 of their size")
    change_cell(file, 5, 2, lambda text: str(float(text) + 0.2e-6 * size))
    difference = verified(folder).difference
    assert difference is not None
    assert (difference.step, difference.where, difference.column) == (100, "episode 0", "return")
