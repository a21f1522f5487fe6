"""`--resume`, `--config` and sweeps that go on: what is said, planned, refused and written."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from resume_samples import SMALL, numbers
from sweep_samples import leave

from dstrl_cli import api
from dstrl_cli.cli import main
from dstrl_cli.config.identity import differences
from dstrl_cli.errors import InputError
from dstrl_cli.runs import logs, provenance
from dstrl_cli.runs.folder import RunFolder, read_config
from dstrl_cli.runs.summary import read_summary, write_summary
from dstrl_cli.sweep.again import stored_label
from dstrl_cli.sweep.packing import groups
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.sweep.states import resumed

FLAGS = [
    *("--dst=sst", "--env=InvertedPendulum-v5", "--sparsity=0.6", "--steps=110", "--engine=masked"),
    *(f"--set={each}" for each in SMALL if not each.startswith(("topology", "buffer"))),
]
RUN = Path("results/InvertedPendulum-v5/td3-sst/s0.6/seed0")


@pytest.fixture(autouse=True)
def _screen_in_an_empty_folder(empty_folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def stop_after(arguments: list[str]) -> None:
    """Run a command that is interrupted when its first checkpoint is written."""
    with stopping():
        assert main(arguments) == 130


@contextmanager
def stopping() -> Iterator[None]:
    """Interrupt what trains in the block at its first checkpoint."""
    write = RunFolder.checkpoint

    def checkpoint(folder: RunFolder, state: Any) -> None:
        write(folder, state)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "checkpoint", checkpoint)
        yield


def printed_runs(capsys) -> list[dict]:
    return json.loads(capsys.readouterr().out)["runs"]


def test_a_stopped_run_goes_on_with_resume_and_ends_alike(capsys):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    assert main(["train", *FLAGS]) == 2
    assert "--resume goes on with it, --overwrite starts it over" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["train", *FLAGS, "--resume"]) == 0
    assert "resumes at step 60" in capsys.readouterr().out
    assert main(["train", *FLAGS, "--out=whole"]) == 0
    assert numbers(RUN) == numbers(Path("whole", *RUN.parts[1:]))


def test_a_stopped_run_whose_logs_were_altered_does_not_go_on(capsys):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    (RUN / "summary.json").unlink()  # as of a run that was killed
    file = RUN / "eval.csv"
    whole = file.read_text()
    assert "\n0,0," in whole
    for altered, cause in (("\n0,0,1", "is damaged"), ("\n0,1,", "was altered")):
        file.write_text(whole.replace("\n0,0,", altered, 1))
        assert main(["sweep", *FLAGS, "--seeds=0", "--dry-run"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"eval.csv {cause}, the run cannot go on" in said
    file.write_text(whole)
    assert main(["train", *FLAGS, "--resume"]) == 0


def test_a_run_that_was_killed_while_its_logs_were_cut_goes_on(monkeypatch):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    with (RUN / "episodes.csv").open("a") as file:
        file.write("61,9,1.0,1,1,\n")  # after the checkpoint
    write_summary(RUN, {"status": "interrupted"})

    def killed_after(*arguments: Any) -> None:
        cut(*arguments)
        raise KeyboardInterrupt

    cut = logs.cut
    with monkeypatch.context() as patch:
        patch.setattr(logs, "cut", killed_after)
        assert main(["train", *FLAGS, "--resume"]) == 130
    assert main(["train", *FLAGS, "--resume"]) == 0
    assert read_summary(RUN)["status"] == "finished"


def test_resume_says_what_it_finds(capsys):
    assert main(["train", *FLAGS, "--resume"]) == 0
    assert "has not been started: it starts" in capsys.readouterr().out
    before = read_summary(RUN)
    assert main(["train", *FLAGS, "--resume"]) == 0
    assert "has finished its 110 steps: nothing is left to do" in capsys.readouterr().out
    assert main(["train", *FLAGS, "--resume", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["runs"]
    assert told.items() >= before.items()
    assert read_summary(RUN) == before
    rows = (RUN / "eval.csv").read_text().splitlines(keepends=True)
    (RUN / "eval.csv").write_text("".join(rows[:-1]))
    assert main(["train", *FLAGS, "--resume"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "finished, but eval.csv is not as the run wrote it" in said
    (RUN / "summary.json").unlink()
    (RUN / "eval.csv").write_text("step,episode,return,length\n")
    assert main(["train", *FLAGS, "--resume"]) == 0
    assert "(unfinished) left no checkpoint: it starts over" in capsys.readouterr().out
    assert read_summary(RUN)["status"] == "finished"
    assert main(["train", *FLAGS, "--resume", "--overwrite"]) == 2


def test_a_finished_run_is_made_longer_on_the_command_line(capsys):
    assert main(["train", *FLAGS, "--keep-checkpoint"]) == 0
    longer = [each.replace("=110", "=1.6e2") for each in FLAGS]
    assert main(["train", *longer, "--resume"]) == 0
    assert "resumes at step 110" in capsys.readouterr().out
    assert read_summary(RUN)["extended_from"] == 110
    assert main(["train", *longer, "--out=whole"]) == 0
    assert numbers(RUN) == numbers(Path("whole", *RUN.parts[1:]))


def test_a_damaged_checkpoint_is_refused_with_the_remedy(capsys):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    file, before = RUN / "checkpoint" / "state.safetensors", numbers(RUN)
    content = file.read_bytes()
    changed = bytearray(content)
    changed[-100] ^= 1
    for damaged in (content[:-100], bytes(changed), b"no checkpoint"):
        file.write_bytes(damaged)
        capsys.readouterr()
        assert main(["train", *FLAGS, "--resume"]) == 2
        assert "--overwrite" in capsys.readouterr().err
        assert numbers(RUN) == before
        assert read_summary(RUN)["status"] == "interrupted"
    assert main(["train", *FLAGS, "--overwrite"]) == 0


def test_a_stored_run_is_repeated_elsewhere_exactly(capsys):
    assert main(["train", *FLAGS, "--seed=3"]) == 0
    stored = RUN.with_name("seed3") / "config.yaml"
    assert main(["train", f"--config={stored}", "--out=again", "--checkpoint-every=1h"]) == 0
    again = Path("again", *stored.parent.parts[1:])
    assert numbers(again) == numbers(stored.parent)
    first, second = read_config(stored.parent), read_config(again)
    assert differences(first, second) == []
    assert (second.engine, second.threads) == (first.engine, first.threads) == ("masked", 1)
    capsys.readouterr()
    assert main(["train", f"--config={stored}", "--resume"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out
    assert main(["train", f"--config={stored}", "--out=x", "--seed=1", "--set=tau=0.1"]) == 2
    assert "--seed, --set: not beside --config" in capsys.readouterr().err
    assert main(["train", f"--config={stored}", "--out=x", "--device=tpu"]) == 2
    assert "device = 'tpu'" in capsys.readouterr().err
    assert main(["train", "--config=nowhere/config.yaml"]) == 2
    assert not Path("x").exists()


def test_the_folder_of_a_sweeps_run_is_repeated_as_well(tmp_path):
    (run,) = expand(Axes(), flags={"env.id": "2DNav-v1"})
    varied = tmp_path / "out" / "2DNav-v1.task0" / "td3-rlx2+nstep5" / "s0.95" / "seed0"
    assert stored_label(varied, run.config) == Path(*varied.parts[-4:])
    renamed = tmp_path / "my best run"
    assert stored_label(renamed, run.config) == Path("2DNav-v1", "td3-rlx2", "s0.95", "seed0")


def test_a_sweep_goes_on_from_the_checkpoints_of_its_runs(capsys):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    sweep = ["sweep", *FLAGS, "--seeds=0-1", "--jobs=1", "--dry-run"]
    capsys.readouterr()
    assert main(sweep) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "InvertedPendulum-v5/td3-sst/s0.6/seed0 resumes at step 60" in out
    assert "2 to do, 1 of them resumed" in out
    assert main([*sweep, "--json"]) == 0
    told = [
        (each["start"], each["resumes_at"]) for each in json.loads(capsys.readouterr().out)["runs"]
    ]
    assert told == [("resume", 60), ("new", None)]
    assert main([*sweep, "--json", "--overwrite"]) == 0
    told = [
        (each["start"], each["resumes_at"]) for each in json.loads(capsys.readouterr().out)["runs"]
    ]
    assert told == [("over", None), ("new", None)]


def test_runs_of_different_steps_do_not_share_a_population():
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    sets = [each.removeprefix("--set=") for each in FLAGS if each.startswith("--set=")]
    flags = {"env.id": "InvertedPendulum-v5", "sparsity": 0.6, "steps": 110, "engine": "auto"}
    axes = Axes(methods=("sst",), seeds=(0, 1, 2))
    planned = [each.run for each in resumed(expand(axes, sets=sets, flags=flags), False)]
    assert [(run.start, run.config.engine) for run in planned] == [
        ("resume", "masked"),
        ("new", "auto"),
        ("new", "auto"),
    ]
    assert [[run.config.seed for run in group] for group in groups(planned)] == [[0], [1, 2]]


def test_another_engine_than_that_of_the_checkpoint_is_said_and_not_taken():
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    flags = {"env.id": "InvertedPendulum-v5", "sparsity": 0.6, "steps": 110, "engine": "sparse"}
    sets = [each.removeprefix("--set=") for each in FLAGS if each.startswith("--set=")]
    (planned,) = resumed(expand(Axes(methods=("sst",)), sets=sets, flags=flags), False)
    assert planned.run.config.engine == "masked"
    assert "engine stays masked, with which it began" in planned.run.notes


def test_another_version_or_device_than_that_of_the_checkpoint_is_said(capsys, monkeypatch):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    others = {**provenance.versions(), "dstrl": "9.9.9"}
    monkeypatch.setattr("dstrl_cli.runs.provenance.versions", lambda: others)
    capsys.readouterr()
    assert main(["train", *FLAGS, "--resume"]) == 0
    assert "since its checkpoint has changed: dstrl 0.1.0 -> 9.9.9" in " ".join(
        capsys.readouterr().out.split()
    )


def test_python_resumes_as_the_command_line_does():
    sets = dict(each.removeprefix("--set=").split("=", 1) for each in FLAGS if "--set" in each)
    sets = {key: yaml.safe_load(value) for key, value in sets.items()} | {"checkpoint_every": 60}
    keys = {
        "dst": "sst",
        "env": "InvertedPendulum-v5",
        "sparsity": 0.6,
        "steps": 110,
        "engine": "masked",
    }
    with stopping(), pytest.raises(KeyboardInterrupt):
        api.train(**keys, sets=sets)
    resumed_run = api.train(**keys, sets=sets, resume=True)
    assert resumed_run["status"] == "finished"
    assert api.train(**keys, sets=sets, resume=True) == resumed_run
    api.train(**keys, sets=sets, out="whole")
    assert numbers(RUN) == numbers(Path("whole", *RUN.parts[1:]))
    with pytest.raises(InputError, match="give one of them"):
        api.train(**keys, sets=sets, resume=True, overwrite=True)


@pytest.mark.parametrize("value", ["10", "1e3", "0", "90s", "90 s", "500ms", "2h", "1.5h"])
def test_the_interval_of_checkpoints_is_a_number_of_steps_or_a_time(value):
    assert main(["train", "--checkpoint-every", value, "--dry-run"]) == 0


@pytest.mark.parametrize("value", ["-1", "10x", "m", "0s", "ten", "1.5", "1e999h"])
def test_another_interval_is_refused_with_what_is_valid(capsys, value):
    assert main(["train", "--checkpoint-every", value, "--dry-run"]) == 2
    message = capsys.readouterr().err
    assert "checkpoint_every = " in message
    assert "or a time as in 90s, 10m or 2h" in " ".join(message.split())


def test_a_folder_in_which_making_a_run_was_killed_is_free(tmp_path):
    (run,) = expand(Axes(methods=("sst",)), flags={"env.id": "2DNav-v1", "out": str(tmp_path)})
    run.path.mkdir(parents=True)
    (run.path / ".config.yaml.part").write_text("algo: t")
    (planned,) = resumed([run], overwrite=False)
    assert planned.status == "new"
    leave(run, None)
    assert not (run.path / ".config.yaml.part").exists()


@pytest.mark.parametrize("block", ["null", "[1]"])
def test_a_stopped_run_that_lost_where_it_ran_goes_on(block):
    stop_after(["train", *FLAGS, "--checkpoint-every=60"])
    document = yaml.safe_load((RUN / "config.yaml").read_text())
    document["run"] = yaml.safe_load(block)
    (RUN / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    assert main(["train", *FLAGS, "--resume"]) == 0
    ran = yaml.safe_load((RUN / "config.yaml").read_text())["run"]
    assert [each["step"] for each in ran["resumed"]] == [60]
