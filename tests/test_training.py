"""The training loop: when what happens, and that members of one population never touch."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from training_samples import STEPS, run, status, train

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import Step
from dstrl_cli.envs.tasks.navigation_batch import NavigationBatch
from dstrl_cli.errors import DstrlError
from dstrl_cli.runs.summary import read_summary
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.terminal.describe import outcome_overview
from dstrl_cli.training import trainer
from dstrl_cli.training.reporter import Silent
from dstrl_cli.training.run import Outcome

SPEC = prepare(run("sst"), Path("run")).spec


class Kept:
    """A sink that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def take(*arguments: Any) -> None:
            untimed = [
                {k: v for k, v in each.items() if "time" not in k and k != "steps_per_s"}
                if name in ("progress", "summary")
                else each
                for each in arguments
            ]
            self.calls.append((name, repr(untimed)))

        return take


class Frail(NavigationBatch):
    """Navigation whose environment `index` fails at a step, while the others go on."""

    index, at = 1, 65

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.steps = 0

    def step(self, *arguments: Any) -> Step:
        self.steps += 1
        if self.steps == self.at:
            self.failures = {self.index: "environment 1 (2DNav-v1) failed: it broke"}
        return super().step(*arguments)


def frail(monkeypatch: pytest.MonkeyPatch, batch: type[Frail], number: int) -> None:
    """Let the `number`-th batch of environments, training or evaluation, be a frail one."""

    def make(
        spec: EnvSpec, counts: Sequence[int], device: str, *_: object
    ) -> list[NavigationBatch]:
        return [
            (batch if index == number else NavigationBatch)(spec, count, torch.device(device))
            for index, count in enumerate(counts, 1)
        ]

    monkeypatch.setattr(trainer.envs, "make_batches", make)


def test_one_update_per_step_after_the_warm_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    update = Algorithm.update_critic

    def counted(self: Algorithm, *arguments: Any) -> None:
        seen.append((int(populations[0].replay.size), self.updates))
        update(self, *arguments)

    populations: list[trainer.Population] = []
    collect = trainer.Population.collect

    def noted(self: trainer.Population, observation: torch.Tensor) -> torch.Tensor:
        populations.append(self)
        return collect(self, observation)

    monkeypatch.setattr(Algorithm, "update_critic", counted)
    monkeypatch.setattr(trainer.Population, "collect", noted)
    (folder,) = train([run("sst")], tmp_path)
    assert seen == [(41 + number, 1 + number) for number in range(STEPS - 40)]
    assert pd.read_csv(folder / "progress.csv")["step"].tolist() == [0, 50, 100, STEPS]


METHODS = ("dense", "dst", "our-dst", "rlx2", "our-rlx2")


@pytest.mark.parametrize("index", range(len(METHODS)))
def test_a_run_is_the_same_alone_as_among_others(index: int, tmp_path: Path) -> None:
    """Warm-up, collection, sampling, n-step, buffer, topology and evaluation together."""
    sets = ["learning_rate=1e-5"]  # rounding must not grow within the run
    configs = [run(method, seed, sets=sets) for seed, method in enumerate(METHODS)]
    among = train(configs, tmp_path / "among")[index]
    (alone,) = train([configs[index]], tmp_path / "alone")
    for name in ("eval.csv", "episodes.csv", "topology.csv"):
        ours, theirs = (pd.read_csv(folder / name) for folder in (among, alone))
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-3)
    sizes = [pd.read_csv(folder / "progress.csv")["buffer_size"] for folder in (among, alone)]
    assert sizes[0].tolist() == sizes[1].tolist()
    ours, theirs = (load_file(folder / "policy.safetensors") for folder in (among, alone))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


def test_an_actor_that_overflows_stops_its_own_run_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = TD3.update_actor

    def overflowing(self: TD3, *arguments: Any) -> None:
        update(self, *arguments)
        if self.updates == 20:
            self.actor.params.flat[0] = torch.nan  # type: ignore[attr-defined]

    monkeypatch.setattr(TD3, "update_actor", overflowing)
    configs = [run("sst", seed, "Pendulum-v1") for seed in (0, 1)]
    first, second = train(configs, tmp_path)
    assert [status(first), status(second)] == ["diverged", "finished"]
    assert pd.read_csv(first / "eval.csv")["step"].max() < STEPS
    assert pd.read_csv(second / "eval.csv")["step"].max() == STEPS


def test_an_actor_that_overflows_at_the_very_end_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = TD3.update_actor

    def overflowing(self: TD3, *arguments: Any) -> None:
        update(self, *arguments)
        if self.updates == STEPS - 40:
            self.actor.params.flat[:] = torch.nan  # type: ignore[attr-defined]

    monkeypatch.setattr(TD3, "update_actor", overflowing)
    (folder,) = train([run("sst", env="Pendulum-v1")], tmp_path)
    assert status(folder) == "diverged"


def test_what_nobody_expected_is_said_with_where_it_was_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(TD3, "update_actor", lost)
    with pytest.raises(DstrlError, match=r"^KeyError: 'lost', test_training\.py:\d+$"):
        train([run("sst")], tmp_path)


def test_a_failed_environment_freezes_its_member_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [run("dst", seed) for seed in (0, 1)]
    sound = train(configs, tmp_path / "sound")
    frail(monkeypatch, Frail, 1)
    folders = train(configs, tmp_path / "frail")
    assert [status(folder) for folder in folders] == ["finished", "failed"]
    ended = read_summary(folders[1]) or {}
    assert ended["error"] == "environment 1 (2DNav-v1) failed: it broke"
    assert ended["steps"] == 65
    for name in ("episodes.csv", "topology.csv"):
        assert (folders[0] / name).read_bytes() == (sound[0] / name).read_bytes()
        rows, all_rows = (pd.read_csv(folder[1] / name) for folder in (folders, sound))
        pd.testing.assert_frame_equal(rows, all_rows[all_rows["step"] <= 65], check_dtype=False)
    assert pd.read_csv(folders[1] / "progress.csv")["step"].tolist() == [0, 50]


def test_a_failed_environment_of_an_evaluation_freezes_its_member_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(Frail):
        index, at = 3, 130  # of the second member's two; in the second evaluation, of 100 steps

    frail(monkeypatch, Late, 2)
    folders = train([run("sst", seed, sets=["learning_rate=1e-9"]) for seed in (0, 1)], tmp_path)
    assert [status(folder) for folder in folders] == ["finished", "failed"]
    assert pd.read_csv(folders[1] / "eval.csv")["step"].unique().tolist() == [0]
    assert pd.read_csv(folders[0] / "eval.csv")["step"].max() == STEPS


def test_a_population_in_which_every_member_failed_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Only(Frail):
        index = 0

    frail(monkeypatch, Only, 1)
    (folder,) = train([run("sst")], tmp_path)
    summary = read_summary(folder) or {}
    assert (summary["status"], summary["steps"]) == ("failed", 65)


def test_an_interrupt_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = train([run("dst", env="2DNav-v1")], tmp_path / "whole")

    class Interrupted(Frail):
        def step(self, *arguments: Any) -> Step:
            if self.steps == 117:
                raise KeyboardInterrupt
            return super().step(*arguments)

    frail(monkeypatch, Interrupted, 1)
    out = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train([run("dst", env="2DNav-v1")], out)
    (cut,) = (path.parent for path in out.rglob("summary.json"))
    assert status(cut) == "interrupted"
    for name in ("episodes.csv", "topology.csv"):
        rows, all_rows = (pd.read_csv(folder / name) for folder in (cut, whole))
        assert len(rows) > 0
        pd.testing.assert_frame_equal(rows, all_rows[all_rows["step"] <= 117])


def test_ratios_are_against_the_same_widths_dense_except_for_narrowed_networks(
    tmp_path: Path,
) -> None:
    wide = run("sst", sets=["actor.hidden_sizes=[30,30]", "critic.hidden_sizes=[20,20]"])
    (sparse,) = train([wide], tmp_path / "sparse")
    (tiny,) = train([run("tiny")], tmp_path / "tiny")
    for folder in (sparse, tiny):
        flops = (read_summary(folder) or {})["flops"]
        assert flops["test_ratio"] == pytest.approx(0.4, abs=0.05)
        assert flops["train_ratio"] == pytest.approx(0.4, abs=0.05)


def test_training_flops_count_the_connections_that_each_update_had(tmp_path: Path) -> None:
    """Pruned after a quarter of 80 updates: the last topology update drops without growing."""
    rule = ["topology.final_drop=true", "topology.stop_before_end=60", "topology.drop_fraction=0.8"]
    (folder,) = train([run("dst", sets=rule)], tmp_path)
    topology = pd.read_csv(folder / "topology.csv")
    assert topology["step"].unique().tolist() == [50, 60]  # after updates 10 and 20 of 80
    progress = pd.read_csv(folder / "progress.csv")
    flops = {}
    for row in (progress.iloc[0], progress.iloc[-1]):  # TD3: 2.5 A + 8.5 C a sample, of one critic
        flops[row["step"]] = 2.5 * 2 * row["actor_active"] + 8.5 * row["critic_active"]
    assert flops[STEPS] < 0.4 * flops[0]
    found = (read_summary(folder) or {})["flops"]
    total = 16 * (20 * flops[0] + 60 * flops[STEPS])
    assert found["train_total"] == pytest.approx(total, rel=1e-12)
    actor, critic = 2 * 12 + 12 * 12 + 12 * 2, 4 * 12 + 12 * 12 + 12
    dense = 16 * 80 * (2.5 * 2 * actor + 8.5 * 2 * critic)
    assert found["train_ratio"] == pytest.approx(total / dense, rel=1e-12)
    assert found["test"] == 2 * progress.iloc[-1]["actor_active"]


def test_an_untrained_run_has_trained_nothing_and_shows_no_ratio(tmp_path: Path) -> None:
    config = run("sst", sets=["learning_starts=500"])
    (folder,) = train([config], tmp_path)
    summary = read_summary(folder) or {}
    assert (summary["flops"]["train_total"], summary["flops"]["train_ratio"]) == (0, None)
    assert summary["flops"]["test_ratio"] == pytest.approx(0.4, abs=0.05)
    console = Console(file=StringIO(), width=200)
    console.print(outcome_overview(Outcome(prepare(config, Path("run")), summary)))
    assert "training 0, acting" in console.file.getvalue()


@pytest.mark.parametrize("episodes", [None, 300])
def test_success_is_said_beside_the_evaluation_that_it_is_of(episodes: int | None) -> None:
    summary = {"status": "finished", "final_return": {"mean": 1.0, "std": 0.0}}
    summary |= {"final_success": 0.8, "episodes": 300, "steps": 30_000}
    config = run("sst").model_copy(update={"episodes": episodes})
    console = Console(file=StringIO(), width=200)
    console.print(outcome_overview(Outcome(prepare(config, Path("run")), summary)))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines[1].startswith("return 1")
    assert lines[2] == "success 80% of them"


def test_every_sink_of_a_member_receives_its_rows_until_its_summary() -> None:
    configs = [run("dst", seed) for seed in (0, 1)]
    kept = [[Kept(), Kept()], [Kept()]]
    trainer.train([prepare(c, Path("run")).config for c in configs], kept, SPEC, "cpu")
    (first, twin), (second,) = kept
    assert first.calls == twin.calls
    for sink in (first, second):
        names = [name for name, _ in sink.calls]
        assert names[:3] == ["policy", "evaluation", "policy"]  # initial, and at step 0
        assert names.count("progress") == names.count("evaluation") == 4
        assert names.count("summary") == 1
        assert names[-1] == "summary"
        assert {"episodes", "topology"} <= set(names)
    assert first.calls != second.calls


def test_progress_is_told_once_per_step_and_never_at_no_speed(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []

    class Listener(Silent):
        def progress(self, step: int, total: int, steps_per_s: float) -> None:
            told.append((step, steps_per_s))

    train([run("sst")], tmp_path, reporter=Listener())
    assert [step for step, _ in told] == [50, 100, STEPS]
    assert min(speed for _, speed in told) > 0
