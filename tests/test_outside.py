"""Extending an installed dstrl from one's own folder: a score, an algorithm, an environment."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest
from outside_samples import METHOD, SCORE
from program_samples import dstrl, said

import dstrl_cli
from dstrl_cli.cli import main
from dstrl_cli.errors import DstrlError

SAMPLES = Path(__file__).parent / "outside"
RUN = ("--algo", "ddpg_sample:DDPG", "--env", "line_example:Line-v0", "--steps", "300")
KEYS = {"algo": "ddpg_sample:DDPG", "env": "line_example:Line-v0", "steps": 300}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: an algorithm with its settings, an environment, a score and its method."""
    project = tmp_path_factory.mktemp("user") / "project"
    shutil.copytree(SAMPLES, project)
    shutil.copy(Path(__file__).with_name("ddpg_sample.py"), project)
    (project / "saliency.py").write_text(SCORE)
    method = METHOD.replace("extends: rlx2", "extends: rigl")  # rlx2 has no keys for DDPG
    (project / "saliency.yaml").write_text(f"{method}  topology.update_interval: 40\n")
    return project


def test_a_score_an_algorithm_and_an_environment_train_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("sweep", *RUN, "--dst", "dense,saliency.yaml", "--trust", "--seeds", "0-1")
    dstrl(folder, *sweep, "--set", "env.kwargs.goal=0.5")
    runs = folder / "results/Line-v0"
    assert sorted(path.name for path in runs.iterdir()) == ["ddpg-dense", "ddpg-saliency"]
    run = runs / "ddpg-saliency/s0.8/seed1"
    with (run / "topology.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["network"] for row in rows} == {"actor", "critic1"}
    summary = json.loads((run / "summary.json").read_text())
    # 1-16-16-1 and 2-16-16-1: one critic, and a target of each
    assert summary["parameters"]["sok_dense"] == (16 + 256 + 16) + (32 + 256 + 16)
    assert summary["parameters"]["rlx_dense"] == 2 * summary["parameters"]["sok_dense"]
    assert summary["flops"]["train_total"] > 0
    monkeypatch.chdir(folder)
    assert main(["table", "results", "--metric", "final", "--format", "md"]) == 0
    table = capsys.readouterr().out
    assert "**DDPG, sparsity 0.8**" in table
    assert "| Saliency |" in table


def test_another_algorithm_is_planned_for_an_accelerator(folder: Path) -> None:
    plan = ("--dst", "sst", "--device", "cuda", "--device-memory", "80GB", "--dry-run", "--json")
    told = json.loads(dstrl(folder, "sweep", *RUN, *plan).stdout)
    (population,) = told["populations"]
    assert (population["algo"], population["members"]) == ("ddpg", 1)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder as the current one of this process, whose modules come first."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "ddpg_sample", raising=False)
    return folder


SALIENCY = (*RUN, "--dst", "saliency.yaml", "--trust", "--set")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--algo", "nowhere:DDPG"], "'nowhere:DDPG': module 'nowhere' is not found"),
        (["--algo", "ddpg_sample:Missing"], "module 'ddpg_sample' has no 'Missing'"),
        (["--algo", "line_example:Line"], "needs an attribute `row`"),
        ([*RUN, "--dst", "rlx2"], "'rlx2' has keys for td3 and sac, but none for ddpg"),
        ([*SALIENCY, "topology.params.powr=2"], "topology.params.powr"),
        ([*SALIENCY, "topology.params.power=much"], "topology.params.power"),
        ([*SALIENCY, "topology.drop=line_example:Line"], "topology.drop"),
        (
            [*SALIENCY, "topology.drop=exiting:X"],
            "imported (SystemExit: 3, exiting.py:1)",
        ),
        ([*SALIENCY, "topology.drop=lacking:X"], "No module named 'absent_package', lacking.py:1)"),
        (["--env", "lacking:X-v0"], "module 'lacking' cannot be imported (ModuleNotFoundError"),
        (["--env", "empty:X-v0"], "module 'empty' was imported, but registers no 'X-v0'"),
        (["--dst", "our-rlx2", "--no-ours"], "--dst our-rlx2 and --no-ours: give one of them"),
        (["--dst", "nothing.yaml"], "nothing.yaml: it sets nothing"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_message(
    here: Path, arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "exiting.py").write_text("raise SystemExit(3)\n")
    (here / "lacking.py").write_text("import absent_package\n")
    (here / "empty.py").write_text("")
    (here / "nothing.yaml").write_text("label: Nothing\n")
    assert main(["train", *arguments, "--out", "wrong"]) == 2
    assert expected in said(capsys)
    assert not (here / "wrong").exists()


def test_settings_of_an_algorithm_may_be_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = Path(__file__).with_name("ddpg_sample.py").read_text()
    (tmp_path / "plain_ddpg.py").write_text(sample.replace('"ddpg"', '"plain_ddpg"'))
    (tmp_path / "plain_ddpg.yaml").write_text("learning_rate: 1.0e-3\n")
    (tmp_path / "mine.yaml").write_text(
        "extends: rlx2\nalgos: [plain_ddpg]\nplain_ddpg:\n  nstep: 2\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    run = ("train", "--algo", "plain_ddpg:DDPG", "--env", "Pendulum-v1", "--dry-run")
    for method in ("sst", "dense", "rigl", "mine.yaml"):
        assert main([*run, "--dst", method]) == 0
    assert "plain_ddpg-mine" in capsys.readouterr().out
    preset = ("--preset", "quick", "--algo", "plain_ddpg:DDPG", "--dst", "sst", "--dry-run")
    assert main(["sweep", *preset]) == 0  # the preset alone names an environment
    assert "2DNav-v1" in capsys.readouterr().out
    assert main(["train", "--algo", "plain_ddpg:DDPG", "--dst", "sst", "--dry-run"]) == 2
    assert (
        "env is missing: choose one with --env, or set it in plain_ddpg.yaml"
        in capsys.readouterr().err
    )


USERS_CODE = """
from dstrl_cli.topology.rule import Score
from dstrl_cli.topology.schedules import Schedule


class Seven(Schedule):
    def fraction(self, progress):
        return 7.0


class Flat(Score):
    def drop(self, view, layer, fraction):
        return view.weights[layer][0, 0]


class Broken(Score):
    def drop(self, view, layer, fraction):
        raise KeyError("boom")


class Blind(Broken):
    observes_updates = True

    def observe(self, view):
        raise KeyError("unseen")


class Unprepared(Broken):
    def prepare(self, view):
        raise KeyError("unready")


class Unmade(Broken):
    def __init__(self, config):
        raise KeyError("unmade")


class Counts(Score):
    def drop(self, view, layer, fraction):
        return view.weights[layer].long()
"""


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [
        ("schedule", "Seven", "(ValueError: a fraction must lie in [0, 1], not be 7.0"),
        ("drop", "Flat", "(ValueError: a score must be [M, K, in, out], here [1, 1, "),
        ("drop", "Broken", "(KeyError: 'boom', users_code.py:"),
        ("drop", "Blind", "(KeyError: 'unseen', users_code.py:"),
        ("drop", "Unprepared", "(KeyError: 'unready', users_code.py:"),
        ("drop", "Unmade", "(KeyError: 'unmade', users_code.py:"),
        ("drop", "Counts", "(ValueError: a score must be of floats, not torch.int64; return"),
    ],
)
def test_what_fails_in_a_users_code_is_said_with_its_name(
    here: Path, key: str, name: str, expected: str
) -> None:
    (here / "users_code.py").write_text(USERS_CODE)
    sets = {"topology.update_interval": 40, f"topology.{key}": f"users_code:{name}"}
    with pytest.raises(DstrlError) as told:
        dstrl_cli.train(**KEYS, dst="rigl", sets=sets, out=f"failed-{name}")
    assert f"topology.{key} = 'users_code:{name}' failed {expected}" in str(told.value)


def test_what_fails_in_a_process_of_its_own_is_said_likewise(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "users_code.py").write_text(USERS_CODE)
    sets = ("--set", "topology.update_interval=40", "--set", "topology.drop=users_code:Broken")
    assert main(["train", *RUN, "--dst", "rigl", *sets, "--out", "failed-apart"]) == 1
    told = "topology.drop = 'users_code:Broken' failed (KeyError: 'boom', users_code.py:"
    assert told in said(capsys)
