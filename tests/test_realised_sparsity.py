"""The sparsity that networks have, beside the one asked for: in plans, summaries and tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from report_samples import write_run
from training_samples import run, train

from dstrl_cli.cli import main
from dstrl_cli.config.resolving import resolve
from dstrl_cli.report.frames import read_results
from dstrl_cli.report.render import render
from dstrl_cli.report.table import Table
from dstrl_cli.report.tables import table
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.plan import Axes, expand

# --- the plan -----------------------------------------------------------------------------------


def told(*sets: str, method: str = "sst", **axes) -> list[str]:
    (found,) = expand(Axes(methods=[method], envs=["2DNav-v1"], **axes), sets=sets)
    return [note for note in found.notes if "realises" in note]


def beside_sizes(found: Table) -> tuple[str, ...]:
    """Return the notes of a table but the one that says what its sizes count."""
    sizes, *others = sorted(found.notes, key=lambda note: not note.startswith("parameters: "))
    assert sizes.startswith("parameters: active weights")
    return tuple(others)


@pytest.mark.parametrize("sparsity", [0.9, 0.95, 0.99, 0.999])
def test_a_plan_says_where_small_layers_miss_the_sparsity(sparsity: float) -> None:
    # 2 observations, 2 actions: 2 * 2 + 2 * 3 + 3 * 2 = 16 and 4 * 2 + 2 * 3 + 3 * 1 = 17 weights;
    # every layer keeps one of them: 1 - 3 / 16 = 0.8125 and 1 - 3 / 17 = 0.8235
    assert told("hidden_sizes=[2,3]", sparsities=[sparsity]) == [
        f"the actor realises a sparsity of 0.812, not {sparsity}: 3 of 16 connections "
        "(1 + 1 + 1 in its layers)",
        f"each critic realises a sparsity of 0.824, not {sparsity}: 3 of 17 connections "
        "(1 + 1 + 1 in its layers)",
    ]


def test_only_networks_that_miss_it_by_more_than_the_tolerance_are_said() -> None:
    assert told(sparsities=[0.9]) == []
    assert told("hidden_sizes=[2,3]", sparsities=[0.0]) == []
    assert told("hidden_sizes=[2,3]", method="dense") == []
    (critic,) = told("actor.hidden_sizes=[64,64]", "critic.hidden_sizes=[2,3]", sparsities=[0.9])
    assert critic.startswith("each critic realises")


def test_a_narrowed_network_is_compared_with_the_widths_of_the_run() -> None:
    # 2 * 4 + 4 * 4 + 4 * 2 = 32 weights, half of which are 16: 2, 2 units have 12 and 3, 3 have 21;
    # a critic has 4 * 4 + 4 * 4 + 4 = 36, half of which are 18: 2, 2 have 14, and 3, 3 have 24
    actor, critic = told("hidden_sizes=[4,4]", method="tiny", sparsities=[0.5])
    assert actor.startswith("the actor realises a sparsity of 0.625, not 0.5: 12 of 32 connections")
    assert critic.startswith("each critic realises a sparsity of 0.611, not 0.5: 14 of 36")


def test_a_dry_run_shows_it_once_for_all_methods(capsys: pytest.CaptureFixture) -> None:
    arguments = ["sweep", "--dst=sst,dst", "--env=2DNav-v1", "--set=hidden_sizes=[2,3]"]
    assert main([*arguments, "--sparsity=0.9,0.99", "--dry-run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("note: the actor realises a sparsity of 0.812, not 0.9:") == 1
    assert shown.count("note: the actor realises a sparsity of 0.812, not 0.99:") == 1


# --- the summary --------------------------------------------------------------------------------


def test_a_summary_has_what_was_realised_at_the_end(tmp_path: Path) -> None:
    # 0.6 of 4, 6 and 6 connections leaves 2, 3 and 3 of them; of 8, 6 and 3 it leaves 4, 3 and 2
    uniform = ["actor.allocation=uniform", "critic.allocation=uniform"]
    shapes = ["hidden_sizes=[2,3]", *uniform]
    sparse, dense = train([run("dst", sets=shapes), run("dense", sets=shapes)], tmp_path)
    assert (read_summary(sparse) or {})["sparsity"] == {"actor": 1 - 8 / 16, "critic": 1 - 18 / 34}
    assert (read_summary(dense) or {})["sparsity"] == {"actor": 0, "critic": 0}


def test_a_narrowed_network_is_as_sparse_as_the_widths_of_the_run_say(tmp_path: Path) -> None:
    # 192 weights of 12, 12 units, 40 % of which are 77: 7, 7 units have 14 + 49 + 14; a critic of
    # 204 weights: 82 of them, to which 7, 7 units (28 + 49 + 7) are next
    (folder,) = train([run("tiny")], tmp_path)
    expected = {"actor": 1 - 77 / 192, "critic": 1 - 84 / 204}
    assert (read_summary(folder) or {})["sparsity"] == pytest.approx(expected, rel=1e-12)


def test_a_summary_has_the_last_count_of_a_network_that_was_pruned(tmp_path: Path) -> None:
    rule = ["topology.final_drop=true", "topology.stop_before_end=60", "topology.drop_fraction=0.8"]
    (folder,) = train([run("dst", sets=rule)], tmp_path)
    last = pd.read_csv(folder / "progress.csv").iloc[-1]
    assert (read_summary(folder) or {})["sparsity"] == {
        "actor": 1 - last["actor_active"] / 192,
        "critic": 1 - last["critic_active"] / (2 * 204),
    }
    assert resolve("dst").actor.sparsity == 0.95  # what was asked for stays in the configuration


# --- tables -------------------------------------------------------------------------------------

COST = {
    "parameters": {"sok_active": 9, "sok_dense": 50, "rlx_active": 18, "rlx_dense": 100},
    "flops": {"train_total": 5e9, "train_ratio": 0.25, "test": 40, "test_ratio": 0.125},
}


def stored(root: Path, path: str, actor: float, critic: float, **config) -> None:
    summary = COST | {"sparsity": {"actor": actor, "critic": critic}}
    write_run(root, path, {500: [1.0]}, summary=summary, config=config)


def shown(root: Path) -> Table:
    return table(root, metric="final", columns=["params"])


@pytest.mark.parametrize(
    ("realised", "text"),
    [
        ((0.8125, 0.82353), "sparsity 0.812/0.824"),
        ((0.949995, 0.950002), "sparsity 0.95"),
        ((0.99961, 0.99961), "sparsity 0.99961"),
        ((0.0, 0.0), "sparsity 0"),
    ],
)
def test_the_parameters_of_a_table_say_the_realised_sparsity(
    realised: tuple[float, float], text: str, tmp_path: Path
) -> None:
    stored(tmp_path, "Hopper-v5/td3-dst/s0.95/seed0", *realised)
    shown_text = render(shown(tmp_path), "md")
    assert f"RLX 18 (0.180x) {text} |" in shown_text
    assert "two critics (SOK: Sokar et al. 2022), and of their targets too (RLX: " in shown_text
    header, row = render(shown(tmp_path), "csv").splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    found = cells["realised_actor_sparsity"], cells["realised_critic_sparsity"]
    assert tuple(map(float, found)) == realised


def test_summaries_of_older_versions_do_not_say_it(tmp_path: Path) -> None:
    for sparsity in ("s0.9", "s0.95"):
        write_run(tmp_path, f"Hopper-v5/td3-dst/{sparsity}/seed0", {500: [1.0]}, summary=COST)
    found = shown(tmp_path)
    assert "RLX 18 (0.180x) |" in render(found, "md")
    assert beside_sizes(found) == ()


def test_frames_have_it_beside_the_sparsity_asked_for(tmp_path: Path) -> None:
    stored(tmp_path, "Hopper-v5/td3-dst/s0.95/seed0", 0.8125, 0.8235)
    (row,) = read_results(tmp_path).to_dict("records")
    assert (row["actor_sparsity"], row["sparsity.actor"]) == (0.95, 0.8125)
    assert (row["critic_sparsity"], row["sparsity.critic"]) == (0.95, 0.8235)


def test_sections_that_are_one_network_are_named(tmp_path: Path) -> None:
    for label in ("s0.9", "s0.95", "s0.99"):
        for method in ("dst", "sst"):
            stored(tmp_path, f"2DNav-v1/td3-{method}/{label}/seed0", 0.8125, 0.8235)
    stored(tmp_path, "2DNav-v1/td3-dst/s0.5/seed0", 0.5, 0.5294)
    stored(tmp_path, "2DNav-v1/td3-dense/s0/seed0", 0.0, 0.0)
    assert beside_sizes(shown(tmp_path)) == (
        "TD3, sparsity 0.9, sparsity 0.95 and sparsity 0.99 are one network in "
        "2DNav-v1/td3-dst, 2DNav-v1/td3-sst",
    )


def test_runs_that_differ_in_more_than_the_sparsity_are_not_one_network(tmp_path: Path) -> None:
    stored(tmp_path, "2DNav-v1/td3-dst/s0.9/seed0", 0.8125, 0.8235, tau=0.1)
    stored(tmp_path, "2DNav-v1/td3-dst/s0.95/seed0", 0.8125, 0.8235)
    stored(tmp_path, "2DNav-v1/td3-sst/s0.9/seed0", 0.8125, 0.8235)
    stored(tmp_path, "2DNav-v1/td3-sst/s0.95/seed0", 0.8125, 0.8824)
    assert beside_sizes(shown(tmp_path)) == ()


def test_drawn_masks_are_compared_seed_by_seed(tmp_path: Path) -> None:
    stored(tmp_path, "2DNav-v1/td3-dst/s0.9/seed0", 0.8125, 0.8235)
    stored(tmp_path, "2DNav-v1/td3-dst/s0.9/seed1", 0.875, 0.8824)
    stored(tmp_path, "2DNav-v1/td3-dst/s0.95/seed1", 0.8125, 0.8235)
    assert beside_sizes(shown(tmp_path)) == ()


def test_runs_of_four_sparsities_in_one_network_are_said_to_be(tmp_path: Path) -> None:
    small = ["hidden_sizes=[2,3]", "learning_starts=4", "eval_every=20", "batch_size=4"]
    keys = [f"--set={each}" for each in small] + ["--set=eval_episodes=1"]
    arguments = ["sweep", "--dst=sst", "--env=2DNav-v1", "--sparsity=0.9,0.99", "--steps=20"]
    assert main([*arguments, *keys, f"--out={tmp_path}", "--device=cpu", "--engine=masked"]) == 0
    one, other = sorted(tmp_path.rglob("eval.csv"))
    assert one.read_bytes() == other.read_bytes()
    note = "TD3, sparsity 0.9 and sparsity 0.99 are one network in 2DNav-v1/td3-sst"
    assert note in table(tmp_path, metric="final").notes
