"""What is logged of neurons: hand-worked wiring and shares, and what does not depend on it."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from population_samples import build, population, replay_of
from resume_samples import StopAt, copy_while_training, go_on, make_run, numbers, stop_at_check
from resume_samples import train as train_one
from training_samples import run, train

from dstrl_cli.nets.neurons import (
    activity,
    effective_rank,
    layer_outputs,
    saturated_share,
    wiring,
)
from dstrl_cli.runs.policy import read
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.training.neurons import NeuronWatch, stored_inputs


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "neurons.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- the numbers --------------------------------------------------------------------------------


def test_wiring_of_a_network_by_hand():
    first = torch.tensor([[1, 0, 1], [1, 0, 0]])  # units have 2, 0 and 1 inputs
    second = torch.tensor([[1, 1], [1, 1], [0, 0]])  # the third unit has no output
    found = wiring([first, second])
    assert (found[0].units, found[0].no_input, found[0].no_output) == (3, 1, 1)
    assert (found[0].max_fan_in, found[0].paths) == (2, 3)  # one path for every connection
    # to each of the two outputs: two paths by the first unit, none by the second
    assert (found[1].units, found[1].no_input, found[1].no_output) == (2, 0, None)
    assert (found[1].max_fan_in, found[1].paths) == (2, 4)


def test_paths_are_counted_beyond_what_whole_numbers_of_64_bits_hold():
    masks = [torch.ones(1000, 1000, dtype=torch.uint8)] * 7
    assert wiring(masks)[-1].paths == pytest.approx(1e24)


def test_the_dormant_share_is_that_of_a_loop():
    generator = np.random.default_rng(0)
    weights = [generator.normal(size=shape).astype(np.float32) for shape in ((4, 9), (9, 7))]
    biases = [generator.normal(size=n).astype(np.float32) - np.float32(1.5) for n in (9, 7)]
    inputs = generator.normal(size=(20, 4)).astype(np.float32)
    hidden = layer_outputs(
        [torch.from_numpy(w) for w in weights],
        [torch.from_numpy(b) for b in biases],
        torch.from_numpy(inputs),
    )[0]
    means = []
    for unit in range(9):
        total = 0.0
        for row in inputs:
            total += max(0.0, float(row @ weights[0][:, unit] + biases[0][unit]))
        means.append(total / 20)
    scores = [mean / (sum(means) / 9 + 1e-9) for mean in means]
    np.testing.assert_allclose(activity(hidden).numpy(), scores, rtol=1e-5)
    for threshold in (0.0, 0.1, 0.5):
        expected = sum(score <= threshold for score in scores)
        assert int((activity(hidden) <= threshold).sum()) == expected


def test_a_layer_that_is_silent_is_dormant_throughout():
    assert (activity(torch.zeros(5, 3)) == 0).all()


def test_effective_rank_by_hand():
    # singular values 98, 1.5, 0.5 make 0.98, 0.995 and all of the sum
    rotated = torch.linalg.qr(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))[0]
    assert effective_rank(rotated * torch.tensor([98.0, 1.5, 0.5])) == 2
    assert effective_rank(rotated * torch.tensor([50.0, 48.0, 2.0])) == 3
    assert effective_rank((rotated * torch.tensor([50.0, 48.0, 2.0])).T) == 3
    assert effective_rank(torch.ones(6, 4)) == 1
    assert effective_rank(torch.zeros(6, 4)) == 0


def test_saturated_share_by_hand():
    assert saturated_share(torch.tensor([[0.991, -0.995], [0.99, 0.2]])) == 0.5


# --- in runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_every_network_and_layer_has_a_row_at_every_evaluation(tmp_path, engine):
    config = run("rlx2").model_copy(update={"engine": engine})
    (folder,) = train([config], tmp_path)
    found = rows(folder)
    keys = [(row["step"], row["network"], row["layer"]) for row in found]
    assert keys == [
        (step, network, layer)
        for step in ("0", "50", "100", "120")
        for network in ("actor", "critic1", "critic2")
        for layer in "012"
    ]
    at_end = {(row["network"], row["layer"]): row for row in found[-9:]}
    tensors = read(folder / "policy.safetensors")[0]
    for (network, layer), row in at_end.items():
        mask = tensors[f"{network}.mask.{layer}"]
        assert int(row["units"]) == mask.shape[1]
        assert int(row["max_fan_in"]) == mask.sum(0).max()
        assert int(row["no_input"]) == (mask.sum(0) == 0).sum()
        assert (row["dormant"] == "") == (layer == "2")
        assert (row["rank"] == "") == (layer != "1")
        assert (row["saturated"] == "") == ((network, layer) != ("actor", "2"))
    paths = np.ones(2) @ tensors["actor.mask.0"] @ tensors["actor.mask.1"]
    assert int(at_end["actor", "1"]["paths"]) == paths.sum()


def test_before_anything_is_stored_only_the_wiring_is_known(tmp_path):
    (folder,) = train([run("sst")], tmp_path)
    for row in rows(folder)[:9]:
        assert row["step"] == "0"
        assert row["dormant"] == row["rank"] == row["saturated"] == ""
        assert row["paths"] != ""


def test_engines_log_the_same_wiring(tmp_path):
    configs = [run("sst").model_copy(update={"engine": each}) for each in ("masked", "sparse")]
    names = ("units", "no_input", "no_output", "max_fan_in", "paths")
    found = [
        [[row[name] for name in names] for row in rows(train([config], tmp_path / str(n))[0])]
        for n, config in enumerate(configs)
    ]
    assert found[0] == found[1]


def test_a_member_is_watched_as_if_it_trained_alone(tmp_path):
    together = train([run("rlx2", 0), run("sst", 1)], tmp_path / "both")
    (alone,) = train([run("sst", 1)], tmp_path / "one")
    theirs, own = rows(together[1]), rows(alone)
    assert [row["paths"] for row in theirs] == [row["paths"] for row in own]
    for name in ("dormant", "saturated"):
        both = [[float(row[name]) for row in each if row[name]] for each in (theirs, own)]
        np.testing.assert_allclose(*both, atol=0.1)  # a unit may be just above or below


def test_the_threshold_is_the_runs_own(tmp_path):
    configs = [run("sst").model_copy(update={"dormant_threshold": value}) for value in (0.0, 100.0)]
    low, high = map(rows, train(configs, tmp_path))
    assert all(float(row["dormant"]) == 1.0 for row in high if row["dormant"])
    assert any(float(row["dormant"]) < 1.0 for row in low if row["dormant"])


def test_a_run_killed_at_any_moment_ends_with_the_same_neurons(tmp_path, monkeypatch):
    sets = (
        *("checkpoint_every=30", "env.noise_features=0.5"),
        *("redo_interval=9", "redo_threshold=0.5"),
    )
    planned = make_run(tmp_path / "run", "rlx2", engine="sparse", env="2DNav-v1", sets=sets)
    copies = copy_while_training(monkeypatch, tmp_path / "killed", every=50)
    assert train_one(planned)["status"] == "finished"
    expected, killed = numbers(planned.path), copies()
    assert len(killed) >= 3
    for copy in killed:
        go_on(planned, copy)
        assert numbers(copy) == expected, copy.name


# --- the warning --------------------------------------------------------------------------------


def saturated(share: float) -> list[dict[str, float]]:
    return [{"layer": 0}, {"layer": 1, "saturated": share}]


def test_saturation_is_told_once_after_two_evaluations_in_a_row():
    watch = NeuronWatch(build(population("td3")[:1]))
    shares = [0.95, 0.5, 0.95, 0.95, 0.95, 0.1, 0.95, 0.95]
    told = [watch.warning(0, saturated(share)) for share in shares]
    assert [text is not None for text in told] == [n == 3 for n in range(8)]
    assert told[3] is not None
    assert told[3].startswith("95% of the actor's actions are saturated")


def test_saturation_is_told_in_the_summary_of_a_run_that_went_on_in_between(tmp_path, monkeypatch):
    planned = make_run(tmp_path / "run", "sst", sets=("checkpoint_every=50", "learning_starts=10"))

    def all_saturated(actions: torch.Tensor) -> float:
        return 0.97

    monkeypatch.setattr("dstrl_cli.training.neurons.saturated_share", all_saturated)
    said = StopAt(70, lambda: stop_at_check(monkeypatch, 1))
    with pytest.raises(KeyboardInterrupt):
        train_one(planned, said)
    assert not any("saturated" in line for line in said.lines)
    again = StopAt(math.inf, lambda: None)
    summary = go_on(planned, planned.path, again)
    assert sum("97% of the actor's actions are saturated" in line for line in again.lines) == 1
    assert any("saturated" in note for note in summary["notes"])
    assert read_summary(planned.path) == summary


# --- what it does not change --------------------------------------------------------------------


def test_watching_draws_from_a_stream_of_its_own_and_changes_no_number(tmp_path, monkeypatch):
    paths = train([run("our-rlx2")], tmp_path / "watched")
    monkeypatch.setattr(
        "dstrl_cli.training.trainer.stored_inputs", lambda replay, seeds, step: None
    )
    others = train([run("our-rlx2")], tmp_path / "unwatched")
    for name in ("eval.csv", "episodes.csv", "topology.csv", "hashes.csv"):
        assert (paths[0] / name).read_bytes() == (others[0] / name).read_bytes()


def test_the_batch_follows_from_seed_and_step():
    runs = population("td3")[:2]
    replay, seeds = replay_of(runs), [each.seed for each in runs]
    first, again, later = (stored_inputs(replay, seeds, step) for step in (5, 5, 6))
    assert first is not None
    assert again is not None
    assert later is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    alone = stored_inputs(replay_of(runs[1:]), seeds[1:], 5)
    assert alone is not None
    assert torch.equal(first[1], alone[0])
