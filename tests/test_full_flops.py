"""Training FLOPs with the gradients of inactive connections, which the papers leave out."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_samples import write_run
from rich.console import Console
from training_samples import STEPS, run, train

from dstrl_cli.algos.flops import Connections, summary_numbers
from dstrl_cli.registry import algorithm
from dstrl_cli.report.render import render
from dstrl_cli.report.tables import table
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.terminal.describe import outcome_overview
from dstrl_cli.training.run import Outcome


def flops_of(actor: Connections, critics: Connections, updates: int) -> dict[str, Any]:
    row, keys = algorithm("td3"), {"batch_size": 256, "policy_delay": 2, "nstep": 1}
    return summary_numbers(row, actor, critics, updates=updates, **keys)["flops"]


# --- the formula --------------------------------------------------------------------------------


def test_full_training_flops_by_hand() -> None:
    # four updates of the critics (9 of 16 each) and two of the actor (8 of 12); one topology update
    # of each network forms the gradients of 4 and of 2 * 7 inactive connections
    found = flops_of(Connections(8, 8.0, 12, 4), Connections(18, 18.0, 32, 14), updates=4)
    published = 256 * 4 * (2.5 * 16 + 8.5 * 18)
    assert found["train_total"] == published
    assert found["train_total_full"] == published + 256 * 2 * (4 + 14)
    dense = 256 * 4 * (2.5 * 24 + 8.5 * 32)
    assert found["train_ratio"] == pytest.approx(published / dense, rel=1e-12)
    assert found["train_ratio_full"] == pytest.approx((published + 256 * 36) / dense, rel=1e-12)


@pytest.mark.parametrize(("interval", "printed"), [(10, 0.072), (50, 0.054), (1000, 0.050)])
def test_growth_by_gradient_in_td3_on_halfcheetah(interval: int, printed: float) -> None:
    """95 % sparse, 17 observations, 6 actions, 256-256: 71,424 and 71,680 weights."""
    updates = 100_000
    actor, critic = 71_424, 71_680
    active, active_critic = round(0.05 * actor), round(0.05 * critic)
    by_actor = updates // 2 // interval * (actor - active)
    by_critics = updates // interval * 2 * (critic - active_critic)
    found = flops_of(
        Connections(active, active, actor, by_actor),
        Connections(2 * active_critic, 2 * active_critic, 2 * critic, by_critics),
        updates,
    )
    assert found["train_ratio"] == pytest.approx(0.050, abs=5e-5)
    assert found["train_ratio_full"] == pytest.approx(printed, abs=5e-4)
    # an interval of 10: 0.95 * (0.5 A / 10 + 2 C / 10) beside 2.5 A + 8.5 C
    extra = 0.95 * (0.5 * actor + 2 * critic) / interval / (2.5 * actor + 8.5 * critic)
    assert found["train_ratio_full"] - found["train_ratio"] == pytest.approx(extra, rel=1e-3)
    assert (found["train_total_full"] > 1.01 * found["train_total"]) == (interval < 1000)


def test_an_untrained_run_has_no_full_ratio_either() -> None:
    found = flops_of(Connections(3, 3.0, 12), Connections(4, 4.0, 32), updates=0)
    assert (found["train_total_full"], found["train_ratio_full"]) == (0, None)


# --- what a run counts --------------------------------------------------------------------------

ACTOR, CRITIC = 2 * 12 + 12 * 12 + 12 * 2, 4 * 12 + 12 * 12 + 12
"""Weights of the small runs' networks."""


def trained(method: str, tmp_path: Path, *sets: str) -> tuple[dict[str, Any], pd.Series, Any]:
    """The FLOPs of a small run of 80 updates, the last row of its progress, and its topology."""
    (folder,) = train([run(method, sets=sets)], tmp_path)
    progress = pd.read_csv(folder / "progress.csv").iloc[-1]
    assert progress["step"] == STEPS
    found: dict[str, Any] = (read_summary(folder) or {})["flops"]
    return found, progress, pd.read_csv(folder / "topology.csv")


def test_every_topology_update_that_grows_by_gradient_is_counted(tmp_path: Path) -> None:
    found, progress, topology = trained("rigl", tmp_path)
    # of 80 updates of the critics and 40 of the actor every 10th, but not the last
    per_network = topology[topology["layer"] == 0]["network"].value_counts()
    assert dict(per_network) == {"critic1": 7, "critic2": 7, "actor": 3}
    inactive = 3 * (ACTOR - progress["actor_active"]) + 7 * (2 * CRITIC - progress["critic_active"])
    extra = found["train_total_full"] - found["train_total"]
    assert extra == pytest.approx(16 * 2 * inactive, rel=1e-9)


@pytest.mark.parametrize("method", ["dense", "sst", "dst"])
def test_runs_that_need_no_such_gradient_have_one_figure(method: str, tmp_path: Path) -> None:
    found, _, _ = trained(method, tmp_path)
    assert found["train_total_full"] == found["train_total"]
    assert found["train_ratio_full"] == found["train_ratio"]


def test_only_the_actor_of_ours_grows_by_gradient(tmp_path: Path) -> None:
    found, progress, _ = trained("our-rlx2", tmp_path)
    inactive = 3 * (ACTOR - progress["actor_active"])
    extra = found["train_total_full"] - found["train_total"]
    assert extra == pytest.approx(16 * 2 * inactive, rel=1e-9)


def test_dense_gradients_are_formed_in_every_update(tmp_path: Path) -> None:
    found, progress, _ = trained("sst", tmp_path, "gradients=dense")
    inactive = 40 * (ACTOR - progress["actor_active"])
    inactive += 80 * (2 * CRITIC - progress["critic_active"])
    extra = found["train_total_full"] - found["train_total"]
    assert extra == pytest.approx(16 * 2 * inactive, rel=1e-9)


# --- on the screen and in tables ----------------------------------------------------------------


def flops_block(full: float) -> dict[str, Any]:
    full_figures = {"train_total_full": full, "train_ratio_full": full / 2e10}
    return {"train_total": 1e9, "train_ratio": 0.05, "test": 40, "test_ratio": 0.1} | full_figures


SIZE = {"sok_active": 20, "sok_dense": 200, "rlx_active": 30, "rlx_dense": 400}


@pytest.mark.parametrize(("full", "told"), [(1.44e9, True), (1.02e9, True), (1.009e9, False)])
def test_the_screen_says_a_figure_that_differs_by_more_than_a_percent(
    full: float, told: bool
) -> None:
    summary = {"status": "finished", "parameters": SIZE, "flops": flops_block(full)}
    console = Console(file=StringIO(), width=200)
    console.print(outcome_overview(Outcome(prepare(run("rigl"), Path("run")), summary)))
    shown = console.file.getvalue()
    beside = f", with the gradients of inactive connections {full:.3g} ({full / 2e10:.3g}x dense)"
    assert f"training 1e+09 (0.05x dense){beside if told else ''}, acting 40" in shown


def shown_table(tmp_path: Path, flops: dict[str, Any], style: str = "md") -> str:
    write_run(
        tmp_path,
        "Hopper-v5/td3-rigl/s0.95/seed0",
        {500: [1.0]},
        summary={"parameters": SIZE, "flops": flops},
    )
    return render(table(tmp_path, metric="final", columns=["flops"]), style)


def test_tables_show_it_beside_the_papers_figure(tmp_path: Path) -> None:
    shown = shown_table(tmp_path, flops_block(1.44e9))
    assert "train 1.00e+09 (0.050x) full 1.44e+09 (0.072x) test 4.00e+01 (0.100x)" in shown
    assert "'full' adds the gradients of inactive connections" in shown
    header, row = render(table(tmp_path, metric="final", columns=["flops"]), "csv").splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (cells["train_flops_full"], cells["train_ratio_full"]) == ("1440000000.0", "0.072")


def test_tables_leave_out_a_figure_within_a_percent(tmp_path: Path) -> None:
    assert "full" not in shown_table(tmp_path, flops_block(1.009e9))


def test_summaries_of_older_versions_have_the_papers_figure_alone(tmp_path: Path) -> None:
    flops = {key: value for key, value in flops_block(0).items() if not key.endswith("full")}
    shown = shown_table(tmp_path, flops)
    assert "train 1.00e+09 (0.050x) test 4.00e+01 (0.100x)" in shown
    assert '"train_flops_full": null' in render(table(tmp_path, metric="final"), "json")
