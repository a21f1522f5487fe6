"""Topology updates in place of optimizer steps: refused where none is left, told where many are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dstrl_cli.cli import main
from dstrl_cli.config.effects import notes
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve, resolve_explicit
from dstrl_cli.errors import InputError
from dstrl_cli.report.tables import table
from dstrl_cli.runs.folder import read_config

INTERVAL = "topology.update_interval"


def refusal(method: str | Path, *sets: str, **options) -> str:
    with pytest.raises(InputError) as raised:
        resolve(method, sets=sets, **options)
    return str(raised.value)


def told(method: str, *sets: str, steps: int = 12_500) -> list[str]:
    """What is said of a run of `steps`, the first 2,500 of which are random."""
    flags = {"env.id": "2DNav-v1", "steps": steps, "learning_starts": 2_500}
    found = notes(*resolve_explicit(method, sets=sets, flags=flags))
    return [text for text in found if "optimizer steps" in text]


# --- no step is left ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["rlx2", "rigl", "rlx-set", "our-rlx2", "rlx2-official"])
def test_networks_that_would_never_learn_are_refused(method: str) -> None:
    said = refusal(method, f"{INTERVAL}=1")
    assert said.startswith(f"{INTERVAL} = 1: the actor and the critics would never learn, since")
    assert "(rewire = 'instead_of_step', set by " in said
    assert "rigl.yaml)" in said
    assert f"set {INTERVAL} to 2 or more, or rewire to after_step (set by --set)" in said


@pytest.mark.parametrize(
    ("role", "name"), [("actor", "the actor would"), ("critic", "the critics would")]
)
def test_the_network_and_the_key_as_it_was_written_are_named(role: str, name: str) -> None:
    said = refusal("rigl", f"{role}.{INTERVAL}=1")
    assert said.startswith(f"{role}.{INTERVAL} = 1: {name} never learn")


def test_presets_and_method_files_are_checked_too(tmp_path: Path) -> None:
    method = tmp_path / "eager.yaml"
    method.write_text(f"label: Eager\nextends: rigl\nall:\n  critic.{INTERVAL}: 1\n")
    said = refusal(method)
    assert said.startswith(f"critic.{INTERVAL} = 1: the critics would never learn")
    assert said.endswith(f"(set by {method})")
    preset = tmp_path / "standstill.yaml"
    preset.write_text(f"config:\n  {INTERVAL}: 1\n  rewire: instead_of_step\n")
    said = refusal("dst", preset=load_sweep_preset(preset))
    assert f"(rewire = 'instead_of_step', set by {preset})" in said
    assert said.endswith(f"(set by {preset})")


@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("rigl", [f"{INTERVAL}=2"]),
        ("rigl", [f"{INTERVAL}=1", "rewire=after_step"]),
        ("dst", [f"{INTERVAL}=1"]),
        ("rlx-ss", [f"{INTERVAL}=1"]),  # static
        ("dense", [f"{INTERVAL}=1", "rewire=instead_of_step"]),
        ("rigl", [f"critic.{INTERVAL}=1", "critic.topology.schedule=static"]),
    ],
)
def test_networks_that_do_learn_are_not_refused(method: str, sets: list[str]) -> None:
    assert resolve(method, sets=sets).method == method


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_the_command_ends_with_2_and_writes_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [command, "--dst=rlx2", "--env=2DNav-v1", f"--set={INTERVAL}=1"]
    assert main(arguments) == 2
    assert f"{INTERVAL} = 1: the actor and the critics would" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_stored_runs_of_this_kind_stay_readable(tmp_path: Path) -> None:
    stored = to_dict(resolve("rigl", sets=[f"{INTERVAL}=2"], flags={"env.id": "2DNav-v1"}))
    stored |= {"run": {}, "steps": 500, "eval_episodes": 1}
    for role in ("actor", "critic"):
        stored[role]["topology"]["update_interval"] = 1
    assert from_dict(stored).critic.topology.update_interval == 1
    folder = tmp_path / "2DNav-v1/td3-rigl/s0.95/seed0"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))
    (folder / "eval.csv").write_text("step,episode,return,length\n500,0,-3.5,100\n")
    (folder / "summary.json").write_text('{"status": "finished"}')
    assert read_config(folder) == from_dict(stored)
    (section,) = table(tmp_path, metric="final").sections
    assert section.rows[0].cells["2DNav-v1"].mean == -3.5


# --- some steps are left ------------------------------------------------------------------------


def test_the_share_of_replaced_steps_is_told() -> None:
    # 10,000 updates of the critics, changes at 4, 8, ..., 9996: 2,499; 5,000 of the actor, changes
    # at 4, ..., 4996: 1,249. The last due update of each is the end, at which nothing changes.
    assert told("rigl", f"{INTERVAL}=4") == [
        "topology updates replace optimizer steps (rewire is instead_of_step): 25 % of those of "
        "the actor and the critics; raise topology.update_interval, or set rewire=after_step"
    ]
    # critics: 199 of 10,000
    (said,) = told("rigl", f"actor.{INTERVAL}=20", f"critic.{INTERVAL}=50")
    # actor: 249 of 5,000
    assert "5 % of those of the actor, 2 % of those of the critics" in said


def test_shares_of_one_percent_and_other_orders_are_not_told() -> None:
    assert told("rigl", f"{INTERVAL}=100") == []  # 99 of 10,000
    assert told("dst", f"{INTERVAL}=4") == []
    assert told("rlx-ss", f"{INTERVAL}=4") == []
    assert told("rigl", f"{INTERVAL}=4", steps=2_000) == []  # no update at all


def test_the_plan_tells_it(capsys: pytest.CaptureFixture) -> None:
    arguments = ["sweep", "--dst=dst,rigl", "--env=2DNav-v1", "--steps=35000", "--dry-run"]
    assert main([*arguments, f"--set={INTERVAL}=10"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "note for td3-rigl: topology updates replace optimizer steps" in shown
    assert "10 % of those of the actor and the critics" in shown
