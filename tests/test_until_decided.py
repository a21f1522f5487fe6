"""`dstrl sweep --until-decided`: which seeds come next, what is kept, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_samples import write_run
from sweep_samples import SMALL

from dstrl_cli import commands
from dstrl_cli.cli import main
from dstrl_cli.commands import Limits, RunOptions
from dstrl_cli.errors import DstrlError, InputError
from dstrl_cli.report.comparing import asked_rounds
from dstrl_cli.report.permutation import Plan, decide
from dstrl_cli.report.power import power
from dstrl_cli.sweep.plan import Axes
from dstrl_cli.sweep.request import RunRequest
from dstrl_cli.sweep.study import Study, carry_out, plan_study
from dstrl_cli.training.run import Outcome, Run

Means = dict[str, float]


def study(out: Path, pairs: str = "rlx2:sst", **options: Any) -> Study:
    """A study of 2DNav-v1 with rounds of four seeds, at most twelve."""
    numbers = {"max_seeds": 12, "seeds_per_round": 4, "alpha": 0.2} | options.pop("numbers", {})
    axes = {"methods": ("dense", "sst", "rlx2"), "envs": ("2DNav-v1",)} | options
    flags = {"steps": 200, "out": str(out), "metric": "final"}
    request = RunRequest(Axes(**axes), flags, sets=SMALL)
    asked = asked_rounds(pairs, **numbers)
    assert asked is not None
    return plan_study(request, None, asked)


def method_of(run: Run) -> str:
    return run.label.split("/")[1].removeprefix("td3-")


def value(run: Run, means: Means) -> float:
    """A score that is a fixed distance from its method's mean, within 1 of it."""
    seed, task = run.config.seed, run.config.env.task
    return means.get(method_of(run), 0.0) + float(np.sin(7 * seed + len(run.label)) + task)


class Trainer:
    """Stands for training: it writes the logs of runs, and notes which it was given."""

    def __init__(self, out: Path, means: Means, ends: Callable[[Run], str] | None = None) -> None:
        self.out, self.means, self.rounds = out, means, []
        self.ends = ends or (lambda _: "finished")

    def __call__(self, runs: Sequence[Run], _: str) -> tuple[Sequence[Outcome], bool]:
        new = [run for run in runs if not run.path.exists()]
        self.rounds.append(sorted({(method_of(run), run.config.seed) for run in new}))
        outcomes = []
        for run in new:
            status = self.ends(run)
            if status != "failed":  # a failed run is tried again, so that nothing is left here
                write_run(self.out, run.label, {200: [value(run, self.means)] * 2}, status=status)
            outcomes.append(Outcome(run, {"status": status}))
        return outcomes, bool(new)


def silent(_: Iterable[str]) -> None:
    pass


# --- rounds ---------------------------------------------------------------------------------------


def test_a_large_difference_is_decided_at_the_first_look(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, {"rlx2": 50.0})
    _, outcomes, found = carry_out(study(tmp_path, seeds=(0, 1)), trainer, silent)
    assert [each.decision.sign for each in found.found] == [1]
    named = [(method, seed) for method in ("rlx2", "sst") for seed in range(4)]
    assert trainer.rounds == [sorted([("dense", 0), ("dense", 1), *named])]
    assert len(outcomes) == 10


def test_methods_that_do_not_differ_spend_all_their_seeds_and_others_keep_theirs(
    tmp_path: Path,
) -> None:
    trainer = Trainer(tmp_path, {})
    _, _, found = carry_out(study(tmp_path), trainer, silent)
    assert [each.decision.sign for each in found.found] == [0]
    seeds = [(method, range(4 * k, 4 * k + 4)) for k in range(3) for method in ("rlx2", "sst")]
    expected = [
        sorted((m, seed) for m, these in seeds[2 * k : 2 * k + 2] for seed in these)
        for k in range(3)
    ]
    expected[0] = sorted([("dense", 0), *expected[0]])
    assert trainer.rounds == expected


def test_only_the_methods_of_open_comparisons_get_more_seeds(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, {"dense": 50.0})
    _, _, found = carry_out(study(tmp_path, "dense:sst,rlx2:sst"), trainer, silent)
    assert {each.first.method: each.decision.sign for each in found.found} == {
        "dense": 1,
        "rlx2": 0,
    }
    assert {method for method, _ in trainer.rounds[1]} == {"rlx2", "sst"}


def test_environments_are_decided_one_by_one(tmp_path: Path) -> None:
    class OneEnv(Trainer):
        def __call__(self, runs: Sequence[Run], text: str) -> tuple[Sequence[Outcome], bool]:
            self.means = {}
            other = [run for run in runs if "2DNav-v2" in run.label]
            super().__call__(other, text)
            self.means = {"rlx2": 50.0}
            return super().__call__([run for run in runs if run not in other], text)

    trainer = OneEnv(tmp_path, {})
    _, _, found = carry_out(study(tmp_path, envs=("2DNav-v1", "2DNav-v2")), trainer, silent)
    assert {each.env: each.decision.sign for each in found.found} == {"2DNav-v1": 1, "2DNav-v2": 0}
    assert trainer.rounds[2]  # the second round of 2DNav-v2
    assert not trainer.rounds[3]  # none of 2DNav-v1


def test_every_sparsity_is_a_comparison_and_dense_runs_serve_all(tmp_path: Path) -> None:
    asked = study(tmp_path, "dense:sst", sparsities=(0.5, 0.9))
    assert asked.count == 2
    trainer = Trainer(tmp_path, {"dense": 50.0})
    carry_out(asked, trainer, silent)
    dense = [
        run for runs in asked.runs(asked.look()) if (run := runs) and method_of(run) == "dense"
    ]
    assert len(dense) == 4


def test_rounds_begin_at_the_smallest_seed_and_tasks_are_averaged(tmp_path: Path) -> None:
    trainer = Trainer(tmp_path, {"rlx2": 50.0})
    asked = study(tmp_path, seeds=(30, 31), tasks=(0, 1))
    _, _, found = carry_out(asked, trainer, silent)
    assert ("sst", 33) in trainer.rounds[0]
    (only,) = found.found
    means = []
    for seeds in asked.members.values():
        runs = [run for seed in range(30, 34) for run in seeds[seed]]
        assert len(runs) == 8
        means.append(np.mean([value(run, trainer.means) for run in runs]))
    assert abs(only.decision.difference) == pytest.approx(abs(means[0] - means[1]))


# --- going on -------------------------------------------------------------------------------------


def test_a_study_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    whole = Trainer(tmp_path / "whole", {})
    carry_out(study(tmp_path / "whole"), whole, silent)

    def stop(run: Run) -> str:
        if run.config.seed == 6:
            raise Stopped
        return "finished"

    with pytest.raises(Stopped):
        carry_out(study(tmp_path), Trainer(tmp_path, {}, stop), silent)
    again = Trainer(tmp_path, {})
    asked = study(tmp_path)
    assert asked.look().looks == 1
    _, _, found = carry_out(asked, again, silent)
    assert found.looks == 3
    left = {run for runs in again.rounds for run in runs}
    assert left < {run for runs in whole.rounds for run in runs}
    assert min(seed for _, seed in left) >= 4
    files = [
        next((root / "until-decided").glob("*.json")) for root in (tmp_path, tmp_path / "whole")
    ]
    assert files[0].read_text() == files[1].read_text()


def test_a_finished_study_trains_nothing(tmp_path: Path) -> None:
    carry_out(study(tmp_path), Trainer(tmp_path, {"rlx2": 50.0}), silent)
    trainer = Trainer(tmp_path, {})
    _, _, found = carry_out(study(tmp_path), trainer, silent)
    assert trainer.rounds == [[]]
    assert [each.decision.sign for each in found.found] == [1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numbers": {"max_seeds": 16}}, "--max-seeds 12 -> 16"),
        ({"numbers": {"seeds_per_round": 6}}, "--seeds-per-round 4 -> 6"),
        ({"numbers": {"alpha": 0.1}}, "--alpha 0.2 -> 0.1"),
        ({"seeds": (5,)}, "the smallest of --seeds 0 -> 5"),
        ({"pairs": "rlx2:sst,dense:sst"}, "comparisons 1 -> 2"),
        ({"envs": ("2DNav-v1", "2DNav-v2")}, "comparisons 1 -> 2"),
    ],
)
def test_a_plan_cannot_change_after_its_first_look(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    carry_out(study(tmp_path), Trainer(tmp_path, {}), silent)
    with pytest.raises(InputError, match=f"by another plan .*{said}.*another --out"):
        study(tmp_path, **change)


def test_other_comparisons_are_another_study(tmp_path: Path) -> None:
    carry_out(study(tmp_path), Trainer(tmp_path, {}), silent)
    carry_out(study(tmp_path, "dense:rlx2"), Trainer(tmp_path, {"dense": 9.0}), silent)
    assert len(list((tmp_path / "until-decided").glob("*.json"))) == 2


def test_a_pair_that_is_written_the_other_way_is_the_same_study(tmp_path: Path) -> None:
    carry_out(study(tmp_path), Trainer(tmp_path, {"rlx2": 50.0}), silent)
    (file,) = (tmp_path / "until-decided").glob("*.json")
    turned = study(tmp_path, "sst:rlx2")
    assert turned.file.path == file
    carry_out(turned, Trainer(tmp_path, {}), silent)
    assert list((tmp_path / "until-decided").glob("*.json")) == [file]
    stored = json.loads(file.read_text())
    stored["comparisons"][0]["better"] = "first"  # sst, which is the worse one
    file.write_text(json.dumps(stored))
    with pytest.raises(InputError):
        study(tmp_path, "sst:rlx2").look()


def test_runs_that_are_not_those_that_decided_are_refused(tmp_path: Path) -> None:
    asked = study(tmp_path)
    carry_out(asked, Trainer(tmp_path, {"rlx2": 50.0}), silent)
    for runs in next(seeds for name, seeds in asked.members.items() if name[2] == "rlx2").values():
        file = runs[0].path / "eval.csv"
        if file.exists():
            file.write_text(file.read_text().replace(",5", ",-5").replace(",4", ",-4"))
    with pytest.raises(InputError, match="the runs are not those by which rlx2 and sst"):
        study(tmp_path).look()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1}', "[1", '{"format": 2, "plan": {}}'])
def test_a_damaged_file_of_a_study_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "until-decided").mkdir()
    (tmp_path / "until-decided" / "a_b.json").write_text(text)
    with pytest.raises(InputError, match="cannot be read as a study of --until-decided"):
        study(tmp_path)


# --- runs that do not finish ----------------------------------------------------------------------


def test_a_comparison_with_a_diverged_run_is_given_up_and_stays_so(tmp_path: Path) -> None:
    def diverges(run: Run) -> str:
        return "diverged" if (method_of(run), run.config.seed) == ("rlx2", 5) else "finished"

    trainer = Trainer(tmp_path, {}, diverges)
    _, _, found = carry_out(study(tmp_path, "dense:sst,rlx2:sst"), trainer, silent)
    assert [each.first.method for each in found.given_up] == ["rlx2"]
    assert [each.decision.sign for each in found.found] == [0, 0]
    assert found.looks == 3
    assert ("rlx2", 8) not in trainer.rounds[2]
    assert ("dense", 8) in trainer.rounds[2]
    again = Trainer(tmp_path, {})
    carry_out(study(tmp_path, "dense:sst,rlx2:sst"), again, silent)
    assert again.rounds == [[]]


def test_a_failed_run_stops_the_study_until_it_is_trained(tmp_path: Path) -> None:
    def fails(run: Run) -> str:
        return "failed" if (method_of(run), run.config.seed) == ("sst", 2) else "finished"

    trainer = Trainer(tmp_path, {"rlx2": 50.0}, fails)
    _, outcomes, found = carry_out(study(tmp_path), trainer, silent)
    assert sum(not each.finished for each in outcomes) == 1
    assert (found.looks, len(trainer.rounds)) == (0, 1)
    again = Trainer(tmp_path, {"rlx2": 50.0})
    _, _, found = carry_out(study(tmp_path), again, silent)
    assert again.rounds == [[("sst", 2)]]
    assert [each.decision.sign for each in found.found] == [1]


def test_finished_runs_without_a_score_are_no_reason_to_wait_for_ever(tmp_path: Path) -> None:
    asked = study(tmp_path)
    for run in asked.runs(asked.look()):
        write_run(tmp_path, run.label, {})
    with pytest.raises(DstrlError, match="look 1 waits for runs that are finished"):
        carry_out(asked, Trainer(tmp_path, {}), silent)


def test_a_study_of_which_everything_was_given_up_shows_its_first_round_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def diverges(run: Run) -> str:
        return "diverged" if (method_of(run), run.config.seed) == ("rlx2", 1) else "finished"

    options = {"methods": ("sst", "rlx2")}
    carry_out(study(tmp_path, **options), Trainer(tmp_path, {}, diverges), silent)
    asked = study(tmp_path, **options)
    assert asked.runs(asked.look()) == []
    again = Trainer(tmp_path, {})
    shown, outcomes, _ = carry_out(asked, again, silent)
    assert (len(shown), outcomes, again.rounds) == (8, [], [])
    plan = RunOptions(Limits(), dry_run=True, as_json=True)
    commands._sweep_until_decided(asked, plan, None)
    assert json.loads(capsys.readouterr().out)["until_decided"]["looks"] == 0


def test_what_a_round_without_a_comparison_decides_is_what_it_would_have_decided_anyway() -> None:
    """The comparison given up took part in the first look, which its leaving does not change."""
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(m, size=20), rng.normal(size=20)) for m in (0.0, 3.0, 0.1)]
    plan = Plan(4, 5, permutations=999)
    whole = decide(pairs, plan)
    short = [(pairs[0][0][:7], pairs[0][1][:7]), *pairs[1:]]
    left = decide(short, plan, closed=[0])
    assert left.given_up == (0,)
    assert left.decisions[0].sign == 0
    assert left.decisions[1] == whole.decisions[1]
    assert left.looks == 4
    assert decide(short, plan).waiting == (0,)


# --- what is asked --------------------------------------------------------------------------------

BASE = ["sweep", "--env=2DNav-v1", "--dst=sst,rlx2", "--steps=200", *[f"--set={s}" for s in SMALL]]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--until-decided=rlx2:sts"],
            "unknown method of --until-decided 'sts'; did you mean 'sst'",
        ),
        (["--until-decided=rlx2"], "--until-decided 'rlx2': give two methods as our-rlx2:rlx2"),
        (["--until-decided=sst:sst"], "--until-decided 'sst:sst': give two methods"),
        (["--until-decided="], "--until-decided: '' names no value"),
        (["--until-decided=rlx2:sst,sst:rlx2"], "rlx2:sst and sst:rlx2 are one comparison"),
        (["--until-decided=rlx2:sst", "--max-seeds=7"], "--max-seeds 7: rounds have 5 seeds"),
        (["--until-decided=rlx2:sst", "--alpha=1"], "--alpha 1: a probability of error"),
        (["--until-decided=rlx2:sst", "--alpha=nan"], "--alpha nan: a probability of error"),
        (["--until-decided=rlx2:sst", "--seed=3"], "--seed 3 and --until-decided"),
        (["--until-decided=rlx2:sst", "--overwrite"], "--overwrite and --until-decided"),
        (["--max-seeds=10"], "--max-seeds says how to add seeds: give --until-decided too"),
        (["--until-decided=rlx2:sst", "--max-seeds=0"], "--max-seeds"),
        (
            ["--until-decided=rlx2:sst", "--alpha=5e-5"],
            "--alpha 5e-05: of 9,999 permutations none can show an error below 0.0001; give 0.0001",
        ),
        (
            ["--until-decided=rlx2:sst", "--max-seeds=4", "--seeds-per-round=2"],
            "--max-seeds 4: so few seeds can decide nothing at --alpha 0.05, however far apart "
            "their scores are; give 6 or more",
        ),
    ],
)
def test_wrong_flags_say_so_in_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert main([*BASE, f"--out={tmp_path / 'r'}", *flags]) == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"], ["--status"]])
def test_a_preset_with_stages_gets_no_rounds_and_the_message_says_what_to_do_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    base = ["sweep", "--preset=rlx2-figure6", "--until-decided=rlx2:rlx-ss", "--scale=0.002"]
    assert main([*base, f"--out={tmp_path / 'r'}", *flags]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("error: preset 'rlx2-figure6' and --until-decided: seeds come in rounds")
    assert "give all seeds with --seeds, and compare the methods with dstrl table --test" in said
    assert not (tmp_path / "r").exists()


def test_a_dry_run_says_what_is_next_and_what_it_can_find(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--until-decided=rlx2:sst", "--max-seeds=10", "--dry-run", f"--out={tmp_path / 'r'}"]
    assert main([*BASE, *flags]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "round 1 of 2: seeds 0-4 of rlx2, sst" in said
    assert "at most 2 looks and 20 runs of the methods compared" in said
    assert "one look at 5 seeds of each method: 2" in said  # 27 %
    assert not (tmp_path / "r").exists()
    assert main([*BASE, *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["until_decided"]
    assert (document["max_seeds"], document["rounds"], document["looks"]) == (10, 2, 0)
    assert 0.22 < document["power"]["one_look_after_a_round"]["found"] < 0.32


def test_a_preset_may_ask_for_it_and_a_flag_may_forbid_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = tmp_path / "mine.yaml"
    preset.write_text(
        "sweep: {dst: [sst, rlx2], env: 2DNav-v1}\nconfig: {steps: 300}\n"
        "until_decided: rlx2:sst\nmax_seeds: 6\nseeds_per_round: 3\n"
    )
    base = ["sweep", f"--preset={preset}", "--dry-run", "--json", f"--out={tmp_path / 'r'}"]
    assert main(base) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["until_decided"]["seeds_per_round"], document["total"]) == (3, 6)
    assert main([*base, "--until-decided=none"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 2


def test_more_seeds_and_larger_differences_are_found_more_often() -> None:
    small, large = (power(Plan(1, n), studies=300).found for n in (5, 15))
    assert small < 0.4 < large
    assert power(Plan(1, 5), effect=3.0, studies=200).found > 0.95
    several = power(Plan(2, 5), comparisons=4, studies=400)
    assert several.found < power(Plan(2, 5), studies=400).found
    assert 5 < several.seeds <= 10


def test_a_sweep_ends_with_the_table_and_its_comparisons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--until-decided=rlx2:sst", "--max-seeds=2", "--jobs=2", f"--out={tmp_path}"]
    command = [*BASE, *flags, "--alpha=0.4", "--metric=final", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["runs"]) == 4
    assert len(document["table"]["tests"]["comparisons"]) == 1
    assert document["table"]["tests"]["looks"] == 1
    assert main([*command, "--status"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 4
