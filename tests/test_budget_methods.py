"""Methods whose budgets move, or whose layers have sparsities of their own: whole runs and keys."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from program_samples import said
from training_samples import SMALL, run, train

from dstrl_cli.cli import main
from dstrl_cli.config import effects
from dstrl_cli.config.identity import sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import Origin
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.nets import choice
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.topology.extensions import check_extensions
from dstrl_cli.topology.moves import Budget

MOVING = ("gmp", "gmp-dst", "granet", "granet-random", "set-dense", "rigl-dense", "ne")
TRAIN = ("train", "--env", "2DNav-v1", "--steps", "500", "--dry-run")


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "topology.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found


# --- whole runs -----------------------------------------------------------------------------------


def test_members_of_every_method_end_with_the_layers_of_a_static_network(tmp_path: Path) -> None:
    sets = ["topology.update_interval=3"]
    paths = train(
        [run(name, seed, sets=sets) for seed, name in enumerate(("sst", *MOVING))], tmp_path
    )
    expected = summary(paths[0])["sparsity"]
    assert expected == {
        "actor": pytest.approx(0.6, abs=0.01),
        "critic": pytest.approx(0.6, abs=0.01),
    }
    for name, path in zip(MOVING, paths[1:], strict=True):
        assert summary(path)["status"] == "finished"
        assert summary(path)["sparsity"] == expected
        by_layer: dict[tuple[str, str], list[int]] = {}
        for row in rows(path):
            layer = by_layer.setdefault((row["network"], row["layer"]), [])
            layer.append(int(row["active"]))
            if layer[1:]:
                grown, dropped = int(row["grown"]), int(row["dropped"])
                assert layer[-1] == layer[-2] - dropped + grown
        sign = 1 if name == "ne" else -1
        for counts in by_layer.values():
            assert all(sign * (after - before) >= 0 for before, after in pairwise(counts))
        assert (sum(int(row["grown"]) for row in rows(path)) == 0) == (name == "gmp")


def test_the_actor_of_td3_moves_at_the_same_environment_steps(tmp_path: Path) -> None:
    sets = ["critic.topology.update_interval=2", "actor.topology.update_interval=1"]
    (path,) = train([run("gmp", sets=sets)], tmp_path)
    at = {
        name: [
            int(row["step"]) for row in rows(path) if (row["network"], row["layer"]) == (name, "0")
        ]
        for name in ("actor", "critic1")
    }
    # 80 updates from step 41 on: 16 to 64 of the critics, 8 to 32 of the actor
    assert at["actor"] == at["critic1"] == list(range(56, 105, 2))


def test_training_flops_add_up_what_was_active_in_every_update(tmp_path: Path) -> None:
    sets = ["topology.update_interval=5", "policy_delay=1"]
    (path,) = train([run("gmp", sets=sets)], tmp_path)
    actor, critics = 2 * 12 + 12 * 12 + 12 * 2, 2 * (4 * 12 + 12 * 12 + 12)
    total, of_dense = 0, 0
    for step in range(41, 121):  # the update after each of these steps, of 16 samples
        # an actor pass and both critics' target, loss and twice that for its gradient; then the
        # actor's loss, its gradient, and a critic
        total += 16 * 2 * (actor + 4 * critics + 3 * actor + critics // 2)
        of_dense += 16 * 2 * (4 * 192 + 4 * 408 + 204)
        changed = [row for row in rows(path) if int(row["step"]) == step]
        if changed:  # counts from the next update on
            actor = sum(int(row["active"]) for row in changed if row["network"] == "actor")
            critics = sum(int(row["active"]) for row in changed if row["network"] != "actor")
    found = summary(path)["flops"]
    assert found["train_total"] == pytest.approx(total)
    assert found["train_ratio"] == pytest.approx(total / of_dense)
    assert found["test"] == 2 * actor
    assert found["test_ratio"] < 0.5 < found["train_ratio"] < 1


def test_noise_is_filtered_in_the_input_layer_alone(tmp_path: Path) -> None:
    config = resolve(
        "anf", sets=[*SMALL, "engine=masked"], flags={"env.id": "2DNav-v1", "steps": 120}
    )
    (path,) = train([config], tmp_path)
    changes = rows(path)
    assert changes
    for row in changes:
        inputs = {"actor": 2, "critic1": 4, "critic2": 4}
        if row["layer"] == "0":
            assert int(row["active"]) < 12 * inputs[row["network"]]
        else:
            assert (row["dropped"], row["grown"]) == ("0", "0")
    stored = summary(path)["sparsity"]
    assert prepare(config, Path("x")).config.actor.sparsity == pytest.approx(
        stored["actor"], abs=1e-3
    )


def test_the_actor_of_rigl_critic_never_changes(tmp_path: Path) -> None:
    config = resolve("rigl-critic", sets=SMALL, flags={"env.id": "2DNav-v1", "steps": 120})
    assert sparsity_label(config) == "s0.6"
    (path,) = train([config.model_copy(update={"engine": "masked"})], tmp_path)
    assert {row["network"] for row in rows(path)} == {"critic1", "critic2"}


# --- planning -------------------------------------------------------------------------------------


def test_auto_chooses_by_the_mean_density() -> None:
    wide = ["hidden_sizes=[2048,2048]"]
    static, pruned = (resolve(name, sets=wide, flags={"sparsity": 0.5}) for name in ("sst", "gmp"))
    assert choice.choose(static, "cpu").engine == "sparse"
    assert choice.choose(pruned, "cpu").engine == "masked"
    # a share of .65 of the way from 1 to .5
    assert choice.density(pruned) == pytest.approx(1 - 0.65 * 0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("method", "key", "reason"),
    [
        ("gmp", "critic.topology.drop_fraction", "topology.schedule is static"),
        ("gmp", "critic.topology.swap_end", "topology.schedule is static"),
        ("gmp", "critic.topology.drop", None),
        ("gmp", "critic.topology.budget_end", None),
        ("gmp", "critic.topology.update_offset", "intervals are counted from budget_start"),
        ("gmp", "critic.initial_mask", "the network starts dense"),
        ("set-dense", "critic.topology.budget_end", "topology.budget is at_once"),
        ("ne", "critic.initial_mask", None),
        ("dst", "critic.topology.budget_end", "topology.budget is constant"),
        ("dst", "critic.topology.swap_start", None),
    ],
)
def test_keys_without_effect_are_said(method: str, key: str, reason: str | None) -> None:
    found = effects.without_effect(resolve(method), {key: Origin(key, "--set")})
    assert (reason is None) == (not found)
    assert reason is None or reason in found[0]


@pytest.mark.parametrize(
    ("method", "sets", "message"),
    [
        ("gmp", ["topology.budget_start=0.9"], "budget_start = 0.9 is after budget_end = 0.8"),
        ("granet", ["topology.swap_start=0.9"], "swap_start = 0.9 is after swap_end = 0.8"),
        (
            "gmp",
            ["initial_sparsity=0.97"],
            "initial_sparsity = 0.97 is above the final sparsity = 0.95",
        ),
        ("gmp", ["initial_sparsity=null"], "topology.budget: cubic needs initial_sparsity"),
        ("gmp", ["topology.schedule=cosine"], "grow: none cannot grow what schedule: cosine drops"),
        ("dst", ["initial_sparsity=0"], "with topology.budget: constant the sparsity stays"),
        ("gmp", ["topology.final_drop=true"], "final_drop = true would end below"),
        ("ne", ["actor.initial_mask=bernoulli"], "initial_mask: bernoulli draws the number"),
        ("dst", ["layers=[0.8,0,0]"], "layers has no effect with allocation: erdos_renyi"),
        ("anf", ["layers=null"], "allocation: layers needs layers"),
        ("gmp", ["topology.budget=cubix"], "unknown budget 'cubix'; did you mean 'cubic'"),
        ("anf", ["layers=[1,0,0]"], "layers"),
        (
            "anf",
            ["sparsity=0.5"],
            r"sparsity = 0.5: the actor's sparsity follows from actor.layers",
        ),
    ],
)
def test_wrong_budgets(method: str, sets: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(method, sets=sets)


def planned(method: str, *sets: str, **flags: Any) -> RunConfig:
    keys = {"env.id": "2DNav-v1", "steps": 500, **flags}
    small = ["learning_starts=100", *sets]
    return prepare(resolve(method, sets=small, flags=keys), Path("x")).config


@pytest.mark.parametrize(
    ("method", "sets", "flags", "message"),
    [
        ("gmp", ("learning_starts=500",), {}, "the run has no updates of it"),
        ("gmp", ("topology.stop_before_end=100",), {}, r"actor\.topology\.stop_before_end = 100"),
        (
            "set-dense",
            ("critic.topology.budget_start=1", "topology.stop_before_end=10"),
            {},
            "budget_start",
        ),
        ("gmp", (), {"episodes": 3}, r"budget_end = 0\.8: .* the last of 3 episodes"),
        (
            "anf",
            ("layers=[0.8,0]",),
            {},
            r"actor\.layers = \[0.8, 0\]: gives 2 sparsities, .* has 3",
        ),
        ("anf", ("hidden_sizes=[8,8,8]",), {}, "gives 3 sparsities, and the network has 4 layers"),
    ],
)
def test_what_would_not_be_met_is_refused(
    method: str, sets: tuple[str, ...], flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        planned(method, *sets, **flags)


def test_what_is_met_is_planned() -> None:
    assert planned("gmp", episodes=5).episodes == 5  # .8 of 5 episodes
    assert planned("gmp", "topology.stop_before_end=80").steps == 500
    assert planned("gmp", "topology.update_interval=100000").steps == 500  # all at the last one
    assert sparsity_label(planned("anf", "hidden_sizes=[40,40]")) == "a0.036-c0.071"
    assert sparsity_label(planned("ne")) == "s0.25"


def test_a_sparsity_beside_that_of_the_layers_is_refused_by_the_program(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--dst", "anf", "--sparsity", "0.9"]) == 2
    assert "sparsity = 0.9: the actor's sparsity follows from actor.layers" in said(capsys)
    assert not list(empty_folder.iterdir())


# --- somebody else's ------------------------------------------------------------------------------


class Halfway(Budget):
    """Half of the way at once, and the rest at the end."""

    def moved(self, progress: float) -> float:
        return 1.0 if progress == 1 else 0.5


class Backwards(Budget):
    """Goes back and forth."""

    def moved(self, progress: float) -> float:
        return 1 - 4 * progress * (1 - progress)


class Short(Budget):
    """Never arrives."""

    def moved(self, progress: float) -> float:
        return progress / 2


class Unmade(Short):
    """Cannot be made."""

    def __init__(self, config: Any) -> None:
        raise KeyError("unmade")


def with_budget(name: str, method: str = "gmp") -> RunConfig:
    config = run(method, sets=[f"topology.budget=test_budget_methods:{name}"])
    check_extensions(config)
    return config


def test_a_way_of_moving_of_somebody_else(tmp_path: Path) -> None:
    (path,) = train([with_budget("Halfway")], tmp_path)
    active = [
        int(r["active"]) for r in rows(path) if (r["network"], r["layer"]) == ("critic1", "1")
    ]
    assert len(set(active)) == 2
    with_budget("Backwards", "granet")  # it may grow
    for name, method, message in (
        ("Backwards", "gmp", "topology.grow is none"),
        ("Short", "gmp", r"would not reach the final sparsity: moved\(1\) must be 1, not 0.5"),
        ("Unmade", "gmp", r"Unmade' failed \(KeyError: 'unmade', test_budget_methods.py:\d+\)"),
        ("TRAIN", "gmp", "must be a subclass of"),
    ):
        with pytest.raises(InputError, match=message):
            with_budget(name, method)
