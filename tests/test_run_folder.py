"""The files of a run: headers, atomic and whole-row writes, refusals, the lock."""

import csv
import json
import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import yaml
from policy_samples import actor, metadata

from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.errors import InputError
from dstrl_cli.runs import folder as run_folder
from dstrl_cli.runs.folder import RunFolder, read_config
from dstrl_cli.runs.provenance import provenance
from dstrl_cli.runs.summary import mark_ended, read_status, read_summary


def config(**changes) -> dict:
    base = {"algo": "td3", "method": "rlx2", "env": "dstrl/2DNav-v1", "steps": 100}
    return to_dict(from_dict(base | changes)) | {"run": {"device": "cpu"}}


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


HEADERS = {
    "progress.csv": (
        "step,time_s,steps_per_s,eval_return_mean,eval_return_std,eval_length_mean,"
        "train_return_mean,critic_loss,actor_loss,q_mean,alpha,nstep,buffer_size,"
        "policy_distance,actor_active,critic_active\n"
    ),
    "eval.csv": "step,episode,return,length,success\n",
    "episodes.csv": "step,episode,return,length,terminated,success\n",
    "topology.csv": "step,network,layer,active,dropped,grown,fraction\n",
    "hashes.csv": "step,network,weights,masks\n",
    "neurons.csv": (
        "step,network,layer,units,dormant,no_input,no_output,max_fan_in,paths,rank,saturated\n"
    ),
}


def test_every_csv_file_exists_with_its_header_from_the_start(tmp_path):
    with RunFolder(tmp_path / "a" / "run").create(config()) as folder:
        assert {path.name: path.read_text() for path in folder.path.glob("*.csv")} == HEADERS


def test_rows_are_appended_in_column_order(tmp_path):
    with RunFolder(tmp_path / "run").create(config()) as folder:
        folder.progress({"steps_per_s": 2.5, "step": 0, "alpha": None, "q_mean": math.nan})
        folder.evaluation(5, [1.5, -2.0], [10, 20], [1, None])
        row = {"step": 3, "episode": 0, "return": 1.0, "length": 3, "terminated": True}
        folder.episodes([row | {"success": 0}])
        folder.episodes([])
        folder.topology(
            [
                {
                    "step": 4,
                    "network": "critic2",
                    "layer": 1,
                    "active": 9,
                    "dropped": 2,
                    "grown": 2,
                    "fraction": np.float32(0.25),
                }
            ]
        )
    assert rows(folder.path / "progress.csv")[1] == [
        "0", "", "2.5", "", "", "", "", "", "", "nan", "", "", "", "", "", "",
    ]  # fmt: skip
    assert rows(folder.path / "eval.csv")[1:] == [
        ["5", "0", "1.5", "10", "1"],
        ["5", "1", "-2.0", "20", ""],
    ]
    assert rows(folder.path / "episodes.csv")[1:] == [["3", "0", "1.0", "3", "1", "0"]]
    assert rows(folder.path / "topology.csv")[1:] == [["4", "critic2", "1", "9", "2", "2", "0.25"]]


def test_config_is_written_whole_and_read_back(tmp_path):
    given = config(seed=3, hidden_sizes=[8, 4])
    run = provenance(from_dict(given), "cpu")
    with RunFolder(tmp_path / "run").create(given | {"run": run}) as folder:
        document = yaml.safe_load((folder.path / "config.yaml").read_text())
    assert document["run"]["versions"].keys() == {
        "dstrl", "python", "torch", "gymnasium", "mujoco", "numpy", "numba",
    }  # fmt: skip
    assert document["run"]["device"] == "cpu"
    assert document["hidden_sizes"] == [8, 4]
    assert read_config(folder.path) == from_dict(given)


def test_summary_holds_valid_json_even_for_infinite_numbers(tmp_path):
    with RunFolder(tmp_path / "run").create(config()) as folder:
        folder.summary(
            {"status": "diverged", "final_return": {"mean": math.inf, "std": np.float64(1.0)}}
        )
    text = (folder.path / "summary.json").read_text()
    assert json.loads(text)["final_return"] == {"mean": None, "std": 1.0}
    assert read_status(folder.path) == "diverged"
    assert not list(folder.path.glob(".*"))


@pytest.mark.parametrize("status", ["finished", "interrupted"])
def test_the_same_run_again_is_refused_with_its_status(tmp_path, status):
    with RunFolder(tmp_path / "run").create(config()) as folder:
        folder.summary({"status": status})
    with pytest.raises(InputError, match=rf"already holds this run \({status}\).*--overwrite"):
        RunFolder(tmp_path / "run").create(config(threads=2, out="elsewhere"))
    assert not (tmp_path / "run" / ".lock").exists()


def test_another_configuration_is_refused_by_the_keys_that_differ(tmp_path):
    RunFolder(tmp_path / "run").create(config()).close()
    with pytest.raises(InputError, match=r"tau.*0\.005 -> 0\.1.*--overwrite"):
        RunFolder(tmp_path / "run").create(config(tau=0.1))
    assert read_config(tmp_path / "run").tau == 0.005


def test_overwrite_replaces_run_files_and_nothing_else(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path).create(config()) as folder:
        folder.evaluation(0, [1.0], [1])
        folder.policy("best.safetensors", actor(), metadata())
        folder.summary({"status": "finished"})
    assert (path / "best.safetensors").is_file()
    (path / "notes.txt").write_text("mine")
    with RunFolder(path).create(config(tau=0.1), overwrite=True):
        assert read_status(path) == "running"
    assert rows(path / "eval.csv") == [["step", "episode", "return", "length", "success"]]
    assert read_config(path).tau == 0.1
    assert (path / "notes.txt").read_text() == "mine"
    assert not (path / "best.safetensors").exists()
    assert read_status(path) == "unfinished"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    run_folder.check_writable(tmp_path / "not" / "yet" / "there")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file is not a folder\): choose another --out"):
        run_folder.check_writable(tmp_path / "file" / "run")
    monkeypatch.setattr(run_folder.os, "access", lambda path, mode: False)  # root is never refused
    with pytest.raises(InputError, match="no permission for"):
        run_folder.check_writable(tmp_path / "run")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        RunFolder(tmp_path).create(config(), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["{", "- 1", "algo: nothing", "\x00"])
def test_a_damaged_configuration_is_an_input_error(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"cannot be read.*--overwrite"):
        RunFolder(tmp_path).create(config())
    RunFolder(tmp_path).create(config(), overwrite=True).close()
    assert read_config(tmp_path).method == "rlx2"


def test_a_configuration_that_was_cut_off_anywhere_is_said_to_be(tmp_path):
    RunFolder(tmp_path).create(config()).close()
    file = tmp_path / "config.yaml"
    whole = file.read_text()
    first, last = whole.index("algo:"), whole.index("run:")
    boundaries = [at + 1 for at in range(first, last) if whole[at] == "\n"]
    cut_tau = whole.index("tau: 0.005") + len("tau: 0.0")  # valid YAML, and out of tau's bounds
    for at in (*range(first, last, 13), *boundaries, cut_tau):
        file.write_text(whole[:at])
        with pytest.raises(InputError, match=r"config\.yaml cannot be read \(.*seems cut off"):
            read_config(tmp_path)
    file.write_text(whole)
    assert read_config(tmp_path).tau == 0.005


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        RunFolder(tmp_path / "file" / "run").create(config())


def _hold(path: Path, ready, release) -> None:
    with RunFolder(path).create(config()):
        ready.set()
        release.wait(30)


def test_a_folder_in_use_by_another_process_is_refused(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "run", ready, release))
    holder.start()
    try:
        assert ready.wait(60)
        assert read_status(tmp_path / "run") == "running"
        with pytest.raises(InputError, match="in use"):
            RunFolder(tmp_path / "run").create(config(), overwrite=True)
    finally:
        release.set()
        holder.join()
    assert read_status(tmp_path / "run") == "unfinished"


def test_a_run_that_died_is_marked(tmp_path):
    folder = RunFolder(tmp_path / "run").create(config())
    folder.close()
    (folder.path / ".lock").write_text("")  # as a killed process leaves it
    mark_ended(folder.path, "failed", "killed by SIGKILL")
    assert read_status(folder.path) == "failed"
    assert not (folder.path / ".lock").exists()


def test_the_mark_of_an_earlier_attempt_is_replaced(tmp_path):
    with RunFolder(tmp_path / "run").create(config()) as folder:
        folder.summary({"status": "failed", "error": "last week's"})
    mark_ended(folder.path, "failed", "killed by SIGKILL")
    assert (read_summary(folder.path) or {})["error"] == "killed by SIGKILL"


def test_an_attempt_that_never_began_leaves_a_finished_run_as_it_is(tmp_path):
    with RunFolder(tmp_path / "run").create(config()) as folder:
        folder.summary({"status": "finished", "steps": 7})
    content = (folder.path / "summary.json").read_bytes()
    assert mark_ended(folder.path, "interrupted", None)["status"] == "interrupted"
    assert (folder.path / "summary.json").read_bytes() == content


def test_marking_touches_no_folder_that_is_not_there_or_is_in_use(tmp_path):
    mark_ended(tmp_path / "never made", "failed", "killed")
    assert not (tmp_path / "never made").exists()
    with RunFolder(tmp_path / "run").create(config()):
        assert mark_ended(tmp_path / "run", "failed", "killed")["status"] == "failed"
        assert read_status(tmp_path / "run") == "running"
        assert not (tmp_path / "run" / "summary.json").exists()


def test_status_of_what_is_no_run(tmp_path):
    assert read_status(tmp_path) is None
    assert isinstance(from_dict(config()), RunConfig)
