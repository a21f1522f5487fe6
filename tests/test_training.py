"""The training loop: when what happens, and that members of one population never touch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from dstrl_cli.algos.base import Algorithm
from dstrl_cli.algos.td3 import TD3
from dstrl_cli.config.models import RunConfig
from dstrl_cli.config.parse import from_dict, to_dict
from dstrl_cli.config.presets import resolve
from dstrl_cli.envs import EnvSpec
from dstrl_cli.envs.base import Step
from dstrl_cli.envs.tasks.navigation_batch import NavigationBatch
from dstrl_cli.replay.base import Replay
from dstrl_cli.replay.capacity import CapacityControl
from dstrl_cli.replay.nsteps import NSteps
from dstrl_cli.runs.folder import RunFolder, read_summary
from dstrl_cli.sweep.plan import prepare
from dstrl_cli.training import trainer

SMALL = (
    "hidden_sizes=[12,12]",
    "batch_size=16",
    "learning_starts=40",
    "eval_every=50",
    "eval_episodes=2",
    "topology.update_interval=10",
    "nstep_delay=20",
    "buffer.check_interval=25",
    "buffer.min_size=30",
    "buffer.distance_threshold=0",
)
STEPS = 120


def run(method: str, seed: int = 0, env: str = "2DNav-v1", sets: Sequence[str] = ()) -> RunConfig:
    """A small run on the masked engine, as populations have it."""
    flags = {"env.id": env, "steps": STEPS, "seed": seed, "sparsity": 0.6, "engine": "masked"}
    return resolve(method, sets=(*SMALL, *sets), flags=flags)


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
        spec: EnvSpec, counts: Sequence[int], device: str, workers: object
    ) -> list[NavigationBatch]:
        return [
            (batch if index == number else NavigationBatch)(spec, count, torch.device(device))
            for index, count in enumerate(counts, 1)
        ]

    monkeypatch.setattr(trainer.envs, "make_batches", make)


def train(configs: Sequence[RunConfig], out: Path) -> list[Path]:
    """Train one population; return the members' folders."""
    runs = [prepare(config, Path(str(number))) for number, config in enumerate(configs)]
    paths = [out / each.path for each in runs]
    with ExitStack() as stack:
        folders = [
            stack.enter_context(RunFolder(path).create(to_dict(each.config), overwrite=False))
            for path, each in zip(paths, runs, strict=True)
        ]
        trainer.train([each.config for each in runs], folders, runs[0].spec, "cpu")
    return paths


def status(folder: Path) -> Any:
    return (read_summary(folder) or {}).get("status")


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


def test_n_switches_at_each_members_own_update() -> None:
    runs = [
        from_dict({"algo": "td3", "method": "any", "env": "Any-v0"} | keys)
        for keys in (
            {},
            {"nstep": 3},
            {"nstep": 3, "nstep_delay": 5},
            {"nstep": 2, "nstep_delay": 9},
        )
    ]
    nsteps = NSteps(runs, "cpu")
    found = {}
    for update in range(1, 12):
        values, most = nsteps.at(update)
        found[update] = values.flatten().tolist()
        assert most == max(found[update])
    assert {tuple(found[update]) for update in range(1, 5)} == {(1, 3, 1, 1)}
    assert {tuple(found[update]) for update in range(5, 9)} == {(1, 3, 3, 1)}
    assert {tuple(found[update]) for update in range(9, 12)} == {(1, 3, 3, 2)}


class Still:
    """An algorithm whose policy always says zero."""

    def act(self, observation: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*observation.shape[:2], 1)


class Notes:
    """A recorder that keeps the distances."""

    distance: list[float | None]


def test_buffers_shrink_at_each_members_own_checks_and_bounds() -> None:
    keys: list[dict[str, Any]] = [
        {"dynamic": False},
        {"check_interval": 10},  # moved, and large enough
        {"check_interval": 15},  # another time
        {"check_interval": 10, "min_size": 40},  # too small to shrink
        {"check_interval": 10, "distance_threshold": 0.6},  # not moved enough
        {"check_interval": 10, "distance": "l2", "distance_threshold": 0.6},  # moved in this sense
    ]
    shared = {"dynamic": True, "min_size": 39, "check_batches": 1, "shrink": 0.25}
    runs = [
        from_dict(
            {"algo": "td3", "method": "any", "env": "Any-v0", "batch_size": 8}
            | {"buffer": shared | own}
        )
        for own in keys
    ]
    replay = Replay(len(runs), 100, 1, 1, 0.99, policy_actions=True)
    zero, no = torch.zeros(len(runs), 1), torch.zeros(len(runs), dtype=torch.bool)
    for _ in range(40):
        replay.add(zero, zero + 1, zero[:, 0], zero, no, no, policy_action=zero + 1)
    control, notes = CapacityControl(runs, "cpu"), Notes()
    notes.distance = [None] * len(runs)
    control.check(20, replay, Still(), notes)  # type: ignore[arg-type]
    assert replay.size.flatten().tolist() == [40, 30, 40, 40, 40, 30]
    assert notes.distance == [None, 0.5, None, 0.5, 0.5, 1.0]


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
    (out,) = (tmp_path / "cut",)
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


def test_progress_is_told_once_per_step_and_never_at_no_speed(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []

    class Listener(trainer.Silent):
        def progress(self, step: int, total: int, steps_per_s: float, info: dict[str, Any]) -> None:
            told.append((step, steps_per_s))

    one = prepare(run("sst"), Path("run"))
    with RunFolder(tmp_path / "run").create(to_dict(one.config)) as folder:
        trainer.train([one.config], [folder], one.spec, "cpu", Listener())
    assert [step for step, _ in told] == [50, 100, STEPS]
    assert min(speed for _, speed in told) > 0
