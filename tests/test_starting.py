"""Runs that start from another run's masks and weights, and what such runs are called."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from training_samples import SMALL, run, train

from dstrl_cli.config.identity import run_path, source_kind
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.resolving import resolve
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report.runs import load
from dstrl_cli.runs.folder import read_config
from dstrl_cli.runs.policy import Tensors, read
from dstrl_cli.sweep.plan import Axes, expand, prepare
from dstrl_cli.topology.initial.dense import dense_mask
from dstrl_cli.training.verify import verify


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A run whose topology moved away from where it began."""
    (folder,) = train([run("rlx2", seed=3)], tmp_path_factory.mktemp("source"))
    place = folder.parent / run_path(read_config(folder))
    place.parent.mkdir(parents=True)
    return folder.rename(place)


def started(folder: Path | str, what: str = "mask", **changes: object) -> RunConfig:
    names = {"mask": ["init_mask_from"], "weights": ["init_weights_from"]}
    both = names.get(what) or [*names["mask"], *names["weights"]]
    config = run("sst", sets=[f"{name}={folder}" for name in both])
    return prepare(config.model_copy(update=changes), Path("run")).config


def initial(config: RunConfig, tmp_path: Path) -> Tensors:
    (folder,) = train([config], tmp_path)
    return read(folder / "initial.safetensors")[0]


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_a_ticket_has_the_last_masks_and_the_weights_that_were_drawn_first(
    source, tmp_path, engine
):
    found = initial(started(source, "both", engine=engine), tmp_path)
    first, last = (read(source / f"{name}.safetensors")[0] for name in ("initial", "policy"))
    for name in (each for each in found if ".mask." in each):
        weight = name.replace("mask", "weight")
        old, new = first[name] != 0, last[name] != 0
        np.testing.assert_array_equal(found[name] != 0, new)
        np.testing.assert_array_equal(found[weight][old & new], first[weight][old & new])
        # also of connections that the first mask lacked, whose weights its file does not hold
        assert (found[weight][new & ~old] != 0).all()
        assert not found[weight][~new].any()
        bias = name.replace("mask", "bias")
        np.testing.assert_array_equal(found[bias], first[bias])


def test_masks_alone_come_with_weights_of_the_runs_own_seed(source, tmp_path):
    found = initial(started(source), tmp_path / "a")
    own = initial(run("dense", sets=["topology.update_interval=10"]), tmp_path / "b")
    for layer in range(3):
        mask = found[f"actor.mask.{layer}"] != 0
        expected = own[f"actor.weight.{layer}"] * mask
        np.testing.assert_array_equal(found[f"actor.weight.{layer}"], expected)


@pytest.mark.parametrize("engine", ["masked", "sparse"])
def test_fresh_weights_are_not_those_of_the_run_with_the_same_seed(source, tmp_path, engine):
    sets = [f"init_mask_from={source}", "init_weights_from=fresh"]
    config = prepare(run("sst", seed=3, sets=sets), Path("run")).config
    assert run_path(config).parts[1] == "td3-sst+mask-rlx2+weights-fresh"
    found = initial(config.model_copy(update={"engine": engine}), tmp_path)
    first, last = (read(source / f"{name}.safetensors")[0] for name in ("initial", "policy"))
    for name in (each for each in found if ".mask." in each):
        weight = name.replace("mask", "weight")
        np.testing.assert_array_equal(found[name], last[name])
        both = (first[name] != 0) & (last[name] != 0)
        assert (found[weight][both] != first[weight][both]).all()


def test_a_policy_file_outside_a_run_gives_the_weights_that_it_holds(source, tmp_path):
    file = tmp_path / "policy.safetensors"
    shutil.copy(source / file.name, file)
    config = started(file, "both")
    assert config.init_weights_source is not None
    found, held = initial(config, tmp_path), read(file)[0]
    assert found.keys() == held.keys()
    for name, array in held.items():
        np.testing.assert_array_equal(found[name], array)
    assert run_path(config).parts[1].startswith("td3-sst+mask-td3-dstrl-2DNav-v1-120-")


def test_a_ticket_of_a_ticket_has_the_weights_of_the_first_run(source, tmp_path):
    (second,) = train([started(source, "both")], tmp_path / "second")
    found = initial(started(second, "both"), tmp_path / "third")
    first = read(second / "initial.safetensors")[0]
    np.testing.assert_array_equal(found["actor.weight.1"], first["actor.weight.1"])


def test_the_folder_names_what_a_run_started_from(source):
    assert run_path(started(source)).parts[1] == "td3-sst+mask-rlx2.seed3"
    assert run_path(started(source, seed=3)).parts[1] == "td3-sst+mask-rlx2"
    best = started(source / "best.safetensors", "both", seed=3)
    assert run_path(best).parts[1] == "td3-sst+mask-rlx2.best+weights-rlx2.best"


def test_the_source_is_the_run_and_the_checksum_of_its_file(source):
    config = started(source)
    run_of, _, checksum = str(config.init_mask_source).partition("@")
    assert run_of == "2DNav-v1/td3-rlx2/s0.6/seed3/policy.safetensors"
    assert len(checksum) == 64
    assert source_kind(str(config.init_mask_source)) == "2DNav-v1/td3/rlx2/s0.6/policy.safetensors"


def test_the_sparsity_is_that_of_the_masks(source):
    config = run("sst", sets=[f"init_mask_from={source}"])
    asked = config.model_copy(
        update={
            role: getattr(config, role).model_copy(update={"sparsity": 0.9})
            for role in ("actor", "critic")
        }
    )
    found = prepare(asked, Path("run")).config
    assert (found.actor.sparsity, found.critic.sparsity) == (0.6, 0.6)
    assert prepare(found, Path("run")).config == found  # as when it is resumed


def test_the_sparsity_of_masks_without_a_run_is_counted(source, tmp_path):
    file = tmp_path / "policy.safetensors"
    shutil.copy(source / file.name, file)
    config = run("sst", sets=[f"init_mask_from={file}"])
    asked = config.actor.model_copy(update={"sparsity": 0.9})
    found = prepare(config.model_copy(update={"actor": asked}), Path("run"))
    counts = [int((read(file)[0][f"actor.mask.{n}"] != 0).sum()) for n in range(3)]
    network = found.config.actor
    assert network.allocation == "layers"
    sizes = [2 * 12, 12 * 12, 12 * 2]
    assert network.sparsity == pytest.approx(1 - sum(counts) / sum(sizes), abs=5e-4)


def test_seeds_of_a_sweep_start_from_the_run_of_their_seed(source):
    place = str(source).replace("seed3", "seed{seed}")
    sets = ["hidden_sizes=[12,12]", f"init_mask_from={place}"]
    (found,) = expand(Axes(methods=["sst"], envs=["2DNav-v1"], seeds=[3]), sets=sets)
    assert found.config.init_mask_from == str(source)
    with pytest.raises(InputError, match=r"init_mask_from = '.*seed4': does not exist"):
        expand(Axes(methods=["sst"], envs=["2DNav-v1"], seeds=[3, 4]), sets=sets)


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        (
            "sst",
            {"sets": ["hidden_sizes=[12,16]"]},
            r"layers of its actor are 2x12 \+ 12x12 \+ 12x2, and",
        ),
        ("dense", {}, r"its actor is sparse, and this run's is dense; choose a sparse method"),
        ("gmp", {}, r"actor's number of connections is to move .*topology\.budget: cubic"),
        (
            "sst",
            {"sets": ["topology.fan_in=constant"]},
            r"layer \d of its actor is beyond actor\.topology\.fan_in = constant; set fan_in as",
        ),
        ("sst", {"sets": ["critic.topology.fan_in=at_most:4"]}, r"its critic1 is beyond critic\."),
        ("sst", {"env": "Pendulum-v1"}, r"is of td3 on 2DNav-v1, and this run is td3 on Pendulum"),
    ],
)
def test_runs_that_do_not_fit_are_refused(source, method, more, message):
    more = {**more, "sets": [*more.get("sets", ()), f"init_mask_from={source}"]}
    with pytest.raises(InputError, match=rf"init_mask_from = '.*': .*{message}"):
        prepare(run(method, **more), Path("run"))


def test_masks_within_a_limit_are_taken(tmp_path):
    limit = ["topology.fan_in=constant", "topology.update_interval=5"]
    (folder,) = train([run("srigl", sets=limit)], tmp_path)
    for fan_in in ("constant", "free", "at_most:12"):
        sets = [f"topology.fan_in={fan_in}", f"init_mask_from={folder}"]
        config = prepare(run("sst", sets=sets), Path("run")).config
        assert config.critic.topology.fan_in == fan_in
    nm = resolve(
        "nm",
        sets=[*SMALL, f"init_mask_from={folder}"],
        flags={"env.id": "2DNav-v1", "steps": 120},
    )
    with pytest.raises(InputError, match=r"actor\.topology\.n_of_m = \[1:1, 2:4, 2:4\]; set"):
        prepare(nm, Path("run"))


def test_another_algorithm_is_refused(source):
    axes = Axes(algos=["sac"], methods=["sst"], envs=["2DNav-v1"])
    sets = ["hidden_sizes=[12,12]", f"init_mask_from={source}"]
    with pytest.raises(InputError, match="is of td3 on 2DNav-v1, and this run is sac"):
        expand(axes, sets=sets)


def test_a_sparsity_that_is_not_the_masks_is_refused(source):
    axes = Axes(methods=["sst"], envs=["2DNav-v1"], sparsities=[0.8])
    sets = ["hidden_sizes=[12,12]", f"init_mask_from={source}"]
    with pytest.raises(InputError, match=r"actor\.sparsity = 0\.8: init_mask_from fixes it"):
        expand(axes, sets=sets)


def test_a_source_that_changed_since_is_refused(source, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(source, copied)
    config = started(copied / "best.safetensors")
    (copied / "summary.json").unlink()
    shutil.copy(copied / "initial.safetensors", copied / "best.safetensors")
    with pytest.raises(InputError, match="is no more what this run started from"):
        prepare(config, Path("run"))


def test_a_source_without_a_place_is_refused():
    with pytest.raises(InputError, match="init_mask_source says what was found at init_mask_from"):
        run("sst", sets=["init_mask_source=x"])


def test_weights_that_cannot_be_drawn_again_stop_the_run(source, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(source, copied)
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("weight_init: fan_in", "weight_init: xavier"))
    with pytest.raises(DstrlError, match=r"weights of actor, layer 0, cannot be drawn again"):
        train([started(copied, "weights")], tmp_path)


def test_runs_of_other_sources_are_rows_of_their_own_and_seeds_are_not_called_mixed(
    source, tmp_path
):
    folders = train([started(source), started(source / "initial.safetensors")], tmp_path)
    kept = []
    for folder in folders:
        place = tmp_path / "results" / run_path(read_config(folder))
        place.parent.mkdir(parents=True, exist_ok=True)
        kept.append(folder.rename(place))
    found = load(tmp_path / "results").runs
    names = {"sst+mask-rlx2.seed3", "sst+mask-rlx2.initial.seed3"}
    assert {each.identity.method for each in found} == names
    assert found[0].settings["init_mask_source"].startswith("2DNav-v1/td3/rlx2/s0.6/")
    planned = replace(prepare(read_config(kept[0]), Path("run")), path=kept[0])
    again = verify(planned, 50, lambda _: None)
    assert again.difference is None


def test_the_mask_dense_is_for_budgets_that_fall_from_there():
    weight = torch.zeros(2, 3)
    assert dense_mask(weight, 1.0, 6, torch.Generator()).all()
    with pytest.raises(InputError, match=r"initial_mask: dense starts with all connections"):
        run("sst", sets=["actor.initial_mask=dense"])
    run("gmp", sets=["actor.initial_mask=dense"])
