"""RLtools beside dstrl: what it needs is said before anything runs, and it takes over the sizes."""

import json

import pytest

from dstrl_cli.bench import plan, toolchain
from dstrl_cli.bench.plan import BenchRequest
from dstrl_cli.cli import main
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError

HERE = {"module": "json", "missing": lambda: None}
"""As if RLtools were installed, and all that it needs."""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(empty_folder):
    pass


def rltools(monkeypatch, **changes) -> None:
    changed = plan.PEERS["rltools"]._replace(**HERE | changes)
    monkeypatch.setitem(plan.PEERS, "rltools", changed)


def works(*sets: str, algo: str = "td3") -> list[plan.Work]:
    request = BenchRequest(
        "train", [algo], ["sst"], ["2DNav-v1"], engines=["masked"], widths=[16], device="cpu",
        peers=["rltools"], sets=sets,
    )  # fmt: skip
    (group,) = plan.groups(request, tell=lambda _: None)
    return [work for work in group if work.contender == "rltools"]


def test_it_is_measured_once_on_one_thread_at_the_sizes_of_the_run(monkeypatch):
    rltools(monkeypatch)
    (work,) = works()
    assert (work.threads, work.jobs, work.config.hidden_sizes) == (1, 1, (16, 16))


def test_a_missing_package_is_named(monkeypatch, capsys):
    rltools(monkeypatch, module="no_such_module")
    assert main(["bench", "train", "--peer=rltools"]) == 2
    assert 'pip install "dstrl[rltools]"' in capsys.readouterr().err


def test_a_missing_compiler_is_named(monkeypatch, capsys):
    monkeypatch.setenv("RL_TOOLS_COMPILER", "no-such-compiler")
    rltools(monkeypatch, missing=toolchain.missing)
    assert main(["bench", "train", "--peer=rltools"]) == 2
    told = capsys.readouterr().err
    assert "--peer rltools: RLtools is compiled for every run" in told
    assert "no-such-compiler" in told


def test_without_mkl_it_would_not_be_itself(monkeypatch):
    monkeypatch.setattr(toolchain.sys, "platform", "linux")
    monkeypatch.setattr(toolchain.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: name)
    monkeypatch.setattr(toolchain.Path, "exists", lambda path: True)
    monkeypatch.setattr(toolchain, "_is_installed", lambda package: package == "mkl")
    assert toolchain.missing() == 'mkl-include not installed: pip install "rltools[mkl]"'
    monkeypatch.setattr(toolchain, "_is_installed", lambda package: True)
    assert toolchain.missing() is None


def test_it_has_no_update_alone(monkeypatch, capsys):
    rltools(monkeypatch)
    assert main(["bench", "update", "--peer=rltools"]) == 2
    assert "dstrl bench train" in capsys.readouterr().err


def test_layers_of_different_widths_are_refused():
    config = resolve("sst", "td3", sets=["hidden_sizes=[16,32]"], flags={})
    told = toolchain.refusal(config)
    assert told == "RLtools' hidden layers have one width, not 16-32: set --width"
    assert toolchain.refusal(resolve("sst", "sac", sets=["hidden_sizes=[16,16]"], flags={})) is None


def test_a_refusal_names_the_peer(monkeypatch):
    rltools(monkeypatch, refusal=lambda config: "not like this")
    with pytest.raises(InputError, match=r"^--peer rltools: not like this$"):
        works()


@pytest.mark.soak
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_it_trains_on_the_same_environment(algo, capsys):
    pytest.importorskip("rltools", reason="RLtools is not installed")
    arguments = [
        "train", f"--algo={algo}", "--dst=sst", "--env=Pendulum-v1", "--width=16", "--batch=16",
        "--device=cpu", "--engine=masked", "--seconds=0.1", "--repeats=2", "--peer=rltools",
        "--set=buffer_size=500", "--set=learning_starts=60", "--json",
    ]  # fmt: skip
    assert main(["bench", *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    own, peer = told["measurements"]
    assert (own["dst"], peer["dst"], peer["lock_step_ms"]) == ("sst", "rltools", None)
    assert peer["compile_s"] > 0
    assert peer["cpu_ms"] > 0
    (ratio,) = told["ratios"]
    assert ratio["over_label"] == "RLtools, 1 thread"
    assert ratio["cpu"] == pytest.approx(own["cpu_ms"] / peer["cpu_ms"])
