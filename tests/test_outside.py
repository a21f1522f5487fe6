"""Extending an installed dstrl from one's own folder: a score, an algorithm, an environment."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from outside_samples import METHOD, SCORE
from program_samples import dstrl

SAMPLES = Path(__file__).parent / "outside"
RUN = ("--algo", "ddpg_sample:DDPG", "--env", "line_example:Line-v0", "--steps", "300")


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


def test_a_score_an_algorithm_and_an_environment_train_together(folder: Path) -> None:
    sweep = ("sweep", *RUN, "--dst", "dense,saliency.yaml", "--seeds", "0-1")
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
    table = dstrl(folder, "table", "results", "--metric", "final", "--format", "md").stdout
    assert "**DDPG, sparsity 0.8**" in table
    assert "| Saliency |" in table


def test_another_algorithm_is_planned_for_an_accelerator(folder: Path) -> None:
    plan = ("--dst", "sst", "--device", "cuda", "--device-memory", "80GB", "--dry-run", "--json")
    told = json.loads(dstrl(folder, "sweep", *RUN, *plan).stdout)
    (population,) = told["populations"]
    assert (population["algo"], population["members"]) == ("ddpg", 1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--algo", "nowhere:DDPG"], "'nowhere:DDPG': module 'nowhere' cannot be imported"),
        (["--algo", "ddpg_sample:Missing"], "module 'ddpg_sample' has no 'Missing'"),
        (["--algo", "line_example:Line"], "needs an attribute `row`"),
        ([*RUN, "--dst", "rlx2"], "'rlx2' has keys for td3 and sac, but none for ddpg"),
        (
            [*RUN, "--dst", "saliency.yaml", "--set", "topology.params.powr=2"],
            "topology.params.powr",
        ),
        (
            [*RUN, "--dst", "saliency.yaml", "--set", "topology.params.power=much"],
            "topology.params.power",
        ),
        (
            [*RUN, "--dst", "saliency.yaml", "--set", "topology.drop=line_example:Line"],
            "topology.drop",
        ),
    ],
)
def test_what_cannot_be_had_is_said_in_one_message(
    folder: Path, arguments: list[str], expected: str
) -> None:
    done = dstrl(folder, "train", *arguments, "--out", "wrong", code=2)
    assert expected in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "wrong").exists()
