"""Methods with limits on the inputs of neurons: whole runs, keys, and what is refused or said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from program_samples import said
from resume_samples import copy_while_training, go_on, make_run, numbers
from resume_samples import train as train_one
from safetensors.numpy import load_file
from training_samples import run, train

from dstrl_cli.cli import main
from dstrl_cli.config import effects
from dstrl_cli.config.identity import sparsity_label
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import Origin, from_dict, to_dict
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import InputError
from dstrl_cli.sweep.plan import Axes, expand, prepare

TRAIN = ("train", "--env", "2DNav-v1", "--steps", "500", "--dry-run")
SMALL = ("topology.update_interval=5",)


def rows(path: Path) -> list[dict[str, str]]:
    with (path / "topology.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "summary.json").read_text())
    return found


def last_masks(path: Path, network: str) -> list[np.ndarray[Any, Any]]:
    """Masks [in, out] of a network at the last evaluation, layer by layer."""
    tensors = load_file(path / "policy.safetensors")
    return [tensors[f"{network}.mask.{layer}"] for layer in range(3)]


# --- whole runs -----------------------------------------------------------------------------------


def test_methods_with_limits_train_beside_others(tmp_path: Path) -> None:
    limit = "critic.topology.fan_in=at_most:2x"
    paths = train(
        [
            run("srigl", 0, sets=SMALL),
            run("our-rlx2", 1, sets=(*SMALL, limit)),
            run("rigl", 2, sets=SMALL),
            run("gmp", 3, sets=(*SMALL, "topology.fan_in=constant")),
            run("sst", 4, sets=["topology.fan_in=constant"]),
        ],
        tmp_path,
    )
    for path in paths:
        assert summary(path)["status"] == "finished"
        assert summary(path)["sparsity"]["critic"] == pytest.approx(0.6, abs=0.01)
    srigl, limited, rigl, pruned, static = paths
    for path in (srigl, rigl):  # the same number of connections, layer by layer
        assert len(rows(path)) == len(rows(srigl))
        assert [r["active"] for r in rows(path)] == [r["active"] for r in rows(srigl)]
    for network in ("actor", "critic1", "critic2"):
        for path in (srigl, pruned, static):
            for layer, mask in enumerate(last_masks(path, network)):
                fan_in = mask.sum(0)
                alive = fan_in[fan_in > 0] if path == srigl and layer < 2 else fan_in
                assert alive.max() - alive.min() <= 1
    for mask in last_masks(limited, "critic1"):
        assert mask.shape[1] == 1 or mask.sum(0).max() <= 2 * mask.sum(0).mean()


def test_n_of_m_trains_and_its_label_is_the_realised_sparsity(tmp_path: Path) -> None:
    config = resolve(
        "nm",
        sets=[*SMALL, "hidden_sizes=[12,12]", "batch_size=16", "learning_starts=40"],
        flags={"env.id": "2DNav-v1", "steps": 120, "engine": "masked"},
    )
    (path,) = train([config], tmp_path)
    realised = summary(path)["sparsity"]
    # actor: 2x12 dense, half of 12x12 and 12x2; critics: 4x12 dense, half of 12x12 and 12x1
    expected = (84 / 192, 78 / 204)
    assert (realised["actor"], realised["critic"]) == pytest.approx(expected)
    assert sparsity_label(prepare(config, Path("x")).config) == "a0.438-c0.382"
    for network in ("actor", "critic1", "critic2"):
        first, *others = last_masks(path, network)
        assert first.all()
        for mask in others:
            assert (mask.reshape(-1, 4, mask.shape[1]).sum(1) == 2).all()
    assert sum(int(row["dropped"]) for row in rows(path)) > 0


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_a_killed_run_goes_on_through_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    whole = make_run(tmp_path / "run", "srigl", engine=engine, sets=("checkpoint_every=45",))
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=1000)
    train_one(whole)
    expected, killed = numbers(whole.path), copies()
    assert len(killed) == 2
    for copy in killed:
        go_on(whole, copy)
        assert numbers(copy) == expected


# --- planning -------------------------------------------------------------------------------------


def test_srigl_is_rigl_but_for_its_limit() -> None:
    srigl, rigl = to_dict(resolve("srigl")), to_dict(resolve("rigl"))
    for role in ("actor", "critic"):
        own = srigl[role]["topology"], rigl[role]["topology"]
        differing = {key for key in own[0] if own[0][key] != own[1][key]}
        assert differing == {"fan_in", "ablate_below"}


def planned(method: str, *sets: str, **flags: Any) -> RunConfig:
    keys = {"env.id": "2DNav-v1", "steps": 500, **flags}
    sets = ("learning_starts=100", *sets)
    return prepare(resolve(method, sets=sets, flags=keys), Path("x")).config


@pytest.mark.parametrize(
    ("method", "sets", "message"),
    [
        (
            "dst",
            ["topology.fan_in=even"],
            "topology.fan_in = 'even': must be free, constant, at_most:K",
        ),
        ("dst", ["topology.fan_in=at_most:0"], "must be free, constant, at_most:K"),
        ("dst", ["topology.ablate_below=0.3"], r"ablate_below = 0\.3 needs fan_in: constant"),
        (
            "srigl",
            ["topology.ablate_below=1.5"],
            r"ablate_below = 1\.5 is neither .*; write a whole number from 1 on, or a share below",
        ),
        ("dst", ["topology.n_of_m=5:4"], "'5:4' must be N:M, as in 2:4"),
        ("dst", ["topology.n_of_m=[]"], "must hold at least one N:M"),
        (
            "dst",
            ["topology.n_of_m=3"],
            r"^topology\.n_of_m = 3: must be N:M, as in 2:4, or a list .* \(set by --set\)$",
        ),
        ("dst", ["topology.n_of_m=[2:4,3]"], r"^topology\.n_of_m = \['2:4', 3\]: must be N:M"),
        ("srigl", ["topology.n_of_m=2:4"], "gives every neuron its number of inputs already"),
        ("gmp", ["topology.n_of_m=2:4"], "keeps the number of connections, which budget: cubic"),
        ("dst", ["topology.n_of_m=2:4", "topology.final_drop=true"], "which final_drop: true"),
        ("anf", ["topology.n_of_m=2:4"], r"n_of_m = 2:4 and layers both fix the sparsity"),
        (
            "sst",
            ["topology.n_of_m=2:4", "actor.initial_mask=bernoulli"],
            "initial_mask: bernoulli draws the number of connections, which topology.n_of_m = 2:4",
        ),
        ("nm", ["sparsity=0.5"], r"sparsity = 0\.5: the actor's .* actor\.topology\.n_of_m; leave"),
        (
            "nm",
            ["critic.sparsity=0.95"],
            r"critic\.sparsity = 0\.95: the critic's sparsity follows",
        ),
    ],
)
def test_limits_that_contradict_something(method: str, sets: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve(method, sets=sets)


@pytest.mark.parametrize(
    ("method", "sets", "message"),
    [
        # critics of 4-256-256-1 at 90 %: 1,600 + 4,891 + 256 connections; 4,891 / 256 = 19.1
        (
            "dst",
            ("sparsity=0.9", "critic.topology.fan_in=at_most:18"),
            r"critic\.topology\.fan_in = 'at_most:18': layer 1 \(256x256\) .* set at_most:\d+ or",
        ),
        # on its way from dense, a layer has nearly all connections
        ("gmp", ("topology.fan_in=at_most:64",), r"has up to 65,535 connections, .* at_most:256"),
        (
            "nm",
            ("topology.n_of_m=2:4",),
            r"actor\.topology\.n_of_m = 2:4: layer 0 has 2 inputs, which 4 does not divide; leave "
            r"it dense, with actor\.topology\.n_of_m=\[1:1, 2:4, 2:4\], or choose another N:M",
        ),
        ("nm", ("hidden_sizes=[254,256]",), r"layer 1 has 254 inputs, which 4 does not divide"),
        (
            "nm",
            ("hidden_sizes=[8,8,8]",),
            r"\[1:1, 2:4, 2:4\]: gives 3 layers, and the network has 4",
        ),
    ],
)
def test_limits_that_a_layer_cannot_meet(method: str, sets: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        planned(method, *sets)


def test_limits_that_every_layer_meets() -> None:
    planned("gmp", "topology.fan_in=at_most:2x")
    planned("gmp", "topology.fan_in=constant")
    planned("set-dense", "topology.fan_in=at_most:20")  # from dense to its last budget at once
    config = planned("rigl", "critic.topology.n_of_m=1:2", "actor.sparsity=0.7")
    assert sparsity_label(config) == "a0.7-c0.5"
    assert sparsity_label(planned("nm", "hidden_sizes=[40,40]")) == "a0.477-c0.456"
    again = from_dict(to_dict(planned("nm")))
    assert again.actor.topology.n_of_m == ("1:1", "2:4", "2:4")


def test_what_the_plan_says_of_limits() -> None:
    (run,) = expand(
        Axes(methods=["sst"], envs=["2DNav-v1"], sparsities=[0.9]),
        sets=["steps=500", "topology.fan_in=at_most:150", "hidden_sizes=[256,8]"],
    )
    # the actor's last layer, 8x2, is fully dense at 90 %, but 150 is more than it has inputs
    assert not [note for note in run.notes if "fan_in" in note]
    (run,) = expand(
        Axes(methods=["anf"], envs=["2DNav-v1"]),
        sets=["steps=500", "topology.fan_in=at_most:100"],
    )
    assert [note for note in run.notes if "fan_in" in note] == [
        "fan_in at_most:100 leaves out what is fully dense: layers 1, 2 are, in the actor",
        "fan_in at_most:100 leaves out what is fully dense: layer 1 is, in the critics",
    ]


@pytest.mark.parametrize(
    ("method", "key", "reason"),
    [
        ("sst", "critic.topology.fan_in", None),
        ("nm", "critic.topology.n_of_m", None),
        ("nm", "critic.allocation", "topology.n_of_m gives every layer its sparsity"),
        ("srigl", "critic.topology.ablate_below", None),
        ("dense", "critic.topology.fan_in", "all connections are active"),
    ],
)
def test_keys_without_effect_are_said(method: str, key: str, reason: str | None) -> None:
    found = effects.without_effect(resolve(method), {key: Origin(key, "--set")})
    assert (reason is None) == (not found)
    assert reason is None or reason in found[0]


def test_the_program_refuses_what_cannot_be(
    empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--dst", "nm", "--sparsity", "0.95"]) == 2
    refused = said(capsys)
    assert "--sparsity" in refused
    assert "follows from actor.topology.n_of_m" in refused
    assert not list(empty_folder.iterdir())
