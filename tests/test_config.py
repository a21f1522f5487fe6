"""The configuration of one run: values, messages, identity, folders and layer sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dstrl_cli.config.identity import differences, identity, run_path, sparsity_label
from dstrl_cli.config.keys import keys
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.network_sizes import network_sizes, resolve_sizes
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.sizes import lambda_sparsity, layer_weights, matched_widths
from dstrl_cli.config.starts import PLACES
from dstrl_cli.errors import InputError


def make(**changes: Any) -> RunConfig:
    """Return a TD3 run on HalfCheetah at sparsity 0.95, with changes."""
    networks = {"actor": {"sparsity": 0.95}, "critic": {"sparsity": 0.95}}
    base = {"algo": "td3", "method": "rlx2", "env": "HalfCheetah-v5", **networks}
    return from_dict(base | changes)


def message(**changes: Any) -> str:
    with pytest.raises(InputError) as error:
        make(**changes)
    return str(error.value)


# --- values ---


def test_numbers_are_read_generously() -> None:
    config = make(steps="1e6", batch_size=64.0, learning_rate="3e-4", hidden_sizes="64, 32")
    assert (config.steps, config.batch_size, config.learning_rate) == (1_000_000, 64, 3e-4)
    assert config.hidden_sizes == (64, 32)
    assert make(hidden_sizes=16).hidden_sizes == (16,)
    assert make(seed="9007199254740993").seed == 2**53 + 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"steps": "1e10"}, "steps = '1e10': should be less than or equal to 1000000000"),
        ({"steps": 0}, "steps = 0: should be greater than or equal to 1"),
        ({"batch_size": 1.5}, "batch_size = 1.5: must be a whole number"),
        ({"log_std_bounds": 3}, "log_std_bounds = 3: must be two numbers"),
        ({"nstep": 21}, "nstep = 21: should be less than or equal to 20"),
        ({"nstep": True}, "nstep = True: must be a whole number, not true or false"),
        ({"tau": True}, "tau = True: must be a number, not true or false"),
        ({"gamma": "nan"}, "gamma = 'nan': should be a finite number"),
        ({"algo": "tD3"}, "algo = 'tD3': unknown algorithm 'tD3'; did you mean 'td3'?"),
        ({"device": "gpu"}, "device = 'gpu': must be auto, cpu, cuda or cuda:N"),
        ({"actor": {"sparsity": 1}}, "actor.sparsity = 1: should be less than 1"),
        ({"critic": {"sparsity": -0.1}}, "critic.sparsity = -0.1: should be greater than"),
        ({"env": {"id": "A", "task": 10}}, "env.task = 10: should be less than or equal to 9"),
        (
            {"actor": {"topology": {"drop": "magnitud"}}},
            "actor.topology.drop = 'magnitud': unknown drop score 'magnitud'; "
            "did you mean 'magnitude'? Valid: drawn_importance, importance, magnitude, sign",
        ),
        (
            {"critic": {"topology": {"schedule": "linear"}}},
            "critic.topology.schedule = 'linear': unknown schedule 'linear'; did you mean",
        ),
        ({"log_std_bounds": [2, -5]}, "log_std_bounds: [2, -5] must be ordered"),
        ({"critic": {"allocation": "lambda"}}, "critic: allocation: lambda needs lambdas"),
        ({"critic": {"lambdas": [7, 64]}}, "critic: lambdas has no effect with allocation"),
        ({"nstepp": 3}, "unknown key 'nstepp'; did you mean 'nstep'?"),
        (
            {"actor": {"topology": {"intervall": 3}}},
            "unknown key 'actor.topology.intervall'; did you mean 'actor.topology.update_interval'",
        ),
    ],
)
def test_wrong_values_name_key_value_and_remedy(changes: dict[str, Any], expected: str) -> None:
    assert expected in message(**changes)


def test_all_complaints_come_in_one_message() -> None:
    assert message(steps=0, tau=2).splitlines() == [
        "steps = 0: should be greater than or equal to 1",
        "tau = 2: should be less than or equal to 1",
    ]


def test_a_warm_up_longer_than_the_run_is_allowed() -> None:
    assert make(steps=100, learning_starts=1000).learning_starts == 1000


# --- plain dicts and identity ---


def test_yaml_round_trip_ignores_the_run_block() -> None:
    config = make(critic={"allocation": "lambda", "lambdas": [7, 64]}, target_entropy=-3)
    text = yaml.safe_dump({**to_dict(config), "run": {"python": "3.11", "device": "cpu"}})
    assert from_dict(yaml.safe_load(text)) == config


def test_keys_are_those_of_a_plain_dict() -> None:
    assert "critic.topology.update_interval" in keys()
    assert set(identity(make())) == set(keys()) - {
        "env.kwargs",  # a group of keys, empty here
        "out",
        "device",
        "engine",
        "threads",
        "checkpoint_every",
        "keep_checkpoint",
        "env_workers",
        "env.timeout",
        "replay_device",
        "compile",
        "tensorboard",
        "wandb",
        "metric",
        "method_label",
        "method_order",
        *PLACES,
    }


def test_differences_name_keys_that_change_numbers_only() -> None:
    a = make()
    assert differences(a, make(device="cpu", out="elsewhere", threads=4)) == []
    assert differences(a, make(nstep=3, seed=2)) == ["seed: 0 -> 2", "nstep: 1 -> 3"]
    assert differences(make(env="dstrl/Ant-v3"), make(env="Ant-v3")) == []


def test_a_dense_network_has_no_sparsity() -> None:
    dense = {"dense": True, "sparsity": 0.95}
    assert make(actor=dense, critic=dense) == make(actor={"dense": True}, critic={"dense": True})


# --- folders ---


@pytest.mark.parametrize(
    ("actor", "critic", "label"),
    [
        ({"sparsity": 0.95}, {"sparsity": 0.95}, "s0.95"),
        ({"sparsity": 0.90}, {"sparsity": 0.9}, "s0.9"),
        ({"sparsity": 0.96}, {"sparsity": 0.88}, "a0.96-c0.88"),
        ({"dense": True}, {"dense": True}, "s0"),
        ({"dense": True}, {"sparsity": 0.9}, "a0-c0.9"),
        ({"match_parameters": True, "sparsity": 0.9}, {"sparsity": 0.9}, "s0.9"),
    ],
)
def test_sparsity_label(actor: dict[str, Any], critic: dict[str, Any], label: str) -> None:
    assert sparsity_label(make(actor=actor, critic=critic)) == label


def test_run_path() -> None:
    assert run_path(make(seed=3)) == Path("HalfCheetah-v5/td3-rlx2/s0.95/seed3")
    navigation = make(env={"id": "dstrl/2DNav-v1"}, method="our-rlx2")
    suffixed = run_path(navigation, "+nstep5", with_task=True)
    assert suffixed == Path("2DNav-v1.task0/td3-our-rlx2+nstep5/s0.95/seed0")
    third = make(env={"id": "2DNav-v1", "task": 3})
    assert run_path(third) == Path("2DNav-v1.task3/td3-rlx2/s0.95/seed0")


# --- sizes ---


def test_network_sizes() -> None:
    assert network_sizes(make(), 17, 6) == ((17, 256, 256, 6), (23, 256, 256, 1))
    assert network_sizes(make(algo="sac"), 17, 6)[0] == (17, 256, 256, 12)
    own = make(actor={"hidden_sizes": [8]}, hidden_sizes=[32, 16])
    assert network_sizes(own, 3, 1) == ((3, 8, 1), (4, 32, 16, 1))


def test_matched_widths_by_hand() -> None:
    # 4 w + w^2 + 2 w: 16 at w = 2, 27 at w = 3
    assert matched_widths(4, 2, (8, 8), 21) == (2, 2)
    assert matched_widths(4, 2, (8, 8), 22) == (3, 3)
    # 4 * 2w + 2w * w + 2 w, the ratio 2:1 kept: 12 for (2, 1), 28 for (4, 2)
    assert matched_widths(4, 2, (8, 4), 12) == (2, 1)
    assert matched_widths(4, 2, (8, 4), 28) == (4, 2)
    assert matched_widths(4, 2, (8, 8), 4 * 8 + 64 + 16) == (8, 8)


def test_a_budget_below_one_unit_per_layer_is_refused() -> None:
    assert matched_widths(4, 2, (8, 8), 7) == (1, 1)
    with pytest.raises(InputError, match="one unit per hidden layer already has 7"):
        matched_widths(4, 2, (8, 8), 6)
    tiny = make(actor={"match_parameters": True, "sparsity": 0.9999})
    with pytest.raises(InputError, match=r"^actor.sparsity = 0.9999: .* choose a lower sparsity"):
        resolve_sizes(tiny, 17, 6)


@given(
    st.integers(1, 120),
    st.integers(1, 20),
    st.sampled_from([(256, 256), (64, 32), (8,), (16, 16, 16)]),
    st.floats(0.0, 0.9),
)
def test_matched_widths_are_the_nearest(
    inputs: int, outputs: int, hidden: tuple[int, ...], sparsity: float
) -> None:
    dense = sum(layer_weights([inputs, *hidden, outputs]))
    target = round((1 - sparsity) * dense)
    if target < sum(layer_weights([inputs, *(1 for _ in hidden), outputs])):
        return
    widths = matched_widths(inputs, outputs, hidden, target)
    error = abs(sum(layer_weights([inputs, *widths, outputs])) - target)
    for change in (-1, 1):
        largest = max(widths) + change
        near = [max(1, round(size * largest / max(hidden))) for size in hidden]
        if 1 <= largest <= max(hidden):
            assert error <= abs(sum(layer_weights([inputs, *near, outputs])) - target)


def test_tiny_at_the_published_size() -> None:
    # HalfCheetah TD3 at 0.95: actor 71424 weights -> 3571, 23 w + w^2 = 3528 at 49;
    # critic 71680 -> 3584, 24 w + w^2 = 3577 at 49
    matched = {"match_parameters": True, "sparsity": 0.95}
    config = make(actor=matched, critic=matched)
    assert network_sizes(config, 17, 6) == ((17, 49, 49, 6), (23, 49, 49, 1))
    once = resolve_sizes(config, 17, 6)
    assert resolve_sizes(once, 17, 6) == once
    assert sparsity_label(once) == "s0.95"


def test_lambdas_become_a_sparsity() -> None:
    # HalfCheetah actor: 7 * 273 + 64 * 512 + 1536 = 36215 of 71424 expected active
    assert lambda_sparsity([17, 256, 256, 6], [7, 64]) == round(1 - 36215 / 71424, 3)
    assert lambda_sparsity([1, 2, 1], [100]) == 0.0  # a chance is at most 1
    network = {"allocation": "lambda", "lambdas": [7, 64], "sparsity": 0.95}
    config = make(actor=network, critic=network)
    once = resolve_sizes(config, 17, 6)
    assert sparsity_label(once) == "a0.493-c0.512"
    assert resolve_sizes(once, 17, 6) == once
    with pytest.raises(InputError, match="4 lambdas are given for 3 layers"):
        resolve_sizes(make(actor=network | {"lambdas": [1, 2, 3, 4]}), 17, 6)


@pytest.mark.parametrize("key", ["drop", "grow"])
def test_importance_is_refused_for_an_actor(key: str) -> None:
    with pytest.raises(InputError, match=f"set critic.topology.{key} instead"):
        make(actor={"topology": {key: "importance"}})


def test_configurations_load_without_torch_and_gymnasium() -> None:
    code = (
        "import sys, dstrl_cli.config.resolving as p; p.resolve(); "
        "sys.exit(bool({'torch', 'gymnasium'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=root).returncode == 0


@pytest.mark.parametrize("value", [-1, "many", 1.5, True, None])
def test_workers_are_auto_or_a_count(value: object) -> None:
    assert make(env_workers="auto").env_workers == "auto"
    assert make(env_workers="3").env_workers == 3
    with pytest.raises(InputError, match=r"^env_workers = .*must be auto, or a whole number from"):
        make(env_workers=value)
