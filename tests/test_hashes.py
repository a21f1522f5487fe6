"""Digests of networks: equal where numbers and masks are, whoever stored them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from policy_samples import actor
from training_samples import run, train

from dstrl_cli.runs.hashes import hash_rows

NETWORKS = {"actor": ["actor"]}


def row(tensors: dict[str, np.ndarray]) -> dict[str, object]:
    (found,) = hash_rows(7, tensors, NETWORKS)
    return found


def test_a_digest_is_that_of_shapes_and_numbers() -> None:
    tensors = actor()
    weights, masks = (hashlib.blake2b(digest_size=16) for _ in range(2))
    for kind, digest, dtype in (("weight", weights, "<f4"), ("bias", weights, "<f4")):
        for layer in range(2):
            array = tensors[f"actor.{kind}.{layer}"]
            digest.update(f"{dtype}{array.shape}".encode() + array.tobytes())
    for layer in range(2):
        array = tensors[f"actor.mask.{layer}"]
        masks.update(f"|u1{array.shape}".encode() + array.tobytes())
    assert row(tensors) == {
        "step": 7,
        "network": "actor",
        "weights": weights.hexdigest(),
        "masks": masks.hexdigest(),
    }


def test_a_zero_has_no_sign() -> None:
    signed = actor()
    assert signed["actor.bias.0"][1] == 0
    signed["actor.bias.0"][1] = -0.0
    assert row(signed) == row(actor())


def one_weight(tensors: dict[str, np.ndarray]) -> None:
    tensors["actor.weight.1"][0, 0] = np.nextafter(tensors["actor.weight.1"][0, 0], np.float32(9))


def one_bias(tensors: dict[str, np.ndarray]) -> None:
    tensors["actor.bias.1"][0] = np.nextafter(tensors["actor.bias.1"][0], np.float32(9))


def one_connection(tensors: dict[str, np.ndarray]) -> None:
    tensors["actor.mask.0"][0, 1] ^= 1


@pytest.mark.parametrize(
    ("change", "column"),
    [(one_weight, "weights"), (one_bias, "weights"), (one_connection, "masks")],
)
def test_the_smallest_change_changes_its_digest_alone(
    change: Callable[[dict[str, np.ndarray]], None], column: str
) -> None:
    changed, before = actor(), row(actor())
    change(changed)
    after = row(changed)
    assert {name for name in before if before[name] != after[name]} == {column}


def test_the_heads_of_a_network_are_not_interchangeable() -> None:
    one, other = actor(), actor()
    one_weight(other)
    heads = {"critic": ["critic1", "critic2"]}

    def of(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> list[dict[str, object]]:
        names = ("critic1", first), ("critic2", second)
        return hash_rows(
            0, {k.replace("actor", n): v for n, t in names for k, v in t.items()}, heads
        )

    assert of(one, other) != of(other, one)


def test_every_evaluation_logs_a_row_for_each_network(tmp_path: Path) -> None:
    (folder,) = train([run("our-rlx2")], tmp_path)
    rows = pd.read_csv(folder / "hashes.csv")
    expected = [(step, name) for step in (0, 50, 100, 120) for name in ("actor", "critic")]
    assert list(zip(rows["step"], rows["network"], strict=True)) == expected
    critics = rows[rows["network"] == "critic"]
    assert critics["weights"].nunique() == 4
    assert critics["masks"].nunique() > 1


def test_both_engines_log_the_same_digests_of_untrained_networks(tmp_path: Path) -> None:
    found = []
    for engine in ("masked", "sparse"):
        config = run("rlx2").model_copy(update={"engine": engine, "steps": 1})
        (folder,) = train([config], tmp_path / engine)
        found.append((folder / "hashes.csv").read_text())
    assert found[0] == found[1]
