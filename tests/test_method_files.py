"""Method files: every shipped one, precedence of keys, and messages about mistakes."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dstrl_cli.config.identity import run_path, sparsity_label
from dstrl_cli.config.methods import find_method, list_methods
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.registry import ALGORITHMS

NAMES = ["dense", "tiny", "sst", "dst", "rigl", "rlx2", "rlx-set", "rlx-ss"]
OFFICIAL = ["dst-official", "rlx2-official"]
OURS = ["our-dst", "our-rigl", "our-rlx2"]


def topology(config: RunConfig, network: str) -> tuple[str, str, str, float, int]:
    rule = getattr(config, network).topology
    return rule.drop, rule.grow, rule.schedule, rule.drop_fraction, rule.update_interval


# --- methods ---


def test_every_method_resolves_for_its_algorithms() -> None:
    no_critics = [name for name, row in ALGORITHMS.items() if not row.critics]
    assert {*NAMES, *OFFICIAL, *OURS} <= set(list_methods())
    for method, algo in product(list_methods(), ALGORITHMS):
        if algo in no_critics and method.startswith("our-"):
            continue  # importance needs critics
        if find_method(method).refusal(algo) is None:
            config = resolve(method, algo)
            assert (config.method, config.algo) == (method, algo)
            assert from_dict(to_dict(config)) == config


def test_table_rows_come_in_the_papers_order() -> None:
    rows = ["dense", "sst", "dst", "our-dst", "rlx2", "our-rlx2", "rigl"]
    assert sorted(rows, key=lambda name: find_method(name).order) == rows
    labels = [find_method(name).label for name in rows]
    assert labels == ["Dense", "SST", "DST", "Our DST", "RLx2", "Our RLx2", "RigL"]


def test_defaults() -> None:
    td3, sac = resolve(), resolve(algo="sac")
    assert run_path(td3).as_posix() == "HalfCheetah-v5/td3-rlx2/s0.95/seed0"
    assert (td3.steps, td3.learning_starts, td3.batch_size) == (1_000_000, 25_000, 256)
    assert (td3.learning_rate, td3.weight_decay, td3.policy_delay) == (3e-4, 0.0, 2)
    assert sparsity_label(sac) == "s0.9"
    assert (sac.policy_delay, sac.weight_init, sac.temperature) == (1, "orthogonal", "learned")
    assert (sac.log_std_squash, sac.log_std_bounds) == ("tanh", (-5, 2))


def test_dst_changes_both_networks_every_1000_environment_steps() -> None:
    td3, sac = resolve("dst"), resolve("dst", "sac")
    assert topology(td3, "critic") == ("sign", "random", "constant", 0.1, 1000)
    assert topology(td3, "actor") == ("sign", "random", "constant", 0.1, 500)
    assert topology(sac, "actor") == topology(sac, "critic") == topology(td3, "critic")
    assert (td3.rewire, td3.target_masking) == ("after_step", "magnitude_trim")


def test_rlx2_is_rigl_with_value_learning() -> None:
    rlx2, rigl, sac = resolve("rlx2"), resolve("rigl"), resolve("rlx2", "sac")
    for network in ("actor", "critic"):
        assert topology(rlx2, network) == ("magnitude", "gradient", "cosine", 0.5, 10_000)
        assert getattr(rlx2, network) == getattr(rigl, network)
    assert (rlx2.rewire, rlx2.target_masking) == ("instead_of_step", "online_mask")
    assert (rlx2.nstep, rlx2.nstep_delay, sac.nstep, rigl.nstep) == (3, 300_000, 2, 1)
    assert (rlx2.buffer.dynamic, rigl.buffer.dynamic) == (True, False)
    assert (rlx2.buffer.min_size, rlx2.buffer_size) == (100_000, 1_000_000)
    assert (sac.buffer.min_size, sac.buffer_size) == (200_000, 3_000_000)


def test_static_and_dense_methods() -> None:
    sst, ss, dense, tiny = (resolve(name) for name in ("sst", "rlx-ss", "dense", "tiny"))
    assert sst.critic.topology.schedule == ss.actor.topology.schedule == "static"
    assert (sst.actor.initial_mask, ss.actor.initial_mask) == ("random", "magnitude")
    assert (sparsity_label(dense), sparsity_label(tiny)) == ("s0", "s0.95")
    assert tiny.actor.match_parameters
    assert topology(resolve("rlx-set"), "actor")[:3] == ("magnitude", "random", "cosine")


@pytest.mark.parametrize("host", ["dst", "rigl", "rlx2"])
def test_ours_changes_the_critics_rule_alone(host: str) -> None:
    before, after = resolve(host), resolve(host, ours=True)
    assert after == resolve(f"our-{host}") == resolve(f"our-{host}", ours=True)
    interval = before.critic.topology.update_interval
    assert topology(after, "critic") == ("importance", "importance", "constant", 0.1, interval)
    assert not after.critic.topology.regrow_dropped
    unchanged = {"method", "critic"}
    assert {k: v for k, v in to_dict(after).items() if k not in unchanged} == {
        k: v for k, v in to_dict(before).items() if k not in unchanged
    }
    assert after.critic.initial_mask == before.critic.initial_mask


def test_official_variants_differ_by_their_switches_only() -> None:
    dst, official = resolve("dst"), resolve("dst-official")
    assert (official.gradients, official.moments) == ("dense", "keep")
    assert (dst.gradients, dst.moments) == ("masked", "reset")
    rule = official.critic.topology
    assert (rule.sign_split, rule.grow_init, rule.final_drop) == ("official", "adam_step", True)
    assert (rule.stop_before_end, rule.update_offset) == (50_000, 2)
    assert official.actor.topology.update_offset == 1
    assert official.actor.initial_mask == "bernoulli"
    assert topology(official, "critic") == topology(dst, "critic")
    rlx2 = resolve("rlx2-official")
    assert (rlx2.initial_targets, rlx2.moments, rlx2.collect) == ("dense", "keep", "stochastic")
    assert resolve("rlx2-official", "sac").collect == "mean"


@pytest.mark.parametrize(
    ("method", "algo", "expected"),
    [
        ("rlx3", "td3", r"unknown method 'rlx3'; did you mean 'rlx2'\? Valid: anf, dense, "),
        ("our-rlx3", "td3", "unknown method 'our-rlx3'; did you mean 'our-rlx2'"),
        ("rlx2", "tb3", "--algo: unknown algorithm 'tb3'; did you mean 'td3'"),
        ("dst-official", "sac", "'dst-official' exists for td3 only, not for sac"),
        ("our-sst", "td3", "in 'sst' it is static; choose a host that adapts"),
        ("our-dense", "td3", "in 'dense' it is dense"),
        ("our-tiny", "td3", "in 'tiny' it is dense"),
        ("ours", "td3", "'ours' is not a method of its own"),
        ("missing.yaml", "td3", "missing.yaml: cannot be read: No such file"),
    ],
)
def test_wrong_methods(method: str, algo: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        resolve(method, algo)


def test_a_users_method_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: rlx2\nall:\n  topology.drop_fraction: 0.3\nsac:\n  nstep: 5\n")
    mine = resolve(path, ours=True)
    assert (mine.method, mine.nstep) == ("our-mine", 3)
    assert (mine.actor.topology.drop_fraction, mine.critic.topology.drop_fraction) == (0.3, 0.1)
    assert resolve(str(path), "sac").nstep == 5


def test_a_method_without_keys_for_an_algorithm_is_refused_by_name(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("td3:\n  nstep: 4\nall:\n  gamma: 0.9\n")
    assert resolve(mine, "td3").nstep == 4
    with pytest.raises(InputError, match=r"'mine' has keys for td3, but none for sac; .*'sac:'"):
        resolve(mine, "sac")
    child = tmp_path / "child.yaml"
    child.write_text("extends: ./mine.yaml\nall:\n  tau: 0.1\nsac:\n  nstep: 2\n")
    assert [resolve(child, algo).nstep for algo in ("td3", "sac")] == [4, 2]
    assert [resolve(child, algo).gamma for algo in ("td3", "sac")] == [0.9, 0.9]
    with pytest.raises(InputError, match=r"such as sst, or give its file a block 'sac:'"):
        resolve(mine, "sac")
    assert resolve("sst", "sac").method == "sst"  # all: alone fits any


@pytest.mark.parametrize("name", ["our-rlx2", "rlx2"])
def test_what_a_method_without_keys_for_an_algorithm_advises_can_be_done(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=f"'extends: {name}' and a block 'bc:'"):
        resolve(name, "bc")
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"extends: {name}\nbc:\n  batch_size: 32\n")
    assert find_method(mine).refusal("bc") is None
    mine.write_text(f"extends: {name}\nall:\n  tau: 0.1\n")
    assert resolve(mine).critic.topology == resolve(name).critic.topology


def test_a_file_may_hold_keys_for_an_algorithm_of_the_users_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: dst\nalgos: [td3, ddpg]\nddpg:\n  nstep: 4\n")
    method = find_method(mine)
    assert method.layer("ddpg")["nstep"][0] == 4
    assert method.layer("ddpg")["rewire"] == method.layer("td3")["rewire"]
    assert "'mine' exists for td3, ddpg only, not for sac" in str(method.refusal("sac"))
    mine.write_text("extends: dst\nddpg:\n  nstep: 4\n")
    with pytest.raises(InputError, match="unknown key 'ddpg'"):
        find_method(mine)


def test_a_users_method_cannot_pass_for_another(tmp_path: Path) -> None:
    path = tmp_path / "rlx2.yaml"
    path.write_text("extends: rlx2\n")
    assert resolve(path) == resolve("rlx2")
    path.write_text("extends: rlx2\nall:\n  tau: 0.01\n")
    with pytest.raises(InputError, match=r"dstrl's own 'rlx2'.*give the file another name"):
        resolve(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all:\n  topolgy.drop: sign\n", r"mine.yaml: unknown key 'topolgy.drop'; did you mean"),
        ("al:\n  nstep: 3\n", r"mine.yaml: unknown key 'al'; did you mean 'all'"),
        ("all: [1, 2\n", r"mine.yaml, line 2, column 1: not valid YAML"),
        ("all:\n  nstep: 1\n  nstep: 2\n", r"line 3, column 3: .*'nstep' is given twice"),
        ("- 1\n", r"mine.yaml: must hold keys and values, not a list"),
        ("all: 3\n", r"mine.yaml: all = 3"),
        ("sac: 3\n", r"mine.yaml: sac = 3"),
        ("1: 2\n", r"mine.yaml: .*Keys should be strings"),
        ("all: {[1]: 2}\n", r"line 1, column 7: not valid YAML: a key must be a word"),
        ("extends: mine.yaml\n", r"mine.yaml: extends itself"),
        ("algos: [td4]\n", r"algos: unknown algorithm 'td4'"),
        ("all:\n  algo: sac\n", r"'algo' cannot be set here"),
        ("all:\n  nstep: 1.5\n", r"nstep = 1.5: must be a whole number \(set by .*mine.yaml\)"),
        ("all: !!python/object:os.system {}\n", r"line 1, column 6: not valid YAML"),
    ],
)
def test_wrong_method_files_name_file_and_key(tmp_path: Path, text: Any, expected: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        resolve(path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"mine.yaml: is not a text file"):
        resolve(path)


# --- precedence ---


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    path.write_text(
        "config:\n  steps: 1e4\n  nstep: 4\n  actor.topology.drop_fraction: 0.2\n"
        "cases:\n"
        "- {when: {dst: rlx2}, config: {batch_size: 32, gamma: 0.5}}\n"
        "- {when: {dst: dst}, config: {batch_size: 16}}\n"
        "- {when: {env: dstrl/Ant-v3, algo: td3}, config: {gamma: 0.9}}\n"
    )
    preset = load_sweep_preset(path)
    config = resolve("rlx2", preset=preset)
    assert (config.steps, config.nstep, config.batch_size, config.gamma) == (10_000, 4, 32, 0.5)
    assert config.nstep_delay == 300_000  # of the method
    assert config.learning_starts == 25_000  # of the algorithm
    changed = resolve(
        "rlx2",
        preset=preset,
        sets=["nstep=5", "steps=2e4", "topology.drop_fraction=0.4", "env=Ant-v3"],
        flags={"steps": "3e4", "seed": 2, "sparsity": 0.9, "actor.sparsity": 0.8, "device": None},
    )
    assert (changed.nstep, changed.steps, changed.seed) == (5, 30_000, 2)
    assert changed.gamma == 0.9  # the case of an environment named by --set
    assert changed.actor.topology.drop_fraction == 0.4  # a later macro beats an earlier own key
    assert sparsity_label(changed) == "a0.8-c0.9"


def test_yaml_values_of_set() -> None:
    config = resolve(
        sets=[
            "hidden_sizes=[64, 32]",
            "topology.td_error=off",
            "actor.hidden_sizes=8,8",
            "tau=1e-2",
        ]
    )
    assert (config.hidden_sizes, config.actor.hidden_sizes, config.tau) == ((64, 32), (8, 8), 0.01)
    assert config.critic.topology.td_error == "off"
    assert resolve(sets=["env={id: 2DNav-v1, task: 3}"]).env.task == 3


@pytest.mark.parametrize(
    ("sets", "flags", "expected"),
    [
        (["nstep"], {}, "--set nstep: must be key=value"),
        (["nstep=[1"], {}, "--set nstep, line 1, column 3: not valid YAML"),
        (["nstp=3"], {}, "--set: unknown key 'nstp'; did you mean 'nstep'"),
        (["drop_fraction=0.3"], {}, r"did you mean 'topology.drop_fraction'\?"),
        (["actor=3"], {}, "--set: actor = 3: is a group of keys, such as actor.sparsity"),
        (["nstep=three"], {}, r"nstep = 'three': must be a whole number \(set by --set\)"),
        ([], {"sparsity": 1.5}, r"^sparsity = 1.5: should be less than 1 \(set by --sparsity\)$"),
        ([], {"actor.sparsity": 1}, r"^actor.sparsity = 1: .* \(set by --actor-sparsity\)$"),
    ],
)
def test_wrong_settings_name_key_value_and_place(
    sets: list[str], flags: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        resolve(sets=sets, flags=flags)
