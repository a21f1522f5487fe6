"""Whose code a command runs: what flags name or is installed, never what a file alone names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from policy_samples import write_policy
from program_samples import dstrl, said
from report_samples import write_run

from dstrl_cli import registry
from dstrl_cli.cli import main
from dstrl_cli.errors import InputError
from dstrl_cli.registry import only_asked

TRACE = "from pathlib import Path\nPath('ran').touch()\n"
ENV = f"""{TRACE}
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv
gymnasium.register('Planted-v0', PendulumEnv, max_episode_steps=5)
"""
SCORE = f"""{TRACE}
from dstrl_cli.topology.magnitude import Magnitude
class Planted(Magnitude):
    pass
"""
SMALL = ("--steps=20", "--set=hidden_sizes=[4,4]", "--set=eval_episodes=1", "--sparsity=0.5")
REMEDY = "(--env, --algo or --set), or add --trust"


@pytest.fixture
def here(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module that leaves a trace when it is imported."""
    for module, text in (("planted_env", ENV), ("planted_score", SCORE)):
        Path(f"{module}.py").write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("preset.yaml").write_text("config:\n  env: planted_env:Planted-v0\n")
    Path("sweep.yaml").write_text("sweep:\n  env: [planted_env:Planted-v0, 2DNav-v1]\n")
    Path("algo.yaml").write_text("sweep:\n  algo: planted_score:Planted\n")
    Path("method.yaml").write_text("extends: rigl\nall:\n  topology.drop: planted_score:Planted\n")
    Path("by_preset.yaml").write_text("sweep:\n  dst: method.yaml\nconfig:\n  env: 2DNav-v1\n")
    return empty_folder


@pytest.mark.parametrize(
    ("arguments", "file", "module"),
    [
        (["train", "--preset=preset.yaml"], "preset.yaml", "planted_env"),
        (["sweep", "--preset=sweep.yaml"], "sweep.yaml", "planted_env"),
        (["sweep", "--preset=algo.yaml"], "algo.yaml", "planted_score"),
        (["train", "--dst=method.yaml", "--env=2DNav-v1"], "method.yaml", "planted_score"),
        (["sweep", "--preset=by_preset.yaml"], "method.yaml", "planted_score"),
        (["train", "--preset=preset.yaml", "--set=topology.drop=magnitude"], "preset", "planted_e"),
        (["bench", "update", "--dst=method.yaml", "--env=2DNav-v1"], "method.yaml", "planted_sco"),
    ],
)
@pytest.mark.parametrize("dry", [True, False])
def test_a_module_that_only_a_file_names_is_not_imported(
    here: Path, arguments: list[str], file: str, module: str, dry: bool, capsys
) -> None:
    flags = ["--dry-run"] if dry and arguments[0] != "bench" else []
    assert main([*arguments, *flags]) == 2
    refused = said(capsys)
    assert f"{file}" in refused
    assert f"names module '{module}" in refused
    assert REMEDY in refused
    assert not Path("ran").exists()
    assert not Path("results").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--preset=preset.yaml", "--trust"],
        ["train", "--preset=preset.yaml", "--env=planted_env:Planted-v0"],
        ["train", "--preset=preset.yaml", "--set=env=planted_env:Planted-v0"],
        ["train", "--env=planted_env:Planted-v0"],
        ["train", "--dst=method.yaml", "--env=2DNav-v1", "--trust"],
        [
            *("train", "--dst=method.yaml", "--env=2DNav-v1"),
            "--set=topology.drop=planted_score:Planted",
        ],
    ],
)
def test_a_module_that_a_flag_names_is_imported_and_with_trust_any(
    here: Path, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    new = "x" + "".join(filter(str.isalnum, request.node.name))[-4:]  # nothing imports it twice
    for file in [*Path().glob("*.yaml"), *Path().glob("*.py")]:
        Path(str(file).replace("planted", new)).write_text(
            file.read_text().replace("planted", new).replace("Planted-v0", f"{new}-v0")
        )
    named = [each.replace("planted", new).replace("Planted-v0", f"{new}-v0") for each in arguments]
    assert main([*named, "--dry-run"]) == 0
    assert Path("ran").exists()


STORED = "out/Planted-v0/td3-rlx2/s0.5/seed0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in a user's environment, trained by another process than this one."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "planted_env.py").write_text(ENV + "print('loud')\n")
    dstrl(folder, "train", "--env=planted_env:Planted-v0", *SMALL, "--out=out")
    return folder


@pytest.fixture
def stored(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one; nothing has run its environment since."""
    (trained / "ran").unlink(missing_ok=True)
    monkeypatch.chdir(trained)
    return trained


def test_a_stored_policy_runs_its_environment_only_where_it_is_asked_for(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", STORED]) == 2
    assert f"{STORED}/policy.safetensors names module 'planted_env'" in said(capsys)
    sizes = {"observation_size": 3, "action_low": [-2], "action_high": [2]}
    write_policy(stored / "alone.safetensors", env="planted_env:Planted-v0", **sizes)
    assert main(["eval", "alone.safetensors"]) == 2
    assert main(["table", "out", "--metric=final"]) == 0
    assert not Path("ran").exists()
    dstrl(stored, "eval", STORED, "--trust")
    dstrl(stored, "eval", STORED, "--env=planted_env:Planted-v0")
    assert Path("ran").exists()


def test_a_stored_run_is_trained_again_only_where_its_environment_is_trusted(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["verify", STORED], ["train", f"--config={STORED}/config.yaml", "--out=again"]):
        assert main(command) == 2
        refused = said(capsys)
        assert f"{STORED}/config.yaml names module 'planted_env'" in refused
        assert "ask for it; add --trust if you know" in refused
    assert not Path("ran").exists()
    assert not Path("again").exists()
    shown = json.loads(dstrl(stored, "verify", STORED, "--trust", "--json").stdout)
    assert shown["equal"] is True
    assert Path("ran").exists()


def test_a_refused_score_is_said_with_its_key_and_its_name(here: Path, capsys) -> None:
    assert main(["train", "--dst=method.yaml", "--env=2DNav-v1", "--dry-run"]) == 2
    refused = "topology.drop = 'planted_score:Planted': method.yaml names module 'plan"
    assert refused in said(capsys)


def test_a_table_imports_nothing_that_results_name(here: Path, capsys) -> None:
    config = {
        "algo": "planted_score:Planted",
        "env": {"id": "planted_env:Planted-v0", "task": 0},
    }
    write_run(here, "results/Planted-v0/mine-x/s0.9/seed0", {1000: [1.0]}, config=config)
    for style in ("rich", "md", "json", "csv", "latex"):
        assert main(["table", "--metric=final", f"--format={style}"]) == 0
    assert not Path("ran").exists()
    assert not {"planted_score", "planted_env"} & {*sys.modules}


def test_what_is_installed_is_imported_and_what_comes_with_python_is_not() -> None:
    with only_asked([]):
        assert registry.import_here("yaml").__name__ == "yaml"
        with pytest.raises(InputError, match="a file names module 'antigravity'"):
            registry.import_here("antigravity")
        with pytest.raises(ModuleNotFoundError):
            registry.import_here("nowhere_to_be_found")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(("name", "counts"), [("mine", True), ("dstrl", False)])
def test_a_distribution_installed_in_place_counts_as_installed_but_for_dstrl_with_its_results(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    monkeypatch.syspath_prepend(here)
    registry._editable.cache_clear()
    assert not registry._may_be_imported("planted_env")
    site = here / "site"
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(
        f'{{"url": "{here.as_uri()}", "dir_info": {{"editable": true}}}}'
    )
    monkeypatch.syspath_prepend(site)
    registry._editable.cache_clear()
    try:
        assert registry._may_be_imported("planted_env") is counts
        assert registry._may_be_imported("dstrl_cli.algos.td3")
    finally:
        registry._editable.cache_clear()
