"""Which runs a request means, and the states of their folders."""

from pathlib import Path

import pytest
from sweep_samples import SHORT, labels, leave, runs

from dstrl_cli.config.parse import to_dict
from dstrl_cli.config.presets import load_sweep_preset
from dstrl_cli.config.ranges import parse_numbers
from dstrl_cli.errors import InputError
from dstrl_cli.runs.folder import RunFolder
from dstrl_cli.sweep import plan
from dstrl_cli.sweep.plan import Axes, expand
from dstrl_cli.sweep.states import fresh, resumed

# --- which runs ---------------------------------------------------------------------------------


def test_a_range_of_sparsities_is_nine_runs():
    found = labels(Axes(sparsities=parse_numbers("0.15:0.95", "--sparsity")))
    assert found == [
        f"2DNav-v1/td3-rlx2/s{value}/seed0"
        for value in (0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95)
    ]


def test_every_combination_once_and_a_dense_method_once_for_all_sparsities():
    axes = Axes(methods=("dense", "our-rlx2"), sparsities=(0.5, 0.9), seeds=(0, 1))
    assert sorted(labels(axes)) == [
        "2DNav-v1/td3-dense/s0/seed0",
        "2DNav-v1/td3-dense/s0/seed1",
        "2DNav-v1/td3-our-rlx2/s0.5/seed0",
        "2DNav-v1/td3-our-rlx2/s0.5/seed1",
        "2DNav-v1/td3-our-rlx2/s0.9/seed0",
        "2DNav-v1/td3-our-rlx2/s0.9/seed1",
    ]


def test_swept_tasks_are_named_in_the_folder():
    assert labels(Axes(tasks=(0, 3))) == [
        "2DNav-v1.task0/td3-rlx2/s0.95/seed0",
        "2DNav-v1.task3/td3-rlx2/s0.95/seed0",
    ]


def test_algorithms_keep_their_own_default_sparsity():
    assert labels(Axes(algos=("td3", "sac"))) == [
        "2DNav-v1/td3-rlx2/s0.95/seed0",
        "2DNav-v1/sac-rlx2/s0.9/seed0",
    ]


def test_networks_that_lambdas_size_are_filed_under_their_own_sparsity():
    sets = ["hidden_sizes=256,256"]
    for role in ("actor", "critic"):
        sets += [f"{role}.allocation=lambda", f"{role}.lambdas=[7,64]"]
    flags = {"env.id": "HalfCheetah-v5"}
    (run,) = expand(Axes(methods=("sst",)), sets=sets, flags=flags)
    # layers 17x256, 256x256, 256x6: 7 * 273 + 64 * 512 of them, the last one dense
    actor = round(1 - (7 * 273 + 64 * 512 + 256 * 6) / (17 * 256 + 256 * 256 + 256 * 6), 3)
    assert run.config.actor.sparsity == actor
    assert run.label == f"HalfCheetah-v5/td3-sst/a{actor}-c{run.config.critic.sparsity}/seed0"
    (dense,) = expand(Axes(methods=("dense",)), sets=sets, flags=flags)
    assert dense.label == "HalfCheetah-v5/td3-dense/s0/seed0"


def test_seeds_and_tasks_are_copies_that_differ_in_nothing_else():
    axes = Axes(methods=("dense", "our-rlx2"), tasks=(0, 3), sparsities=(0.5, 0.9), seeds=(0, 7))
    together = runs(axes)
    assert len(together) == 2 * 2 + 2 * 2 * 2
    for run in together:
        config = run.config
        alone = Axes(
            methods=(config.method,),
            tasks=(config.env.task,),
            sparsities=(config.actor.sparsity,),
            seeds=(config.seed,),
        )
        (same,) = runs(alone)
        assert (same.config, same.spec) == (config, run.spec)


def test_every_task_is_checked_before_anything_runs():
    with pytest.raises(InputError, match=r"env\.task = 11: .*set by --task"):
        runs(Axes(methods=("sst", "dst"), tasks=(0, 11)))


def test_a_suffix_names_swept_keys_briefly_and_apart():
    assert plan.suffix({"nstep": 5}, ["nstep"]) == "+nstep5"
    assert plan.suffix(
        {"critic.topology.drop_fraction": 0.1}, ["critic.topology.drop_fraction"]
    ) == ("+drop_fraction0.1")
    keys = ["actor.topology.drop_fraction", "critic.topology.drop_fraction"]
    assert plan.suffix(dict.fromkeys(keys, 0.5), keys) == (
        "+actor.topology.drop_fraction0.5+critic.topology.drop_fraction0.5"
    )
    assert plan.suffix({"hidden_sizes": [64, 32]}, ["hidden_sizes"]) == "+hidden_sizes64x32"
    assert plan.suffix({"td_error": "off"}, ["td_error"]) == "+td_error-off"
    assert plan.suffix({"buffer.dynamic": True}, ["buffer.dynamic"]) == "+dynamic-true"


def preset(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_sweep_preset(path)


def test_a_preset_gives_axes_that_set_and_flags_override(tmp_path):
    mine = preset(tmp_path, "sweep: {dst: [rlx2], sparsity: [0.5, 0.8], set: {nstep: [1, 3]}}")
    assert labels(Axes(), preset=mine) == [
        "2DNav-v1/td3-rlx2+nstep1/s0.5/seed0",
        "2DNav-v1/td3-rlx2+nstep3/s0.5/seed0",
        "2DNav-v1/td3-rlx2+nstep1/s0.8/seed0",
        "2DNav-v1/td3-rlx2+nstep3/s0.8/seed0",
    ]
    fixed = labels(Axes(sparsities=(0.7,)), preset=mine, sets=("nstep=2",))
    assert fixed == ["2DNav-v1/td3-rlx2/s0.7/seed0"]


VARIANTS = """
sweep:
  dst: [dst, our-dst]
  variants:
    - config: {nstep: 3}
    - when: {dst: our-dst}
      config: {critic: {topology: {td_error: "off", update_interval: 500}}}
"""


def test_variants_are_changes_of_which_a_run_has_one_or_none(tmp_path):
    assert labels(Axes(), preset=preset(tmp_path, VARIANTS)) == [
        "2DNav-v1/td3-dst/s0.95/seed0",
        "2DNav-v1/td3-dst+nstep3/s0.95/seed0",
        "2DNav-v1/td3-our-dst/s0.95/seed0",
        "2DNav-v1/td3-our-dst+nstep3/s0.95/seed0",
        "2DNav-v1/td3-our-dst+td_error-off+update_interval500/s0.95/seed0",
    ]


def test_a_set_takes_the_place_of_the_variants_of_its_key(tmp_path):
    found = runs(Axes(methods=("dst",)), preset=preset(tmp_path, VARIANTS), sets=("nstep=2",))
    assert [(run.label, run.config.nstep) for run in found] == [("2DNav-v1/td3-dst/s0.95/seed0", 2)]


def test_variants_shrink_with_the_scale_of_a_preset(tmp_path):
    mine = preset(tmp_path, VARIANTS)
    *_, last = runs(Axes(), preset=mine, scale=0.1)
    assert last.config.critic.topology.update_interval == 50


def test_a_variant_of_an_unknown_key_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown key 'nsteps'"):
        preset(tmp_path, "sweep: {variants: [{config: {nsteps: 3}}]}")


def test_a_flag_beats_an_axis_of_the_preset(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("sweep:\n  dst: sst\n  task: 0-2\n  seeds: 0-1\n")
    flags = {"env.task": 1, "seed": 7}
    found = labels(Axes(), preset=load_sweep_preset(mine), flags=flags)
    assert found == ["2DNav-v1.task1/td3-sst/s0.95/seed7"]


def test_one_run_cannot_guess_among_a_presets_methods(tmp_path):
    mine = preset(tmp_path, "sweep: {dst: [sst, rlx2]}")
    with pytest.raises(InputError, match=r"--dst: preset 'mine' names several \(sst, rlx2\)"):
        plan.refuse_several(Axes(), {}, [], mine)
    plan.refuse_several(Axes(methods=("sst",)), {}, [], mine)


def test_one_run_cannot_guess_among_a_presets_tasks_and_keys(tmp_path):
    mine = preset(tmp_path, "sweep: {task: 0-1, set: {nstep: [1, 3]}}")
    with pytest.raises(InputError, match=r"--task: preset 'mine' names several \(0, 1\)"):
        plan.refuse_several(Axes(), {}, [], mine)
    with pytest.raises(InputError, match=r"--set nstep: preset 'mine' names several \(1, 3\)"):
        plan.refuse_several(Axes(), {"env.task": "1"}, [], mine)
    plan.refuse_several(Axes(), {"env.task": "1"}, ["nstep=3"], mine)


def test_runs_that_would_share_a_folder_are_refused():
    with pytest.raises(InputError, match="share the folder"):
        expand(Axes(sets={"tau": [0.00512345678901, 0.00512345678902]}), flags=SHORT)


def test_a_budget_that_cannot_be_met_names_the_network():
    with pytest.raises(InputError, match=r"critic\.sparsity = 0\.95: .* choose a lower sparsity"):
        runs(Axes(methods=("tiny",)))
    with pytest.raises(InputError, match=r"actor\.sparsity: the budget of a layer 2x8 is 0"):
        runs(Axes(sparsities=(1 - 1e-9,)))


# --- the states of the folders ------------------------------------------------------------------


def test_finished_runs_are_skipped_and_unfinished_ones_start_over(tmp_path):
    found = runs(Axes(seeds=(0, 1, 2, 3)), tmp_path)
    leave(found[0], "finished")
    leave(found[1], "interrupted")
    leave(found[2], None)
    planned = resumed(found, overwrite=False)
    assert [each.status for each in planned] == ["finished", "interrupted", "unfinished", "new"]
    assert [each.to_do for each in planned] == [False, True, True, True]
    assert [each.run.start for each in planned] == ["new", "over", "over", "new"]
    assert all(each.to_do for each in resumed(found, overwrite=True))


def test_new_runs_beside_others_of_the_same_sparsity_are_found(tmp_path):
    found = runs(Axes(seeds=(0, 1), sparsities=(0.5, 0.9)), tmp_path)
    leave(found[0], "finished")
    planned = resumed(found, overwrite=False)
    assert [each.status for each in planned] == ["finished", "new", "new", "new"]
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="is not a folder"):
        resumed(runs(Axes(), tmp_path / "taken"), overwrite=False)


def test_another_configuration_stops_a_sweep_before_it_starts(tmp_path):
    found = runs(Axes(seeds=(0, 1)), tmp_path)
    leave(found[1], "finished", tau=0.5)
    with pytest.raises(InputError, match=r"tau: 0\.5 -> 0\.005"):
        resumed(found, overwrite=False)
    assert [each.to_do for each in resumed(found, overwrite=True)] == [True, True]


def test_a_single_run_never_starts_over_by_itself(tmp_path):
    found = runs(Axes(), tmp_path)
    assert [each.status for each in fresh(found, overwrite=False)] == ["new"]
    leave(found[0], "interrupted")
    with pytest.raises(InputError, match="--overwrite"):
        fresh(found, overwrite=False)
    assert fresh(found, overwrite=True)[0].run.start == "over"


def test_a_run_in_use_is_left_alone(tmp_path):
    (run,) = runs(Axes(), tmp_path)
    with RunFolder(run.path).create(to_dict(run.config)):
        for states in (fresh, resumed):
            with pytest.raises(InputError, match="in use"):
                states([run], overwrite=True)
