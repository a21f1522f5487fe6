"""`--scale`, and the shipped presets of papers: each as a plan, whole and small, with its cost."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from dstrl_cli.cli import main
from dstrl_cli.config import effects
from dstrl_cli.config.presets import list_presets, load_sweep_preset
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.sweep.request import RunRequest
from dstrl_cli.sweep.stages import Staged
from dstrl_cli.training.run import Run

PAPERS = [
    name for name in list_presets() if name.startswith(("papers/xu", "papers/sokar", "papers/rlx2"))
]


def plan(name: str, scale: float | None = None) -> list[Run]:
    preset = load_sweep_preset(name)
    if preset.stages:
        return Staged(RunRequest(Axes(seeds=(0,)), {}, scale=scale), preset).runs()
    return expand(Axes(seeds=(0,)), preset=preset, scale=scale)


@pytest.mark.parametrize("name", PAPERS)
def test_every_preset_says_what_it_reproduces_and_what_it_costs(name: str) -> None:
    preset = load_sweep_preset(name)
    runs = plan(name)
    header = Path(preset.source).read_text(encoding="utf-8").split("description:")[0]
    assert re.match(r"# (XU|SOK|RLX) (Table|Tables|Figure|Figures|Sec\.) ", header)
    (cost, in_all) = re.findall(r"# Cost: (.+), (\S+) steps in all\.", header)[0]
    found = re.findall(r"(\d[\d,]*)(?: runs)? of (\d[\de]*)", cost)
    said = {int(float(steps)): int(count.replace(",", "")) for count, steps in found}
    seeds = len(preset.sweep.seeds)
    lengths = Counter(run.config.steps for run in runs)
    assert said == {steps: seeds * count for steps, count in lengths.items()}
    total = seeds * sum(run.config.steps for run in runs)
    assert float(in_all) == pytest.approx(total, rel=0.005)


@pytest.mark.parametrize("name", PAPERS)
def test_every_preset_has_a_small_one_in_which_all_acts_as_often(name: str) -> None:
    whole, small = plan(name), plan(name, scale=0.02)
    assert len(whole) == len(small)
    for large, run in zip(whole, small, strict=True):
        config = run.config
        assert config.steps == round(0.02 * large.config.steps)
        assert config.learning_starts + config.nstep_delay < config.steps
        evaluations = [each.steps // each.eval_every for each in (large.config, config)]
        assert evaluations[0] == pytest.approx(evaluations[1], rel=0.02)
        for role in effects.ROLES:
            counts = [effects.topology_changes(each.config, role).count for each in (large, run)]
            assert counts[1] == pytest.approx(counts[0], rel=0.1, abs=1)


@pytest.mark.parametrize("name", ["xu2024-table1", "rlx2-table6"])
def test_a_small_preset_dry_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", f"--preset={name}", "--scale=0.02", "--dry-run", "--seeds=0"]) == 0
    assert "to do" in capsys.readouterr().out


def test_what_counts_steps_shrinks_and_the_rest_stays() -> None:
    (run,) = expand(
        Axes(methods=("rlx2",), envs=("Hopper-v2",), seeds=(0,)),
        preset=load_sweep_preset("xu2024-table1"),
        scale=0.02,
    )
    config = run.config
    assert (config.steps, config.learning_starts, config.nstep_delay) == (20_000, 500, 6_000)
    assert (config.eval_every, config.buffer_size, config.metric) == (
        100,
        20_000,
        "last-steps:2500",
    )
    assert config.critic.topology.update_interval == 200
    assert (config.buffer.check_interval, config.buffer.min_size) == (200, 2_048)
    assert (config.batch_size, config.nstep, config.eval_episodes) == (256, 3, 10)
    assert config.critic.topology.drop_fraction == 0.5


def test_flags_and_set_say_what_the_small_run_has() -> None:
    (run,) = expand(
        Axes(methods=("dst",), envs=("Hopper-v2",), seeds=(0,)),
        preset=load_sweep_preset("xu2024-table1"),
        sets=("learning_starts=300",),
        flags={"steps": 5_000},
        scale=0.02,
    )
    assert (run.config.steps, run.config.learning_starts, run.config.eval_every) == (
        5_000,
        300,
        100,
    )


def test_an_axis_of_a_preset_shrinks_along_and_so_do_its_folders() -> None:
    names = {run.label.split("/")[1] for run in plan("rlx2-table6", scale=0.02)}
    sizes = (1000, 2000, 4000, 20000, 60000)
    assert names == {f"td3-rlx2+buffer_size{size}" for size in sizes}
    with pytest.raises(InputError, match=r"--scale 1e-06: several values of buffer_size"):
        plan("rlx2-table6", scale=1e-6)


@pytest.mark.parametrize("scale", ["0", "-1", "1.5", "nan", "x"])
def test_a_scale_that_is_none(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--preset=quick", f"--scale={scale}", "--dry-run"]) == 2
    assert "--scale" in capsys.readouterr().err


def test_an_axis_that_is_written_with_an_exponent_shrinks_as_well(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("sweep: {env: Hopper-v5, set: {steps: [5e5, '1e6'], nstep: [1, 2]}}\n")
    runs = expand(Axes(seeds=(0,)), preset=load_sweep_preset(file), scale=0.02)
    assert sorted({run.config.steps for run in runs}) == [10_000, 20_000]
    assert len(runs) == 4


def test_without_a_preset_the_defaults_shrink() -> None:
    (run,) = expand(Axes(envs=("Hopper-v5",)), scale=0.1)
    assert (run.config.steps, run.config.learning_starts) == (100_000, 2_500)
    assert run.config.metric == "last-steps:12500"
