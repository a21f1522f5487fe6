"""Sweep presets: every shipped one, the papers' settings, cases, and messages about mistakes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dstrl_cli.config.identity import sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.network_sizes import resolve_sizes
from dstrl_cli.config.presets import list_presets, load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.plan import Axes, expand


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_resolves_for_every_run_kind(name: str) -> None:
    whole = load_sweep_preset(name)
    assert whole.description
    assert whole.metric
    for preset in [whole.of_stage(stage) for stage in whole.stages] or [whole]:
        axes = preset.sweep
        assert axes.algo
        for algo, method, env in product(axes.algo, axes.dst, axes.env):
            config = resolve(method, algo, preset=preset, flags={"env": env})
            assert config.env.id == env
            assert resolve_sizes(config, 17, 6).actor.hidden_sizes
            assert config.learning_starts + config.nstep_delay < config.steps


def test_presets_are_found_by_short_name() -> None:
    assert load_sweep_preset("xu2024-table1") == load_sweep_preset("papers/xu2024-table1")
    with pytest.raises(InputError, match="unknown preset 'xu2024-tabel1'; did you mean"):
        load_sweep_preset("xu2024-tabel1")


def test_xu_tables_and_figures() -> None:
    one, two, four = (load_sweep_preset(f"xu2024-table{n}") for n in (1, 2, 4))
    assert one.sweep.dst == ("dense", "sst", "dst", "our-dst", "rlx2", "our-rlx2")
    assert (one.sweep.sparsity, two.sweep.sparsity) == ((0.95,), (0.9,))
    assert one.sweep.seeds == (0, 1, 2, 3, 4)
    assert (one.compare, one.metric) == ("xu2024:I", "last-steps:125000")
    assert (four.compare, four.metric, four.sweep.task) == (
        "xu2024:IV",
        "first-episodes:200",
        (0, 1, 2, 3, 4),
    )
    assert resolve("dst", preset=one).steps == 1_000_000
    figures = [load_sweep_preset(f"xu2024-figure{n}").sweep.sparsity for n in (5, 6)]
    assert [(f[0], f[1], f[-1], len(f)) for f in figures] == [
        (0.15, 0.25, 0.95, 9),
        (0.1, 0.2, 0.9, 9),
    ]


def test_xu_navigation_scales_the_intervals_of_rlx2_only() -> None:
    preset = load_sweep_preset("xu2024-table3")
    assert resolve("our-rlx2", preset=preset).critic.topology.update_interval == 1000
    assert resolve("dst", preset=preset).actor.topology.update_interval == 500
    table5 = load_sweep_preset("xu2024-table5")
    assert table5.sweep.set == {"critic.topology.drop_fraction": (0.1, 0.2, 0.3, 0.4)}
    config = resolve(preset=table5)  # its only algorithm and method
    assert (config.algo, config.method, sparsity_label(config)) == ("sac", "our-rlx2", "s0.95")


def test_sokar_settings() -> None:
    td3, sac = load_sweep_preset("sokar2022-td3"), load_sweep_preset("sokar2022-sac")
    config = resolve("dst", preset=td3, flags={"env": "Ant-v3"})
    assert (config.batch_size, config.learning_rate, config.weight_decay) == (100, 1e-3, 2e-4)
    assert config.actor.lambdas == config.critic.lambdas == (40, 64)
    assert config.critic.topology.drop_fraction == 0.05
    cheetah = resolve("sst", preset=td3, flags={"env": "dstrl/HalfCheetah-v3"})
    assert cheetah.critic.lambdas == (7, 64)
    assert sparsity_label(resolve_sizes(cheetah, 17, 6)) == "a0.493-c0.512"
    hopper = resolve("dst", preset=sac, flags={"env": "Hopper-v3"})
    assert (hopper.tau, hopper.target_update_interval, hopper.alpha) == (1.0, 1000, 0.2)
    assert (hopper.critic.lambdas, hopper.learning_starts) == ((7, 20), 10_000)
    assert (hopper.weight_init, hopper.log_std_bounds) == ("xavier", (-20, 2))
    with pytest.raises(InputError, match=r"sparsity = 0.9: the actor's sparsity follows from"):
        resolve("dst", preset=td3, flags={"env": "Ant-v3", "sparsity": 0.9})


@pytest.mark.parametrize(
    ("algo", "env", "label"),
    [
        ("td3", "Ant-v3", "a0.96-c0.88"),
        ("td3", "Walker2d-v3", "a0.97-c0.95"),
        ("sac", "Walker2d-v3", "s0.9"),
        ("sac", "HalfCheetah-v3", "a0.9-c0.8"),
    ],
)
def test_rlx2_sparsities(algo: str, env: str, label: str) -> None:
    config = resolve("rlx2", algo, preset=load_sweep_preset("rlx2-table2"), flags={"env": env})
    assert (sparsity_label(config), config.steps) == (label, 3_000_000)


def test_rlx2_ablations() -> None:
    left, right, buffers = (load_sweep_preset(f"rlx2-table{n}") for n in ("3", "3-nstep", "6"))
    tiny, rlx2 = resolve("tiny", preset=left), resolve("rlx2", preset=left)
    assert (tiny.nstep, tiny.nstep_delay, tiny.buffer) == (3, 300_000, rlx2.buffer)
    assert right.sweep.set == {"nstep": (1, 2, 3, 4, 5)}
    assert not resolve(preset=buffers).buffer.dynamic


def test_quick_lets_every_mechanism_act() -> None:
    preset = load_sweep_preset("quick")
    assert preset.sweep.dst == ("dense", "sst", "rlx2", "our-rlx2")
    config = resolve("our-rlx2", preset=preset)
    assert (config.env.id, sparsity_label(config)) == ("2DNav-v1", "s0.95")
    updates = config.steps - config.learning_starts
    assert config.nstep_delay < updates
    assert updates // config.policy_delay >= 2 * config.actor.topology.update_interval
    assert updates >= 2 * config.critic.topology.update_interval
    assert config.buffer.min_size < config.steps
    assert config.buffer.check_batches * config.batch_size < config.steps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("swep: {}\n", "mine.yaml: unknown key 'swep'; did you mean 'sweep'"),
        ("sweep: {seed: 0-4}\n", "unknown key 'sweep.seed'; did you mean 'sweep.seeds'"),
        ("cases: [{when: {alg: td3}, config: {}}]\n", "unknown key 'cases.when.alg'"),
        ("name: x\n", "unknown key 'name'"),
        ("config: {nstp: 3}\n", "mine.yaml: unknown key 'nstp'; did you mean 'nstep'"),
        ("sweep: {set: {nstp: [3]}}\n", "unknown key 'nstp'"),
        ("sweep: {dst: [rlx3]}\n", "mine.yaml: unknown method 'rlx3'"),
        ("sweep: {algo: ppo}\n", "mine.yaml: unknown algorithm 'ppo'"),
        ("sweep: {sparsity: high}\n", "mine.yaml: sweep.sparsity: 'high' is not a number"),
        ("sweep: {seeds: 4-0}\n", "sweep.seeds: the range '4-0' must rise"),
        ("config: 3\n", "config = 3: should be a valid dictionary"),
    ],
)
def test_wrong_presets_name_file_and_key(tmp_path: Path, text: Any, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        load_sweep_preset(path)


def test_a_set_ends_an_axis_whatever_it_is_called(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "sweep: {env: [Hopper-v5, Ant-v5], dst: [rlx2], sparsity: [0.8, 0.9], "
        "set: {critic.topology.drop_fraction: [0.1, 0.2]}}\n"
    )
    preset = load_sweep_preset(file)

    def planned(*sets: str) -> list[RunConfig]:
        return [run.config for run in expand(Axes(), preset=preset, sets=sets)]

    assert len(planned()) == 8
    assert {each.env.id for each in planned("env.id=HalfCheetah-v5")} == {"HalfCheetah-v5"}
    fractions = {
        (each.actor.topology.drop_fraction, each.critic.topology.drop_fraction)
        for each in planned("topology.drop_fraction=0.3")
    }
    assert fractions == {(0.3, 0.3)}
    with pytest.raises(InputError, match=r"--set critic\.sparsity: preset 'mine' gives values to"):
        planned("critic.sparsity=0.5")


def test_a_case_is_for_a_method_file_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: rlx2\nall: {nstep: 2}\n")
    own = str(tmp_path / "own.yaml")
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"sweep: {{env: Hopper-v5, dst: ['{own}', rlx2], variants: "
        f"[{{when: {{dst: '{own}'}}, config: {{nstep: 5}}}}]}}\n"
        f"cases: [{{when: {{dst: '{own}'}}, config: {{learning_rate: 1e-3}}}}]\n"
    )
    runs = [run.config for run in expand(Axes(), preset=load_sweep_preset(file))]
    found = {(each.method, each.nstep, each.learning_rate_at(0)) for each in runs}
    assert found == {("own", 2, 1e-3), ("own", 5, 1e-3), ("rlx2", 3, 3e-4)}


def test_widths_that_follow_from_others_cannot_be_given() -> None:
    with pytest.raises(InputError, match=r"actor\.hidden_sizes = \[400, 300\]: with actor\.match"):
        resolve("tiny", sets=["actor.hidden_sizes=[400, 300]"], flags={"env.id": "Hopper-v5"})
