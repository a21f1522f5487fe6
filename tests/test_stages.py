"""Presets of several stages, whose runs take something from earlier ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dstrl_cli.cli import main
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.summary import read_status
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.sweep.request import RunRequest
from dstrl_cli.sweep.stages import Staged

TEXT = """
description: a dense expert, a ticket, and clones
sweep: {env: [2DNav-v1], seeds: [0, 1], sparsity: [0.6]}
config:
  steps: 120
  hidden_sizes: [8, 8]
  batch_size: 8
  learning_starts: 40
  eval_every: 60
  eval_episodes: 1
  engine: masked
stages:
  agents:
    sweep: {algo: [td3], dst: [dense, sst]}
  clones:
    sweep: {algo: [bc], dst: [dense, sst]}
    config:
      expert: {stage: agents, same: [env, seed], dst: dense}
  tickets:
    sweep: {algo: [bc], dst: [sst]}
    config:
      expert: {stage: agents, same: [env, seed], dst: dense}
      init_mask_from: {stage: agents, same: seed, dst: sst}
metric: final
"""
CLONE = "2DNav-v1/bc-sst+expert-td3-dense/s0.6/seed{}"
TICKET = "2DNav-v1/bc-sst+mask-td3-sst+expert-td3-dense/s0.6/seed{}"


def written(folder: Path, text: str = TEXT) -> Path:
    file = folder / "staged.yaml"
    file.write_text(text)
    return file


def asked(file: Path, out: Path | str = "results", **more: object) -> Staged:
    request = RunRequest(Axes(), {"out": str(out)}, **more)  # type: ignore[arg-type]
    return Staged(request, load_sweep_preset(file))


def sweep(file: Path, out: Path, *more: str) -> int:
    return main(["sweep", f"--preset={file}", f"--out={out}", "--jobs=1", *more])


# --- planning -------------------------------------------------------------------------------------


def test_the_keys_of_a_stage_go_over_those_of_all_whichever_way_they_are_written(tmp_path):
    text = """
sweep: {env: 2DNav-v1, dst: [rlx2]}
config: {critic.topology.update_interval: 500, buffer: {check_interval: 900, min_size: 2500}}
stages:
  one:
    config: {topology.update_interval: 2000, buffer: {min_size: 4000}, steps: 30000}
"""
    (run,) = asked(written(tmp_path, text), tmp_path).plan()["one"]
    config = run.config
    assert config.critic.topology.update_interval == 2000
    assert (config.buffer.check_interval, config.buffer.min_size) == (900, 4000)


def test_all_stages_are_planned_before_anything_ran(tmp_path):
    plan = asked(written(tmp_path), tmp_path).plan()
    labels = {name: [run.label for run in runs] for name, runs in plan.items()}
    assert [len(each) for each in labels.values()] == [4, 4, 2]
    assert CLONE.format(1) in labels["clones"]
    assert labels["tickets"] == [TICKET.format(0), TICKET.format(1)]
    ticket = plan["tickets"][1]
    assert ticket.needs == ("2DNav-v1/td3-sst/s0.6/seed1", "2DNav-v1/td3-dense/s0/seed1")
    assert all(not run.needs for run in plan["agents"])


def test_a_dry_run_shows_every_stage_and_what_all_cost(tmp_path, capsys):
    out = tmp_path / "results"
    assert sweep(written(tmp_path), out, "--dry-run") == 0
    text = capsys.readouterr().out
    assert "stage 3 of 3: tickets" in text
    assert "3 stages: 10 runs, 1200 steps in all" in text
    assert sweep(written(tmp_path), out, "--dry-run", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["total"], document["to_do"], document["steps"]) == (10, 10, 1200)
    assert [each["stage"] for each in document["stages"]] == ["agents", "clones", "tickets"]
    assert not out.exists()


def test_a_words_value_shrinks_with_the_scale(tmp_path):
    text = """
sweep: {algo: [td3], dst: [dense], env: [2DNav-v1], seeds: [0]}
config: {eval_episodes: 1}
stages:
  learned: {sweep: {set: {steps: [40000, 60000]}}}
  agents:
    config: {steps: 80000}
    sweep: {variants: [{config: {prefill_from: {stage: learned, steps: 60000}}}]}
"""
    plan = asked(written(tmp_path, text), scale=0.01).plan()
    assert [run.config.steps for run in plan["learned"]] == [400, 600]
    labels = [run.label.split("/")[1] for run in plan["agents"]]
    assert labels == ["td3-dense", "td3-dense+prefill-dense+steps600"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stage: agents, same: seed", "stage: agent, same: seed", "no stage 'agent' before this"),
        ("same: seed", "same: sed", "unknown key 'sed'; did you mean 'seed'"),
        (", same: seed, dst: sst", ", same: seed", "means 2 runs of stage 'agents'"),
        ("dst: sst}", "dst: rlx2}", "stage 'agents' has no such run; it has 2DNav"),
        ("init_mask_from: {stage: agents,", "init_mask_from: {", "stage"),
        ("    config:\n      expert", "    confg:\n      expert", "unknown key 'stages.clones.con"),
    ],
)
def test_wrong_references_are_refused(tmp_path, old, new, message):
    assert old in TEXT
    with pytest.raises(InputError, match=message):
        asked(written(tmp_path, TEXT.replace(old, new, 1))).plan()


def test_flags_that_would_change_the_stages_are_refused(tmp_path, capsys):
    file = written(tmp_path)
    assert sweep(file, tmp_path / "results", "--dst=rlx2", "--dry-run") == 2
    assert "--dst: not with preset 'staged', whose stages say it" in capsys.readouterr().err
    assert main(["train", f"--preset={file}", "--dry-run"]) == 2
    assert "has stages (agents, clones, tickets)" in capsys.readouterr().err


# --- carrying out ---------------------------------------------------------------------------------


def test_stages_follow_one_another_and_go_on_where_they_were(tmp_path, capsys):
    file, out = written(tmp_path), tmp_path / "results"
    assert sweep(file, out, "--seeds=0") == 0
    ticket = out / TICKET.format(0)
    config = read_config(ticket)
    source = "2DNav-v1/td3-dense/s0/seed0/policy.safetensors@"
    assert (config.expert_source or "").startswith(source)
    before = (ticket / "eval.csv").stat().st_mtime_ns
    shutil.rmtree(out / CLONE.format(0))
    capsys.readouterr()
    assert sweep(file, out, "--seeds=0") == 0
    text = capsys.readouterr().out
    assert "2 runs, 1 to do" in text
    assert read_status(out / CLONE.format(0)) == "finished"
    assert (ticket / "eval.csv").stat().st_mtime_ns == before


def test_runs_that_need_a_failed_one_are_said_and_the_others_go_on(tmp_path, capsys):
    broken = TEXT.replace(
        "stages:",
        "cases:\n  - {when: {algo: td3, dst: sst}, config: {learning_rate: 1e30}}\nstages:",
    )
    out = tmp_path / "results"
    assert sweep(written(tmp_path, broken), out, "--seeds=0") == 1
    said = capsys.readouterr()
    assert (
        "td3-sst/s0.6/seed0 did not finish: 1 run of this stage that needs it is left" in said.out
    )
    assert read_status(out / CLONE.format(0)) == "finished"
    assert read_status(out / TICKET.format(0)) is None
